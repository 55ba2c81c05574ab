#include "text/generation_config.h"

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
  for (const auto& [json, what] : {std::pair{R"({"temperature": "hot"})", "temperature is \"hot\""},
                                   std::pair{R"({"top_p": 1.5})", "top_p is 1.5"},
                                   std::pair{R"({"eos_token_id": [1, -2]})", "eos_token_id is [1,-2]"},
                                   std::pair{R"({"eos_token_id": "</s>"})", "eos_token_id is \"</s>\""},
                                   std::pair{"[]", "no JSON object"}, std::pair{"{", "not JSON"}}) {
    const auto config = parse_generation_config(json, "folder/generation_config.json");
    ASSERT_FALSE(config) << json;
    EXPECT_THAT(config.error().message, AllOf(HasSubstr("folder/generation_config.json"), HasSubstr(what)));
  }
}

}  // namespace
}  // namespace cachalot
