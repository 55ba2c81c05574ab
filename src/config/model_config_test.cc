#include "config/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "base/file.h"

namespace cachalot {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string real_config(const std::string& name) {
  return read_file(std::string(CACHALOT_SOURCE_DIR) + "/tests/data/configs/" + name + ".json").value();
}

ModelConfig parse_real(const std::string& name) {
  const Result<ModelConfig> config = parse_model_config(real_config(name), name);
  EXPECT_TRUE(config) << (config ? "" : config.error().message);
  return config.value_or(ModelConfig{});
}

// R1's config.json with keys set: `changes` is a JSON object.
boost::json::object r1_with(std::string_view changes) {
  boost::json::object object = boost::json::parse(real_config("deepseek-r1")).as_object();
  const boost::json::object changed = boost::json::parse(changes).as_object();
  for (const auto& [key, value] : changed) object[key] = value;
  return object;
}
Result<ModelConfig> parse(const boost::json::object& object) {
  return parse_model_config(boost::json::serialize(object), "m/config.json");
}
Result<ModelConfig> parse_r1_with(std::string_view changes) {
  return parse(r1_with(changes));
}

std::string error_of(const Result<ModelConfig>& config) {
  return config ? "no error" : config.error().message;
}

TEST(ModelConfig, ReadsDeepSeekR1) {
  const ModelConfig config = parse_real("deepseek-r1");
  EXPECT_EQ(config.family, ModelFamily::kDeepseekV3);
  EXPECT_EQ(config.hidden_size, 7168);
  EXPECT_EQ(config.num_layers, 61);
  EXPECT_EQ(config.num_heads, 128);
  EXPECT_EQ(config.q_lora_rank, 1536);
  EXPECT_EQ(config.qk_head_dim(), 192);
  EXPECT_EQ(config.kv_cache_dim(), 576);
  EXPECT_EQ(config.num_experts, 256);
  EXPECT_EQ(config.num_groups, 8);
  EXPECT_EQ(config.topk_groups, 4);
  EXPECT_EQ(config.scoring, ScoringFunction::kSigmoid);
  EXPECT_EQ(config.topk_method, TopkMethod::kNoauxTc);
  EXPECT_EQ(config.num_nextn_predict_layers, 1);
  EXPECT_FALSE(config.is_moe_layer(2));
  EXPECT_TRUE(config.is_moe_layer(3));
  EXPECT_EQ(config.quantization.format, WeightFormat::kFp8Block);
  ASSERT_TRUE(config.yarn);
  EXPECT_EQ(config.yarn->factor, 40);
  EXPECT_EQ(config.yarn->original_max_position_embeddings, 4096);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(1));
}

TEST(ModelConfig, ReadsDeepSeekV2AndV2Lite) {
  const ModelConfig big = parse_real("deepseek-v2");
  EXPECT_EQ(big.family, ModelFamily::kDeepseekV2);
  EXPECT_EQ(big.topk_method, TopkMethod::kGroupLimitedGreedy);
  EXPECT_EQ(big.scoring, ScoringFunction::kSoftmax);
  EXPECT_FALSE(big.norm_topk_prob);
  EXPECT_EQ(big.routed_scaling_factor, 16);
  EXPECT_EQ(big.topk_groups, 3);

  const ModelConfig lite = parse_real("deepseek-v2-lite");
  EXPECT_EQ(lite.topk_method, TopkMethod::kGreedy);
  EXPECT_EQ(lite.q_lora_rank, 0);
  EXPECT_EQ(lite.num_shared_experts, 2);
  EXPECT_EQ(lite.yarn->mscale, 0.707);
  EXPECT_EQ(lite.quantization.format, WeightFormat::kPlain);
}

TEST(ModelConfig, ReadsMoonlightWithoutLowRankQueriesAndWithoutYarn) {
  const ModelConfig config = parse_real("moonlight");
  EXPECT_EQ(config.family, ModelFamily::kDeepseekV3);
  EXPECT_EQ(config.q_lora_rank, 0);
  EXPECT_FALSE(config.yarn);
  EXPECT_EQ(config.rope_theta, 50000);
  EXPECT_EQ(config.num_groups, 1);
  EXPECT_EQ(config.routed_scaling_factor, 2.446);
}

TEST(ModelConfig, NamesAllMissingKeysAtOnce) {
  boost::json::object object = r1_with("{}");
  object.erase("hidden_size");
  object.erase("kv_lora_rank");
  EXPECT_EQ(error_of(parse(object)), "m/config.json: missing hidden_size, kv_lora_rank");
}

TEST(ModelConfig, NamesKeyAndValueOfAWrongType) {
  const Result<ModelConfig> config = parse_r1_with(R"({"hidden_size": "7168"})");
  EXPECT_EQ(error_of(config), "m/config.json: hidden_size is \"7168\"; it must be a whole number from 1 to 1048576");
  EXPECT_EQ(config.error().parameter, "hidden_size");
  EXPECT_THAT(error_of(parse_r1_with(R"({"norm_topk_prob": 1})")),
              HasSubstr("norm_topk_prob is 1; it must be true or false"));
  EXPECT_THAT(error_of(parse_r1_with(R"({"rope_theta": true})")), HasSubstr("rope_theta is true"));
  EXPECT_THAT(error_of(parse_r1_with(R"({"rope_scaling": 4})")), HasSubstr("rope_scaling is 4; it must be an object"));
}

TEST(ModelConfig, RefusesNumbersOutOfRange) {
  for (const char* changes : {R"({"hidden_size": 0})", R"({"hidden_size": -1})", R"({"vocab_size": 1e300})",
                              R"({"num_hidden_layers": 18446744073709551615})", R"({"hidden_size": 7168.5})",
                              R"({"rms_norm_eps": 0})", R"({"rms_norm_eps": 1e9})", R"({"eos_token_id": 129280})",
                              R"({"eos_token_id": [1, "2"]})", R"({"bos_token_id": 129280})"}) {
    const Result<ModelConfig> config = parse_r1_with(changes);
    ASSERT_FALSE(config) << changes;
    EXPECT_THAT(config.error().message, HasSubstr("it must be")) << changes;
  }
}

TEST(ModelConfig, RefusesImplausibleRouting) {
  EXPECT_THAT(error_of(parse_r1_with(R"({"n_group": 7})")),
              HasSubstr("n_group is 7; it must be a divisor of n_routed_experts (256)"));
  EXPECT_THAT(error_of(parse_r1_with(R"({"num_experts_per_tok": 300})")), HasSubstr("at most n_routed_experts (256)"));
  EXPECT_THAT(error_of(parse_r1_with(R"({"topk_group": 9})")), HasSubstr("topk_group is 9"));
  EXPECT_THAT(error_of(parse_r1_with(R"({"topk_group": 1, "num_experts_per_tok": 33})")),
              HasSubstr("32 experts of topk_group"));
  EXPECT_THAT(error_of(parse_r1_with(R"({"n_group": 256, "topk_group": 8})")), HasSubstr("two best"));
  EXPECT_THAT(error_of(parse_r1_with(R"({"first_k_dense_replace": 62})")), HasSubstr("first_k_dense_replace is 62"));
  EXPECT_THAT(error_of(parse_r1_with(R"({"qk_rope_head_dim": 63})")), HasSubstr("even"));
}

TEST(ModelConfig, RefusesByNameWhatIsNotSupported) {
  struct Case {
    const char* changes;
    const char* message;
  };
  for (const Case& refused : {
           Case{R"({"architectures": ["LlamaForCausalLM"]})",
                "architectures is [LlamaForCausalLM], which is not supported; supported are: DeepseekV2ForCausalLM, "
                "DeepseekV3ForCausalLM"},
           Case{R"({"architectures": null})", "supported are"},
           Case{R"({"hidden_act": "gelu"})", "hidden_act is \"gelu\", which is not supported; it must be silu"},
           Case{R"({"attention_bias": true})", "attention_bias is true"},
           Case{R"({"rope_interleave": false})", "rope_interleave is false"},
           Case{R"({"scoring_func": "tanh"})",
                "scoring_func is \"tanh\", which is not supported; it must be softmax or sigmoid"},
           Case{R"({"topk_method": "random"})", "topk_method is \"random\""},
           Case{R"({"rope_scaling": {"type": "linear", "factor": 4}})", "rope_scaling.type is \"linear\""},
           Case{R"({"rope_scaling": {"rope_type": "llama3"}})", "rope_scaling.rope_type is \"llama3\""},
           Case{R"({"quantization_config": {"quant_method": "gptq", "bits": 4}})",
                "quantization_config.quant_method is \"gptq\", which is not supported; it must be awq or fp8"},
           Case{R"({"quantization_config": {"quant_method": "awq", "bits": 8, "group_size": 64}})",
                "quantization_config.bits is 8"},
           Case{R"({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemv"}})",
                "quantization_config.version is \"gemv\""},
           Case{R"({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 48}})", "group_size is 48"},
           Case{R"({"quantization_config": {"quant_method": "fp8", "fmt": "e5m2", "weight_block_size": [128, 128]}})",
                "e5m2"},
           Case{R"({"quantization_config": {"quant_method": "fp8", "fmt": "e4m3"}})", "weight_block_size is missing"},
           Case{R"({"quantization_config": {"quant_method": "fp8", "weight_block_size": [64, 64]}})",
                "weight_block_size is [64,64]"},
       }) {
    const Result<ModelConfig> config = parse_r1_with(refused.changes);
    ASSERT_FALSE(config) << refused.changes;
    EXPECT_THAT(config.error().message, HasSubstr(refused.message));
    EXPECT_EQ(config.error().code, ErrorCode::kUnsupported) << refused.changes;
  }
}

TEST(ModelConfig, ReadsAwqSettings) {
  const Result<ModelConfig> config = parse_r1_with(
      R"({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 64, "version": "GEMM", "zero_point": true,
          "modules_to_not_convert": ["mlp.gate"]}})");
  ASSERT_TRUE(config) << error_of(config);
  EXPECT_EQ(config->quantization.format, WeightFormat::kAwq);
  EXPECT_EQ(config->quantization.group_size, 64);
  EXPECT_THAT(config->quantization.modules_to_not_convert, ElementsAre("mlp.gate"));
}

TEST(ModelConfig, ReadsNewerRopeParameters) {
  boost::json::object object = r1_with(
      R"({"rope_parameters": {"rope_type": "yarn", "rope_theta": 5e4, "factor": 8, "original_max_position_embeddings": 2048}})");
  object.erase("rope_scaling");
  object.erase("rope_theta");
  const Result<ModelConfig> config = parse(object);
  ASSERT_TRUE(config) << error_of(config);
  EXPECT_EQ(config->rope_theta, 5e4);
  EXPECT_EQ(config->yarn->factor, 8);

  object["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 123}};
  EXPECT_FALSE(parse(object)->yarn);
  EXPECT_EQ(parse(object)->rope_theta, 123);
}

TEST(ModelConfig, NamesTheMissingYarnKeys) {
  EXPECT_THAT(error_of(parse_r1_with(R"({"rope_scaling": {"type": "yarn"}})")),
              HasSubstr("missing rope_scaling.factor, rope_scaling.original_max_position_embeddings"));
}

TEST(ModelConfig, TakesFamilyDefaultsForAbsentRoutingKeys) {
  boost::json::object object = r1_with("{}");
  for (const char* key : {"scoring_func", "topk_method", "moe_layer_freq"}) object.erase(key);
  EXPECT_EQ(parse(object)->scoring, ScoringFunction::kSigmoid);
  EXPECT_EQ(parse(object)->topk_method, TopkMethod::kNoauxTc);
  object["architectures"] = {"DeepseekV2ForCausalLM"};
  EXPECT_EQ(parse(object)->scoring, ScoringFunction::kSoftmax);
  EXPECT_EQ(parse(object)->topk_method, TopkMethod::kGreedy);
  object["topk_method"] = "gready";
  EXPECT_EQ(parse(object)->topk_method, TopkMethod::kGreedy);
}

TEST(ModelConfig, ReadsDenseModelsAndListsOfEndTokens) {
  const Result<ModelConfig> config =
      parse_r1_with(R"({"n_routed_experts": null, "eos_token_id": [1, 7], "bos_token_id": null})");
  ASSERT_TRUE(config) << error_of(config);
  EXPECT_EQ(config->num_experts, 0);
  EXPECT_FALSE(config->is_moe_layer(60));
  EXPECT_THAT(config->eos_token_ids, ElementsAre(1, 7));
  EXPECT_EQ(config->bos_token_id, -1);
}

TEST(ModelConfig, NamesTheFileThatIsMissingOrBroken) {
  EXPECT_THAT(error_of(load_model_config("/nowhere")), HasSubstr("/nowhere/config.json: cannot open"));
  EXPECT_THAT(error_of(parse_model_config("{\"a\": ", "m/config.json")), HasSubstr("m/config.json: no valid JSON"));
  EXPECT_THAT(error_of(parse_model_config("[]", "m/config.json")), HasSubstr("must be a JSON object"));
}

}  // namespace
}  // namespace cachalot
