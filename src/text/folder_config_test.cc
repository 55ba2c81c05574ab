#include "text/folder_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/huggingface_test_util.h"

namespace cachalot {

namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Optional;

TEST(GenerationConfig, ReadsTheBuiltInModels) {
  const auto config = load_generation_config(kNanoFolder);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_THAT(config->do_sample, Optional(true));
  EXPECT_THAT(config->temperature, Optional(0.6));
  EXPECT_THAT(config->top_p, Optional(0.95));
  EXPECT_THAT(config->eos_token_ids, ElementsAre(497));
  EXPECT_EQ(config->top_k, std::nullopt);
}

TEST(GenerationConfig, AFolderWithoutTheFileAsksForNothing) {
  const auto config = load_generation_config(CACHALOT_SOURCE_DIR "/src");
  ASSERT_TRUE(config);
  EXPECT_EQ(config->temperature, std::nullopt);
  EXPECT_TRUE(config->eos_token_ids.empty());
}

TEST(GenerationConfig, EndOfSequenceIsOneIdOrAList) {
  EXPECT_THAT(parse_generation_config(R"({"eos_token_id": [1, 106]})", "g.json")->eos_token_ids, ElementsAre(1, 106));
  EXPECT_THAT(parse_generation_config(R"({"eos_token_id": 7, "top_k": 50})", "g.json")->eos_token_ids, ElementsAre(7));
  EXPECT_TRUE(parse_generation_config(R"({"eos_token_id": null})", "g.json")->eos_token_ids.empty());
}

TEST(GenerationConfig, ErrorsNameFileKeyAndValue) {
  for (const auto& [json, what] :
       {std::pair{R"({"temperature": "hot"})", "temperature is \"hot\""},
        std::pair{R"({"top_p": 1.5})", "top_p is 1.5"},
        std::pair{R"({"eos_token_id": [1, -2]})", "eos_token_id holds -2"},
        std::pair{R"({"eos_token_id": "</s>"})", "eos_token_id is \"</s>\""}, std::pair{"[]", "must be a JSON object"},
        std::pair{"{", "no valid JSON at line 1, column 2"}}) {
    const auto config = parse_generation_config(json, "folder/generation_config.json");
    ASSERT_FALSE(config) << json;
    EXPECT_THAT(config.error().message, AllOf(HasSubstr("folder/generation_config.json"), HasSubstr(what)));
  }
}

TEST(GenerationConfig, ATopKOfMinusOneOrNullMeansAll) {
  EXPECT_THAT(parse_generation_config(R"({"top_k": -1})", "g.json")->top_k, Optional(0));
  EXPECT_EQ(parse_generation_config(R"({"top_k": null, "temperature": null})", "g.json")->top_k, std::nullopt);
}

TEST(GenerationConfig, WhatEveryRequestWouldBeRefusedForEndsTheStart) {
  for (const auto& [json, what] :
       {std::pair{R"({"top_p": 0})", "top_p is 0; it must be a number from 1e-06 to 1"},
        std::pair{R"({"repetition_penalty": 0})", "repetition_penalty is 0; it must be"},
        std::pair{R"({"repetition_penalty": -1.5})", "repetition_penalty is -1.5"},
        std::pair{R"({"temperature": -0.5})", "temperature is -0.5"},
        std::pair{R"({"temperature": [1]})", "temperature is [1]"},
        std::pair{R"({"top_k": -2})", "top_k is -2; it must be a whole number from -1 to"},
        std::pair{R"({"top_k": "50"})", "top_k is \"50\""}, std::pair{R"({"min_p": 2})", "min_p is 2"},
        std::pair{R"({"max_new_tokens": 0})", "max_new_tokens is 0"},
        std::pair{R"({"do_sample": 1})", "do_sample is 1; it must be true or false"},
        std::pair{R"({"eos_token_id": [1, 512]})", "eos_token_id holds 512"},
        std::pair{R"({"eos_token_id": 4294967296})", "eos_token_id is 4294967296"}}) {
    const auto config = parse_generation_config(json, "folder/generation_config.json", 512);
    ASSERT_FALSE(config) << json;
    EXPECT_THAT(config.error().message, AllOf(HasSubstr("folder/generation_config.json: "), HasSubstr(what)));
  }
}

TEST(GenerationConfig, NamesWhatPlaysNoPart) {
  const auto config = parse_generation_config(
      R"({"typical_p": 0.5, "num_beams": 1, "suppress_tokens": [], "no_repeat_ngram_size": 3, "pad_token_id": 2})",
      "g.json");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_THAT(config->notes, ElementsAre("g.json: these play no part here: typical_p 0.5, no_repeat_ngram_size 3"));
}

TEST(GenerationConfig, AnOverrideGoesBeforeWhatIsThere) {
  GenerationConfig config{.temperature = 0.6, .top_p = 0.9, .eos_token_ids = {7}};
  ASSERT_TRUE(override_generation_config(R"({"temperature": 1, "top_k": 5})", "--override", 512, config));
  EXPECT_THAT(config.temperature, Optional(1.0));
  EXPECT_THAT(config.top_p, Optional(0.9));
  EXPECT_THAT(config.top_k, Optional(5));
  EXPECT_THAT(config.eos_token_ids, ElementsAre(7));
  const Status misspelt = override_generation_config(R"({"temprature": 1})", "--override", 512, config);
  ASSERT_FALSE(misspelt);
  EXPECT_EQ(misspelt.error().message, "--override: 'temprature' is no sampling default; the nearest is temperature");
  EXPECT_FALSE(override_generation_config(R"({"temperature": "hot"})", "--override", 512, config));
  EXPECT_FALSE(override_generation_config("[", "--override", 512, config));
}

}  // namespace

}  // namespace cachalot
