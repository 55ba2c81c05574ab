#include "config/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "base/file.h"
#include "base/folder_test_util.h"
#include "config/model_folder.h"
#include "config/module_patterns.h"

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

TEST(ModelConfig, ReadsKimiAndGlm) {
  const ModelConfig k2 = parse_real("kimi-k2"), thinking = parse_real("kimi-k2-thinking"),
                    k25 = parse_real("kimi-k2.5"), flash = parse_real("glm-4.7-flash");
  EXPECT_EQ(k2.num_experts, 384);
  EXPECT_EQ(k2.num_groups, 1);
  EXPECT_EQ(k2.routed_scaling_factor, 2.827);
  EXPECT_EQ(k2.yarn->beta_fast, 1);
  EXPECT_EQ(k2.quantization.format, WeightFormat::kFp8Block);
  EXPECT_EQ(k25.yarn->beta_fast, 32);
  for (const ModelConfig& config : {thinking, k25}) {
    EXPECT_EQ(config.yarn->factor, 64);
    EXPECT_EQ(config.rms_norm_eps, 1e-5);
    EXPECT_EQ(config.quantization.format, WeightFormat::kPackedInt);
    EXPECT_THAT(config.eos_token_ids, ElementsAre(163585));
  }
  EXPECT_EQ(flash.qk_head_dim(), 256);
  EXPECT_EQ(flash.v_head_dim, 256);
  EXPECT_EQ(flash.scoring, ScoringFunction::kSigmoid);
  EXPECT_EQ(flash.kv_cache_dim(), 576);
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
                "architectures is [LlamaForCausalLM], which is not supported; supported are: DeepseekV2ForCausalLM "
                "DeepseekV3ForCausalLM KimiK25ForConditionalGeneration"},
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
                "quantization_config.quant_method is \"gptq\", which is not supported; it must be awq, fp8 or "
                "compressed-tensors"},
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

// compressed-tensors' settings, of one group, with changes: of the whole, the group and its weights.
std::string compressed(std::string_view whole = "{}", std::string_view group = "{}", std::string_view weights = "{}") {
  boost::json::object all = boost::json::parse(R"({"quant_method": "compressed-tensors", "format": "pack-quantized",
      "ignore": ["lm_head", "re:.*self_attn.*"], "kv_cache_scheme": null, "sparsity_config": {}, "transform_config": {}})")
                                .as_object();
  boost::json::object one = boost::json::parse(R"({"targets": ["Linear"], "input_activations": null})").as_object();
  boost::json::object numbers =
      boost::json::parse(R"({"num_bits": 4, "type": "int", "symmetric": true, "strategy": "group",
      "group_size": 32, "dynamic": false, "actorder": null, "observer": "minmax"})")
          .as_object();
  const auto change = [](boost::json::object& object, std::string_view changes) {
    const boost::json::object changed = boost::json::parse(changes).as_object();
    for (const auto& [key, value] : changed) object[key] = value;
  };
  change(numbers, weights);
  one["weights"] = numbers;
  change(one, group);
  all["config_groups"] = {{"group_0", one}};
  change(all, whole);
  return boost::json::serialize(boost::json::object{{"quantization_config", all}});
}

TEST(ModelConfig, ReadsCompressedTensors) {
  const Result<ModelConfig> kimi = parse_r1_with(compressed());
  ASSERT_TRUE(kimi) << error_of(kimi);
  EXPECT_TRUE(kimi->notes.empty()) << kimi->notes.front();
  EXPECT_EQ(kimi->quantization.format, WeightFormat::kPackedInt);
  EXPECT_EQ(kimi->quantization.bits, 4);
  EXPECT_EQ(kimi->quantization.group_size, 32);
  EXPECT_FALSE(kimi->quantization.zero_point);
  EXPECT_THAT(kimi->quantization.ignore, ElementsAre("lm_head", "re:.*self_attn.*"));

  const Result<ModelConfig> rows = parse_r1_with(
      compressed("{}", "{}", R"({"num_bits": 8.0, "symmetric": false, "strategy": "channel", "group_size": null})"));
  ASSERT_TRUE(rows) << error_of(rows);
  EXPECT_EQ(rows->quantization.bits, 8);
  EXPECT_EQ(rows->quantization.group_size, 0);
  EXPECT_TRUE(rows->quantization.zero_point);

  const Result<ModelConfig> untransformed = parse_r1_with(compressed(R"({"transform_config": {"config_groups": {}}})"));
  EXPECT_TRUE(untransformed) << error_of(untransformed);
  const Result<ModelConfig> implied =
      parse_r1_with(compressed("{}", "{}", R"({"strategy": null, "group_size": -1, "actorder": false})"));
  ASSERT_TRUE(implied) << error_of(implied);
  EXPECT_EQ(implied->quantization.group_size, 0);

  // A group's format goes before that of the whole.
  const Result<ModelConfig> fp8 = parse_r1_with(compressed(
      "{}", R"({"format": "float-quantized", "input_activations": {"dynamic": true, "num_bits": 8}})",
      R"({"num_bits": 8, "type": "float", "strategy": "block", "group_size": null, "block_structure": [128, 128]})"));
  ASSERT_TRUE(fp8) << error_of(fp8);
  EXPECT_EQ(fp8->quantization.format, WeightFormat::kFp8Block);
  for (const char* strategy : {"channel", "tensor"}) {
    const Result<ModelConfig> other = parse_r1_with(compressed(
        R"({"format": "float-quantized"})", "{}",
        fmt::format(R"({{"num_bits": 8, "type": "float", "strategy": "{}", "group_size": null}})", strategy)));
    EXPECT_TRUE(other) << error_of(other);
  }
  const Result<ModelConfig> mxfp4 =
      parse_r1_with(compressed(R"({"format": "mxfp4-pack-quantized"})", "{}", R"({"type": "float"})"));
  ASSERT_TRUE(mxfp4) << error_of(mxfp4);
  EXPECT_EQ(mxfp4->quantization.format, WeightFormat::kMxfp4);
}

TEST(ModelConfig, RefusesByNameWhatIsNotReadOfCompressedTensors) {
  struct Case {
    std::string changes, message;
  };
  const std::string groups = "quantization_config.config_groups", weights = groups + ".group_0.weights";
  for (const Case& refused : {
           Case{compressed(R"({"format": "nvfp4-pack-quantized"})"), "format is \"nvfp4-pack-quantized\""},
           Case{compressed("{}", R"({"format": "marlin-24"})"), groups + ".group_0.format is \"marlin-24\""},
           Case{compressed("{}", "{}", R"({"actorder": "group"})"), weights + ".actorder is \"group\""},
           Case{compressed("{}", "{}", R"({"actorder": true})"), weights + ".actorder is \"group\""},
           Case{compressed("{}", "{}", R"({"num_bits": 3})"), weights + ".num_bits is \"3\""},
           Case{compressed("{}", "{}", R"({"group_size": -1})"), weights + ".group_size is -1"},
           Case{compressed("{}", "{}", R"({"group_size": 48})"), weights + ".group_size is 48"},
           Case{compressed("{}", "{}", R"({"group_size": null})"), "missing " + weights + ".group_size"},
           Case{compressed("{}", "{}", R"({"strategy": "tensor"})"), weights + ".strategy is \"tensor\""},
           Case{compressed("{}", "{}", R"({"type": "float"})"), weights + ".type is \"float\""},
           Case{compressed("{}", "{}", R"({"dynamic": true})"), weights + ".dynamic is true"},
           Case{compressed("{}", R"({"input_activations": {"dynamic": false}})"),
                groups + ".group_0.input_activations.dynamic is false, which is not supported: it asks for static"},
           Case{compressed("{}", R"({"output_activations": {"dynamic": true}})"), "output_activations"},
           Case{compressed("{}", R"({"targets": []})"), "missing " + groups + ".group_0.targets"},
           Case{compressed(R"({"config_groups": null})"), "missing " + groups},
           Case{compressed(R"({"config_groups": {"a": 1}})"), groups + " holds 1"},
           Case{compressed(R"({"sparsity_config": {"format": "sparse-24-bitmask"}})"), "it asks for sparse weights"},
           Case{compressed(R"({"transform_config": {"a": 1}})"), "transform_config"},
           Case{compressed(R"({"ignore": ["re:("]})"), "quantization_config.ignore holds 're:('"},
           Case{compressed(R"({"format": "float-quantized"})", "{}",
                           R"({"type": "float", "num_bits": 8, "strategy": "block", "block_structure": [64, 64]})"),
                weights + ".block_structure is [64,64]"},
       })
    EXPECT_THAT(error_of(parse_r1_with(refused.changes)), HasSubstr(refused.message)) << refused.changes;
}

TEST(ModulePatterns, MatchFromTheStartOrByWholeNameOrClass) {
  const auto match = [](const char* pattern, const char* name) {
    return ModulePatterns::compile({pattern})->match(name, "Linear");
  };
  EXPECT_TRUE(match("Linear", "model.layers.0.mlp.up_proj"));
  EXPECT_TRUE(match("lm_head", "lm_head"));
  EXPECT_FALSE(match("lm_head", "language_model.lm_head"));
  EXPECT_TRUE(match("re:.*lm_head", "language_model.lm_head"));
  EXPECT_FALSE(match("re:lm_head", "language_model.lm_head"));
  EXPECT_TRUE(match("re:.*self_attn", "model.layers.0.self_attn.o_proj")) << "need not reach the end";
  EXPECT_TRUE(match("re:.*mlp\\.gate$", "model.layers.1.mlp.gate"));
  EXPECT_FALSE(match("re:.*mlp\\.gate$", "model.layers.1.mlp.gate_proj"));
  EXPECT_FALSE(match("re:.*mlp\\.(gate|up|gate_up|down)_proj.*", "model.layers.1.mlp.experts.0.up_proj"));
}

TEST(ModulePatterns, AreWrittenAsPythonHasThem) {
  const auto match = [](const std::string& pattern, const char* name = "model.layers.11.mlp.gate") {
    const Result<ModulePatterns> patterns = ModulePatterns::compile({pattern});
    EXPECT_TRUE(patterns) << pattern;
    return patterns && patterns->match(name, "Linear");
  };
  EXPECT_TRUE(match("re:(?P<stack>model)\\.layers\\.(?P<digit>\\d)(?P=digit)\\.mlp\\.gate\\Z"));
  EXPECT_FALSE(match("re:model\\.layers\\.(?P<digit>\\d)(?P=digit)\\.", "model.layers.12.mlp.gate"));
  EXPECT_FALSE(match("re:.*gate\\Z", "model.layers.11.mlp.gate_proj"));
  EXPECT_TRUE(match("re:.*layers\\.\\d{,2}\\.mlp"));
  EXPECT_FALSE(match("re:.*layers\\.\\d{,1}\\.mlp"));
  EXPECT_TRUE(match("re:(?u)MODEL|(?ai:MODEL)\\.layers"));
  EXPECT_FALSE(match("re:(?:MODEL)"));
  EXPECT_TRUE(match("re:(?i)MODEL"));
  EXPECT_TRUE(match("re:[[:m]odel")) << "no class of characters";
  EXPECT_TRUE(match("re:[^][]*gate$"));
  EXPECT_TRUE(match("re:[]m]+odel"));
  EXPECT_FALSE(match("re:\\<model")) << "a sign, not the beginning of a word";
  EXPECT_TRUE(match("re:.*(?<!shared_)mlp(?=\\.gate)"));
  EXPECT_FALSE(ModulePatterns::compile({"re:(?P=none"}));
  EXPECT_FALSE(ModulePatterns::compile({"re:["}));
}

TEST(ModelConfig, ReadsKimiK25WhoseLanguageModelIsAPart) {
  boost::json::object inner = r1_with(R"({"eos_token_id": null, "quantization_config": null})");
  inner.erase("architectures");
  boost::json::object whole{{"architectures", {"KimiK25ForConditionalGeneration"}},
                            {"model_type", "kimi_k25"},
                            {"eos_token_id", 7},
                            {"tie_word_embeddings", false},
                            {"vision_config", {{"patch_size", 2}}},
                            {"text_config", inner}};
  const boost::json::object quantization = boost::json::parse(compressed()).as_object();
  const auto with = [&](bool inside) {
    boost::json::object object = whole;
    (inside ? object["text_config"].as_object() : object)["quantization_config"] =
        quantization.at("quantization_config");
    return object;
  };
  boost::json::object both = with(false);
  both["text_config"].as_object()["quantization_config"] = {{"config_groups", boost::json::object()}};
  EXPECT_EQ(parse(both)->quantization.format, WeightFormat::kPackedInt) << "an empty one says nothing";
  both["text_config"].as_object()["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {128, 128}}};
  EXPECT_EQ(parse(both)->quantization.format, WeightFormat::kFp8Block);
  EXPECT_THAT(parse(both)->notes, ElementsAre(HasSubstr("text_config.quantization_config goes before")));
  for (const bool inside : {false, true}) {
    const Result<ModelConfig> config = parse(with(inside));
    ASSERT_TRUE(config) << error_of(config);
    EXPECT_TRUE(config->notes.empty()) << config->notes.front();
    EXPECT_EQ(config->hidden_size, 7168);
    EXPECT_THAT(config->eos_token_ids, ElementsAre(7));
    EXPECT_EQ(config->tensor_prefix, "language_model.");
    EXPECT_EQ(config->quantization.format, WeightFormat::kPackedInt);
  }
  whole["architectures"] = {"Kimi_K25ForConditionalGeneration"};  // as transformers spells it
  EXPECT_TRUE(parse(whole)) << error_of(parse(whole));
  whole["text_config"].as_object()["hidden_size"] = "x";
  EXPECT_THAT(error_of(parse(whole)), HasSubstr("m/config.json: text_config.hidden_size is \"x\""));
  whole["text_config"].as_object()["architectures"] = {"KimiLinearForCausalLM"};
  EXPECT_THAT(error_of(parse(whole)), HasSubstr("text_config.architectures is \"KimiLinearForCausalLM\""));
  whole.erase("text_config");
  EXPECT_EQ(error_of(parse(whole)), "m/config.json: missing text_config");
}

TEST(ModelConfig, ReadsNewerSpellingsOfAGlm47Flash) {
  boost::json::object object = r1_with(R"({"architectures": ["Glm4MoeLiteForCausalLM"], "model_type": "glm4_moe_lite",
      "rope_scaling": null, "rope_theta": null, "partial_rotary_factor": 1.0, "dtype": "bfloat16",
      "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "n_routed_experts": null, "num_experts": 64.0,
      "scoring_func": null, "topk_method": null, "quantization_config": null, "num_hidden_layers": 4})");
  for (const char* key : {"scoring_func", "first_k_dense_replace", "n_group", "topk_group", "num_experts_per_tok",
                          "n_routed_experts", "routed_scaling_factor", "rms_norm_eps"})
    object.erase(key);
  const Result<ModelConfig> config = parse(object);
  ASSERT_TRUE(config) << error_of(config);
  EXPECT_EQ(config->scoring, ScoringFunction::kSigmoid);
  EXPECT_EQ(config->topk_method, TopkMethod::kNoauxTc);
  EXPECT_EQ(config->num_experts, 64);
  EXPECT_EQ(config->num_experts_per_token, 4);
  EXPECT_EQ(config->num_groups, 1);
  EXPECT_EQ(config->routed_scaling_factor, 1.8);
  EXPECT_EQ(config->rms_norm_eps, 1e-5);
  EXPECT_EQ(config->rope_theta, 1e6);
  EXPECT_FALSE(config->yarn);
  EXPECT_FALSE(config->is_moe_layer(0));
  EXPECT_TRUE(config->is_moe_layer(1));
  object["mlp_layer_types"] = {"dense", "sparse", "dense", "sparse"};
  ASSERT_TRUE(parse(object)) << error_of(parse(object));
  EXPECT_TRUE(parse(object)->is_moe_layer(1));
  EXPECT_FALSE(parse(object)->is_moe_layer(2));
  EXPECT_TRUE(parse(object)->is_moe_layer(4)) << "behind the last: for drafts";
  object["mlp_layer_types"] = {"dense", "sparse", "thick", "sparse"};
  EXPECT_THAT(error_of(parse(object)), HasSubstr("mlp_layer_types is 'thick' for layer 2"));
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
  EXPECT_THAT(error_of(load_model_config("/nowhere")), HasSubstr("/nowhere: there is no such folder"));
  EXPECT_THAT(error_of(parse_model_config("{\"a\": ", "m/config.json")), HasSubstr("m/config.json: no valid JSON"));
  EXPECT_THAT(error_of(parse_model_config("[]", "m/config.json")), HasSubstr("must be a JSON object"));
}

TEST(ModelConfig, HonoursThetaInsideAndOutside) {
  const auto theta = [](std::string_view rope, bool outside) {
    boost::json::object object = r1_with(rope);
    if (!outside) object.erase("rope_theta");
    const Result<ModelConfig> config = parse(object);
    return config ? fmt::format("{}", config->rope_theta) : config.error().message;
  };
  const char* yarn =
      R"({"rope_scaling": {"type": "yarn", "rope_theta": 5e4, "factor": 8, "original_max_position_embeddings": 64}})";
  EXPECT_EQ(theta(yarn, false), "50000");
  EXPECT_EQ(theta(yarn, true), "50000") << "inside goes first";
  EXPECT_THAT(parse_r1_with(yarn)->notes,
              ElementsAre(HasSubstr("rope_scaling.rope_theta (50000) goes before rope_theta, which is 10000")));
  EXPECT_EQ(theta("{}", false), "10000");
  EXPECT_EQ(
      theta(
          R"({"rope_scaling": null, "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 7e4}}})",
          false),
      "70000");
}

TEST(ModelConfig, RefusesRotationsThatContradictThemselves) {
  struct Case {
    const char* changes;
    const char* message;
  };
  const std::string yarn = R"("type": "yarn", "factor": 40, "original_max_position_embeddings": 4096)";
  for (const auto& [changes, message] : std::vector<std::pair<std::string, std::string>>{
           {R"({"rope_scaling": {"rope_type": "default", )" + yarn + "}}",
            "rope_scaling.type is 'yarn'; it must be what rope_type says ('default')"},
           {R"({"rope_scaling": {"factor": 40}})", "rope_scaling.rope_type is absent beside factor"},
           {R"({"rope_scaling": {"a": {"rope_type": "default"}, "b": {)" + yarn + "}}}", "holds different rotations"},
           {R"({"rope_scaling": {"a": {"rope_type": "default"}, "factor": 4}})", "rope_scaling.a is an object beside"},
           {R"({"original_max_position_embeddings": 2048})",
            "original_max_position_embeddings is 2048; it must be what rope_scaling.original_max_position_embeddings "
            "says "
            "(4096)"},
           {R"({"rope_scaling": {"beta_fast": 1, "beta_slow": 2, )" + yarn + "}}",
            "beta_fast is 1; it must be at least beta_slow (2)"},
           {R"({"rope_scaling": {"truncate": false, )" + yarn + "}}", "rope_scaling.truncate is false"},
           {R"({"rope_scaling": {"attention_factor": 0.9, )" + yarn + "}}", "rope_scaling.attention_factor is 0.9"},
       })
    EXPECT_THAT(error_of(parse_r1_with(changes)), HasSubstr(message)) << changes;
}

TEST(ModelConfig, TakesBothFormsOfTheRotationThatAgree) {
  const Result<ModelConfig> both =
      parse_r1_with(R"({"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000, "factor": 40.0,
      "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1, "mscale": 1, "mscale_all_dim": 1}})");
  ASSERT_TRUE(both) << error_of(both);
  EXPECT_EQ(both->yarn->factor, 40);
  EXPECT_TRUE(both->notes.empty());
  const Result<ModelConfig> empty = parse_r1_with(R"({"rope_scaling": null, "rope_parameters": {}})");
  ASSERT_TRUE(empty) << error_of(empty);
  EXPECT_FALSE(empty->yarn);
  EXPECT_THAT(empty->notes, ElementsAre(HasSubstr("rope_parameters is empty")));
  // Kimi K2's.
  const Result<ModelConfig> kimi = parse_r1_with(
      R"({"rope_scaling": {"type": "yarn", "factor": 32, "beta_fast": 1, "beta_slow": 1.0, "original_max_position_embeddings": 4096}})");
  ASSERT_TRUE(kimi) << error_of(kimi);
  EXPECT_EQ(kimi->yarn->beta_fast, kimi->yarn->beta_slow);
}

TEST(ModelConfig, OfTwoRotationsTakesTheOlderOne) {
  for (const char* parameters : {R"({"rope_type": "default", "rope_theta": 5})", R"({"rope_theta": 5})",
                                 R"({"rope_type": "yarn", "factor": 8, "original_max_position_embeddings": 4096})",
                                 R"({"rope_type": "linear", "factor": 8})", R"({"rope_type": 3})"}) {
    const Result<ModelConfig> config = parse_r1_with(fmt::format(R"({{"rope_parameters": {}}})", parameters));
    ASSERT_TRUE(config) << parameters << ": " << error_of(config);
    EXPECT_EQ(config->yarn->factor, 40) << parameters;
    EXPECT_EQ(config->rope_theta, 10000) << parameters;
    EXPECT_THAT(config->notes, ElementsAre(HasSubstr("rope_scaling goes before rope_parameters, which says otherwise")))
        << parameters;
  }
}

TEST(ModelConfig, AbsentKeysMeanWhatThePublishedClassSays) {
  boost::json::object object = r1_with("{}");
  for (const char* key : {"n_group", "topk_group", "n_routed_experts", "n_shared_experts", "num_experts_per_tok",
                          "moe_intermediate_size", "first_k_dense_replace", "norm_topk_prob", "routed_scaling_factor",
                          "q_lora_rank", "rope_theta", "rms_norm_eps", "moe_layer_freq", "num_nextn_predict_layers"})
    object.erase(key);
  const Result<ModelConfig> v3 = parse(object);
  ASSERT_TRUE(v3) << error_of(v3);
  EXPECT_EQ(v3->num_groups, 8);
  EXPECT_EQ(v3->topk_groups, 4);
  EXPECT_EQ(v3->num_experts, 256);
  EXPECT_EQ(v3->num_shared_experts, 1);
  EXPECT_EQ(v3->num_experts_per_token, 8);
  EXPECT_EQ(v3->moe_intermediate_size, 2048);
  EXPECT_EQ(v3->first_k_dense_replace, 3);
  EXPECT_TRUE(v3->norm_topk_prob);
  EXPECT_EQ(v3->routed_scaling_factor, 2.5);
  EXPECT_EQ(v3->q_lora_rank, 1536);
  EXPECT_EQ(v3->rms_norm_eps, 1e-6);
  object["q_lora_rank"] = nullptr;
  EXPECT_EQ(parse(object)->q_lora_rank, 0);
  object["n_routed_experts"] = 12;
  EXPECT_THAT(error_of(parse(object)), HasSubstr("n_group is absent, which stands for 8"));

  object = r1_with(R"({"architectures": ["DeepseekV2ForCausalLM"], "topk_method": "group_limited_greedy"})");
  object.erase("n_group");
  EXPECT_THAT(error_of(parse(object)), HasSubstr("missing n_group"));
  object.erase("num_experts_per_tok");
  EXPECT_THAT(error_of(parse(object)), HasSubstr("missing num_experts_per_tok"));
}

TEST(ModelConfig, OtherNamesOfAKeyMustAgreeWithIt) {
  boost::json::object object = r1_with(R"({"num_experts": 256, "num_local_experts": 256})");
  EXPECT_TRUE(parse(object));
  object.erase("n_routed_experts");
  EXPECT_EQ(parse(object)->num_experts, 256);
  EXPECT_THAT(error_of(parse_r1_with(R"({"num_experts": 64})")),
              HasSubstr("num_experts is 64; it must be what n_routed_experts says (256)"));
}

TEST(ModelConfig, RefusesKeysThatChangeTheModelUnlessTheyChangeNothing) {
  for (const auto& [key, neutral, other] : std::vector<std::array<const char*, 3>>{
           {"index_topk", "null", "2048"},
           {"indexer_types", "[]", R"(["full"])"},
           {"sliding_window", "null", "128"},
           {"swiglu_limit", "null", "10.0"},
           {"attention_bias", "false", "true"},
           {"mlp_bias", "false", "true"},
           {"attn_output_gate", "false", "true"},
           {"pretraining_tp", "1", "2"},
           {"partial_rotary_factor", "1.0", "0.5"},
           {"num_hash_layers", "0", "3"},
           {"compress_ratios", "[]", "[4]"},
           {"hc_mult", "null", "4"},
           {"text_config", "{}", R"({"a": 1})"},
           {"use_mla", "true", "false"},
           {"logit_scale", "1", "0.5"},
           {"attn_logit_softcapping", "null", "50.0"},
           {"is_encoder_decoder", "false", "true"},
           {"layer_types", "null", R"(["sliding_attention"])"},
           {"mlp_layer_types", "null", R"(["dense"])"},
           {"rope_interleave", "true", "false"},
           {"kv_cache_scheme", "null", R"({"num_bits": 8})"},
       }) {
    const Result<ModelConfig> same = parse_r1_with(fmt::format(R"({{"{}": {}}})", key, neutral));
    EXPECT_TRUE(same) << key << ": " << error_of(same);
    if (same) {
      EXPECT_TRUE(same->notes.empty()) << same->notes.front();
    }
    EXPECT_THAT(error_of(parse_r1_with(fmt::format(R"({{"{}": {}}})", key, other))),
                HasSubstr(fmt::format("m/config.json: {} ", key)));
  }
  EXPECT_TRUE(parse_r1_with(R"({"sliding_window": 4096, "use_sliding_window": false})"));
}

TEST(ModelConfig, ListsOfLayerTypesGoBeforeOtherKeys) {
  boost::json::array types(61, "sparse"), attention(61, "full_attention");
  for (int layer = 0; layer < 3; layer++) types[layer] = "dense";
  boost::json::object object = r1_with("{}");
  object["mlp_layer_types"] = types;
  object["layer_types"] = attention;
  EXPECT_TRUE(parse(object)) << error_of(parse(object));
  types[3] = "dense";
  object["mlp_layer_types"] = types;
  const Result<ModelConfig> config = parse(object);
  ASSERT_TRUE(config) << error_of(config);
  EXPECT_FALSE(config->is_moe_layer(3)) << "the list goes first";
  EXPECT_THAT(config->notes, ElementsAre(HasSubstr("mlp_layer_types goes before first_k_dense_replace")));
  object["n_routed_experts"] = nullptr;
  EXPECT_THAT(error_of(parse(object)), HasSubstr("mlp_layer_types is 'sparse' for layer 4"));
}

std::vector<int> full_layers(const Result<ModelConfig>& config) {
  EXPECT_TRUE(config) << error_of(config);
  if (!config) return {};
  std::vector<int> layers;
  for (int layer = 0; layer < config->num_layers; layer++)
    if (config->has_indexer(layer)) layers.push_back(layer);
  return layers;
}

TEST(ModelConfig, ReadsTheIndexersOfSparseAttention) {
  const ModelConfig v32 = parse_real("deepseek-v3.2");
  EXPECT_TRUE(v32.notes.empty()) << v32.notes.front();
  ASSERT_TRUE(v32.indexer);
  EXPECT_EQ(v32.indexer->num_heads, 64);
  EXPECT_EQ(v32.indexer->head_dim, 128);
  EXPECT_EQ(v32.indexer->topk, 2048);
  EXPECT_FALSE(v32.indexer->interleaved_rope);
  EXPECT_EQ(std::ssize(full_layers(v32)), 61);
  EXPECT_TRUE(v32.has_indexer(61)) << "of multi-token prediction";

  const ModelConfig glm = parse_real("glm-5.2");
  EXPECT_TRUE(glm.notes.empty()) << glm.notes.front();
  ASSERT_TRUE(glm.indexer);
  EXPECT_EQ(glm.indexer->num_heads, 32);
  EXPECT_TRUE(glm.indexer->interleaved_rope);
  EXPECT_EQ(std::ssize(full_layers(glm)), 21);
  EXPECT_FALSE(parse_real("deepseek-r1").indexer);
  EXPECT_FALSE(parse_real("deepseek-r1").has_indexer(61));
}

TEST(ModelConfig, SaysInThreeWaysWhichLayersHaveAnIndexer) {
  const auto with = [](const std::string& changes, int num_layers = 8) {
    boost::json::object object = boost::json::parse(real_config("glm-5.2")).as_object();
    for (const char* key : {"indexer_types", "index_topk_freq", "index_skip_topk_offset", "mlp_layer_types"})
      object.erase(key);
    object["num_hidden_layers"] = num_layers;
    object["first_k_dense_replace"] = 1;
    const boost::json::object changed = boost::json::parse(changes).as_object();
    for (const auto& [key, value] : changed) object[key] = value;
    return parse(object);
  };
  EXPECT_THAT(full_layers(with("{}")), testing::SizeIs(8));
  EXPECT_THAT(full_layers(with(R"({"index_topk_freq": 4, "index_skip_topk_offset": 3})", 12)),
              ElementsAre(0, 1, 2, 6, 10));
  EXPECT_THAT(full_layers(with(R"({"index_topk_freq": 2})")), ElementsAre(0, 1, 3, 5, 7));
  EXPECT_THAT(full_layers(with(R"({"index_topk_freq": 0})")), testing::SizeIs(8));
  EXPECT_THAT(full_layers(with(R"({"index_topk_pattern": "FSSF", "index_topk_freq": 2})", 4)), ElementsAre(0, 3));
  EXPECT_THAT(full_layers(with(R"({"index_topk_pattern": ["F", "S", "F", "S"]})", 4)), ElementsAre(0, 2));
  EXPECT_THAT(full_layers(with(R"({"index_topk_pattern": "FFSF", "indexer_types": ["full", "shared"]})", 2)),
              ElementsAre(0))
      << "indexer_types come first";
  EXPECT_THAT(error_of(with(R"({"indexer_types": ["shared", "full"]})", 2)),
              HasSubstr("indexer_types gives layer 0 no indexer"));
  EXPECT_THAT(error_of(with(R"({"indexer_types": ["full"]})")),
              HasSubstr("indexer_types has 1 entries; it must be one for each of num_hidden_layers (8)"));
  EXPECT_THAT(error_of(with(R"({"index_topk_pattern": "FX"})", 2)), HasSubstr("index_topk_pattern is \"X\""));
  EXPECT_THAT(error_of(with(R"({"q_lora_rank": null})")), HasSubstr("q_lora_rank is 0"));
  EXPECT_THAT(error_of(with(R"({"index_head_dim": 32})")), HasSubstr("at least qk_rope_head_dim (64)"));
  EXPECT_THAT(error_of(with(R"({"index_topk": 0})")), HasSubstr("index_topk"));
}

// A config.json of tests/data with changes: {"text_config.rope_theta": 1}; "absent" takes a key away.
std::string changed_config(const std::string& name, std::string_view changes) {
  boost::json::value whole = boost::json::parse(real_config(name));
  const boost::json::object changed = boost::json::parse(changes).as_object();
  for (const auto& [path, value] : changed) {
    boost::json::object* object = &whole.as_object();
    std::string_view key = path;
    for (size_t dot; (dot = key.find('.')) != key.npos; key.remove_prefix(dot + 1))
      object = &object->at(key.substr(0, dot)).as_object();
    if (value == "absent")
      object->erase(key);
    else
      (*object)[key] = value;
  }
  return boost::json::serialize(whole);
}

TEST(ModelConfig, OfAFileThatIsAlmostRightNamesKeyAndValueAndWhatWouldBe) {
  struct Case {
    const char *model, *changes, *message;
  };
  for (const Case& test : {
           // Sparse attention.
           Case{"deepseek-v3.2", R"({"index_topk": 0})", "index_topk is 0; it must be a whole number from 1 to"},
           Case{"deepseek-v3.2", R"({"index_topk": "2048"})", "index_topk is \"2048\"; it must be a whole number"},
           Case{"deepseek-v3.2", R"({"index_n_heads": 0})", "index_n_heads is 0; it must be a whole number from 1"},
           Case{"deepseek-v3.2", R"({"index_head_dim": 48})",
                "index_head_dim is 48; it must be at least qk_rope_head_dim"},
           Case{"deepseek-v3.2", R"({"q_lora_rank": 0})",
                "q_lora_rank is 0; it must be positive: the indexer's queries"},
           Case{"deepseek-v3.2",
                R"({"layer_types": ["full_attention"], "num_hidden_layers": 1, "first_k_dense_replace": 1})",
                "layer_types is 'full_attention' for layer 0, which is not supported; it must be "
                "deepseek_sparse_attention"},
           Case{
               "deepseek-v3.2", R"({"architectures": ["DeepseekV3ForCausalLM"]})",
               "is there, which asks for sparse attention; it must be absent or null in models of these architectures"},
           Case{"glm-5.2",
                R"({"indexer_types": ["full", "none"], "num_hidden_layers": 2, "mlp_layer_types": "absent"})",
                "indexer_types is \"none\", which is not supported; it must be full or shared"},
           Case{"glm-5.2", R"({"indexer_types": [1]})", "indexer_types holds 1; it must be a list of strings"},
           Case{"glm-5.2", R"({"indexer_types": "absent", "index_topk_pattern": "FS"})",
                "index_topk_pattern has 2 entries; it must be one for each of num_hidden_layers (78)"},
           Case{"glm-5.2", R"({"indexer_rope_interleave": 1})",
                "indexer_rope_interleave is 1; it must be true or false"},
           // Layers.
           Case{"glm-5.2", R"({"mlp_layer_types": ["dense", "sparse"]})",
                "mlp_layer_types has 2 entries; it must be one for each of num_hidden_layers (78)"},
           Case{"glm-5.2", R"({"mlp_layer_types": "sparse"})",
                "mlp_layer_types is \"sparse\"; it must be a list of strings"},
           Case{"glm-4.7-flash", R"({"mlp_layer_types": ["dense", "thin"], "num_hidden_layers": 2})",
                "mlp_layer_types is 'thin' for layer 1, which is not supported; it must be dense or sparse"},
           // Rotation.
           Case{"glm-5.2", R"({"rope_parameters": {"rope_type": "longrope", "rope_theta": 8e6}})",
                "rope_parameters.rope_type is \"longrope\", which is not supported; it must be yarn or default"},
           Case{"glm-5.2", R"({"rope_parameters": {"rope_type": "yarn", "rope_theta": 8e6}})",
                "missing rope_parameters.factor, rope_parameters.original_max_position_embeddings"},
           Case{"glm-5.2", R"({"rope_parameters": {"rope_theta": 8e6, "factor": 4}})",
                "rope_parameters.rope_type is absent beside factor; it must be yarn or default"},
           Case{"glm-5.2", R"({"rope_parameters": {"rope_theta": 0}})",
                "rope_parameters.rope_theta is 0; it must be a number"},
           Case{"glm-5.2", R"({"rope_parameters": [8000000]})", "rope_parameters is [8000000]; it must be an object"},
           Case{"kimi-k2", R"({"rope_scaling.beta_fast": 0.5})",
                "rope_scaling.beta_fast is 0.5; it must be at least beta_slow"},
           // A model of several parts.
           Case{"kimi-k2.5", R"({"text_config": "absent"})", "missing text_config"},
           Case{"kimi-k2.5", R"({"text_config": [1]})", "text_config is [1]; it must be an object"},
           Case{"kimi-k2.5", R"({"text_config.num_hidden_layers": "absent"})", "missing text_config.num_hidden_layers"},
           Case{"kimi-k2.5", R"({"text_config.hidden_act": "gelu"})",
                "text_config.hidden_act is \"gelu\", which is not"},
           Case{"kimi-k2.5", R"({"architectures": ["DeepseekV3ForCausalLM"]})",
                "which is not supported: it asks for a model of several parts"},
           Case{"kimi-k2.5", R"({"architectures": ["KimiVLForConditionalGeneration"]})",
                "architectures is [KimiVLForConditionalGeneration], which is not supported; supported are:"},
           // Weights of a kind that is not read.
           Case{"glm-5.1", R"({"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}})",
                "quantization_config.quant_method is \"modelopt\", which is not supported; it must be awq, fp8 or "
                "compressed-tensors"},
           Case{"glm-4.7-flash", R"({"quantization_config": {"quant_method": "gptq", "bits": 4, "desc_act": true}})",
                "quant_method is \"gptq\""},
           Case{"deepseek-v3.2", R"({"quantization_config": {"quant_method": "mxfp4"}})", "quant_method is \"mxfp4\""},
           Case{"deepseek-v3.2", R"({"quantization_config.weight_block_size": [128]})",
                "weight_block_size is [128], which is not supported; it must be [128, 128]"},
           Case{"deepseek-v3.2", R"({"quantization_config.activation_scheme": "static"})",
                "activation_scheme is \"static\", which is not supported; it must be dynamic"},
           Case{"kimi-k2-thinking", R"({"quantization_config.format": "nvfp4-pack-quantized"})",
                "quantization_config.format is \"nvfp4-pack-quantized\", which is not supported; it must be "
                "pack-quantized or "
                "float-quantized or mxfp4-pack-quantized"},
           Case{"kimi-k2-thinking", R"({"quantization_config.config_groups.group_0.weights.actorder": "group"})",
                "config_groups.group_0.weights.actorder is \"group\", which is not supported; it must be static or "
                "weight"},
           Case{"kimi-k2-thinking", R"({"quantization_config.sparsity_config": {"format": "sparse-24-bitmask"}})",
                "it asks for sparse weights; it must be absent, empty or dense"},
           Case{"kimi-k2-thinking", R"({"quantization_config.config_groups": {}})",
                "missing quantization_config.config_groups"},
           Case{"kimi-k2-thinking", R"({"quantization_config.config_groups.group_0.targets": "absent"})",
                "missing quantization_config.config_groups.group_0.targets"},
           Case{"kimi-k2-thinking", R"({"quantization_config.config_groups.group_0.targets": ["re:(?P<a"]})",
                "config_groups.group_0.targets holds 're:(?P<a'; it must be module names, class names, or re: and"},
       }) {
    const Result<ModelConfig> config = parse_model_config(changed_config(test.model, test.changes), "m/config.json");
    EXPECT_THAT(error_of(config), testing::AllOf(testing::StartsWith("m/config.json: "), HasSubstr(test.message)))
        << test.model << " " << test.changes;
  }
  std::string twice = real_config("kimi-k2.5");
  twice.replace(twice.find('{'), 1, R"({"text_config": {},)");
  EXPECT_THAT(error_of(parse_model_config(twice, "m/config.json")),
              HasSubstr("m/config.json: no valid JSON: the key 'text_config' stands twice in one object"));
}

TEST(ModelConfig, NamesUnknownKeysOnceInOneLine) {
  const Result<ModelConfig> config =
      parse_r1_with(R"({"favourite": 1, "x\ny": null, "quantization_config": {"quant_method": "fp8",
      "weight_block_size": [128, 128], "colour": 2}, "model_type": "kimi_k2"})");
  ASSERT_TRUE(config) << error_of(config);
  EXPECT_THAT(config->notes,
              ElementsAre("m/config.json: 3 of its keys are not known here and are left out of account: favourite, "
                          "'x\\ny', quantization_config.colour"));
  EXPECT_THAT(parse_r1_with(R"({"model_type": "llama"})")->notes, ElementsAre(HasSubstr("model_type 'llama'")));
}

TEST(ModelConfig, SizesThatNoMachineHoldsAreRefusedByName) {
  EXPECT_THAT(error_of(parse_r1_with(R"({"num_hidden_layers": 4096, "n_routed_experts": 65528})")),
              HasSubstr("n_routed_experts is 65528 in 4096 layers"));
  EXPECT_THAT(
      error_of(parse_r1_with(R"({"hidden_size": 1048576, "intermediate_size": 1048576, "num_hidden_layers": 1000})")),
      HasSubstr("parameters; it must be"));
  for (const char* key : {"hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads", "kv_lora_rank",
                          "max_position_embeddings", "n_routed_experts", "intermediate_size", "qk_rope_head_dim"})
    for (const char* value : {"1000000000", "2147483648", "-1", "9223372036854775808", "1e400", "-1e400", "\"8\"",
                              "[8]", "{}", "true", "0.5"}) {
      std::string text = boost::json::serialize(r1_with(fmt::format(R"({{"{}": 12345678901}})", key)));
      text.replace(text.find("12345678901"), 11, value);
      EXPECT_THAT(error_of(parse_model_config(text, "m/config.json")), HasSubstr(key)) << value;
    }
}

TEST(ModelConfig, FaultsOfJsonHaveLineAndColumn) {
  const auto fault = [](std::string_view text) { return error_of(parse_model_config(std::string(text), "c.json")); };
  EXPECT_THAT(fault("{\n  \"a\": 1,\n  \"b\": nan\n}"), HasSubstr("c.json: no valid JSON at line 3, column 8"));
  EXPECT_THAT(fault("{\"a\": 1,}"), HasSubstr("at line 1, column 9"));
  EXPECT_THAT(fault("{\"a\": 1} x"), HasSubstr("at line 1, column 10"));
  EXPECT_THAT(fault("{\"a\": {\"b\": 1,\n\"b\": 2}}"),
              HasSubstr("c.json: no valid JSON: the key 'b' stands twice in one object, again at line 2"));
  EXPECT_THAT(fault(std::string(100, '[')), HasSubstr("c.json: no valid JSON at line 1"));
  EXPECT_THAT(fault("{\"a\": \"\xff\"}"), HasSubstr("c.json: no valid JSON at line 1"));
  EXPECT_THAT(fault(""), HasSubstr("c.json: no valid JSON: it is empty"));
  EXPECT_THAT(fault("version https://git-lfs.github.com/spec/v1\noid sha256:1\n"), HasSubstr("git lfs pull"));
  EXPECT_THAT(fault("\n<!DOCTYPE html><html>"), HasSubstr("a web page"));
  EXPECT_THAT(fault("Entry not found"), HasSubstr("'Entry not found'"));
  EXPECT_TRUE(parse_model_config("\xef\xbb\xbf" + real_config("deepseek-r1"), "c.json"));
}

TEST(ModelFolder, SaysWhatIsThereInsteadOfAModel) {
  const TestFolder folder;
  const auto fault = [](const std::string& model) {
    const Status status = check_model_folder(model);
    return status ? "no error" : status.error().message;
  };
  EXPECT_THAT(fault("deepseek-ai/DeepSeek-R1"),
              HasSubstr("hf download deepseek-ai/DeepSeek-R1 --local-dir DeepSeek-R1`, then --model DeepSeek-R1"));
  EXPECT_THAT(fault("/nowhere/at/all"), HasSubstr("/nowhere/at/all: there is no such folder; a model is a folder"));
  EXPECT_THAT(fault("models/r1.gguf"), HasSubstr("models/r1.gguf: there is no such folder; a model is a folder"));
  EXPECT_THAT(fault(""), HasSubstr("--model: is empty"));
  for (const auto& [name, what] : std::vector<std::pair<std::string, std::string>>{
           {"r1.gguf", "a GGUF file"},
           {"model.safetensors", "give the folder that it is in: --model " + folder.path()},
           {"pytorch_model.bin", "a PyTorch file"},
           {"notes.txt", "a file, not a folder"}}) {
    ASSERT_TRUE(write_file(folder.path(name), "x"));
    EXPECT_THAT(fault(folder.path(name)), HasSubstr(what));
  }
  EXPECT_THAT(fault(folder.path()),
              HasSubstr("config.json is not in it (found: model.safetensors and 2 more like it)"));
  const std::string snapshot = folder.path("snapshots/0123");
  std::filesystem::create_directories(snapshot);
  ASSERT_TRUE(write_file(snapshot + "/config.json", "{}"));
  EXPECT_THAT(fault(folder.path()), HasSubstr("give --model " + snapshot));
  EXPECT_EQ(fault(snapshot), "no error");
}

}  // namespace
}  // namespace cachalot
