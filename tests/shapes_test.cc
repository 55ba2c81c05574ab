// Shapes that no released model has: every number format must still give what the plain kernels give in float32.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <span>

#include "base/file.h"
#include "base/folder_test_util.h"
#include "golden_cases.h"
#include "model_harness.h"
#include "weights/checkpoint_writer.h"
#include "weights/linear_source.h"
#include "weights/synth.h"

namespace cachalot::test {
namespace {

// DeepSeek's keys with odd widths: hidden 320, heads of 48+24/40, 24 experts in 4 groups, 333 words.
std::string odd_config(const std::string& variant) {
  const bool v2 = variant == "v2";
  return std::string(R"({"architectures": [")") + (v2 ? "DeepseekV2ForCausalLM" : "DeepseekV3ForCausalLM") + R"("],
    "vocab_size": 333, "hidden_size": 320, "intermediate_size": 416, "moe_intermediate_size": 96,
    "num_hidden_layers": 3, "num_attention_heads": 8, "n_shared_experts": 1, "n_routed_experts": 24,
    "routed_scaling_factor": 2.0,
    "kv_lora_rank": 96, "q_lora_rank": )" +
         (variant == "no_q_lora" ? "null" : "160") + R"(, "qk_rope_head_dim": 24,
    "qk_nope_head_dim": 48, "v_head_dim": 40, "n_group": 4, "topk_group": 2, "num_experts_per_tok": 5,
    "first_k_dense_replace": 1,
    "norm_topk_prob": )" +
         (v2 ? "false" : "true") + R"(, "scoring_func": ")" + (v2 ? "softmax" : "sigmoid") + R"(", "topk_method": ")" +
         (v2 ? "group_limited_greedy" : "noaux_tc") +
         R"(", "hidden_act": "silu", "max_position_embeddings": 4096, "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0, "bos_token_id": 0, "eos_token_id": 1, "attention_bias": false, "moe_layer_freq": 1,
    "tie_word_embeddings": )" +
         (variant == "no_q_lora" ? "true" : "false") + "}";
}

struct Param {
  std::string variant;
  WeightFormat format;
  int group_size;
  // Its test's name says the rest.
  friend void PrintTo(const Param& param, std::ostream* out) { *out << param.variant; }
};

std::string param_name(const testing::TestParamInfo<Param>& info) {
  constexpr const char* kNames[] = {"bf16", "fp8", "awq", "packed", "mxfp4"};
  const char* format = kNames[static_cast<size_t>(info.param.format)];
  return info.param.variant + "_" + format + (info.param.group_size ? std::to_string(info.param.group_size) : "");
}

class OddShapes : public testing::TestWithParam<Param> {
 protected:
  void SetUp() override {
    SynthOptions options{.seed = 5};
    options.target.format = GetParam().format;
    if (GetParam().group_size) options.target.group_size = GetParam().group_size;
    const auto written = synthesize(odd_config(GetParam().variant), "config.json", folder_, options);
    ASSERT_TRUE(written) << written.error().message;
    std::mt19937 random(9);
    for (TokenId& token : tokens_) token = static_cast<TokenId>(random() % 333);
  }

  RunResult run(const RunOptions& options, const std::vector<int32_t>& forced = {}) {
    return ModelRun(folder_, options).logits(tokens_, forced);
  }
  // The largest relative error of a token.
  double worst(const std::vector<float>& have, const std::vector<float>& want) const {
    EXPECT_EQ(have.size(), want.size());
    const size_t vocab = want.size() / tokens_.size();
    double worst = 0;
    for (size_t token = 0; token < tokens_.size(); token++) {
      double difference = 0, norm = 0;
      for (size_t idx = token * vocab; idx < (token + 1) * vocab; idx++) {
        difference += std::pow(static_cast<double>(have[idx]) - want[idx], 2);
        norm += std::pow(static_cast<double>(want[idx]), 2);
      }
      worst = std::max(worst, std::sqrt(difference / norm));
    }
    return worst;
  }

  const TestFolder test_folder_;
  const std::string& folder_ = test_folder_.path();
  std::vector<TokenId> tokens_ = std::vector<TokenId>(70);
};

TEST_P(OddShapes, EveryLevelAndRoleGivesThePlainKernelsLogits) {
  const RunResult plain = run({.compute_dtype = DType::kF32, .isa = IsaLevel::kReference});
  for (const IsaLevel isa : available_levels()) {
    EXPECT_LT(worst(run({.compute_dtype = DType::kF32, .isa = isa}).logits, plain.logits), 1e-4) << isa_name(isa);
    EXPECT_LT(
        worst(run({.compute_dtype = DType::kF32, .isa = isa, .generated_from = 9}, plain.chosen_expert_ids).logits,
              plain.logits),
        1e-4)
        << isa_name(isa) << ", generated";
    EXPECT_LT(worst(run({.compute_dtype = DType::kBF16, .activation_dtype = ActivationDTypeOption::kBf16, .isa = isa},
                        plain.chosen_expert_ids)
                        .logits,
                    plain.logits),
              0.05)
        << isa_name(isa) << ", bfloat16";
    EXPECT_LT(worst(run({.compute_dtype = DType::kBF16, .activation_dtype = ActivationDTypeOption::kInt8, .isa = isa},
                        plain.chosen_expert_ids)
                        .logits,
                    plain.logits),
              0.15)
        << isa_name(isa) << ", int8 activations";
  }
  // Layouts that cut through groups and blocks.
  for (const int tp_size : {2, 4, 8}) {
    EXPECT_LT(
        worst(run({.compute_dtype = DType::kF32, .isa = detect_isa(), .layout = {.dp_size = 1, .tp_size = tp_size}},
                  plain.chosen_expert_ids)
                  .logits,
              plain.logits),
        1e-4)
        << "TP " << tp_size;
  }
}

INSTANTIATE_TEST_SUITE_P(All, OddShapes,
                         testing::Values(Param{"v3", WeightFormat::kPlain, 0}, Param{"v3", WeightFormat::kFp8Block, 0},
                                         Param{"v3", WeightFormat::kAwq, 32}, Param{"v2", WeightFormat::kPlain, 0},
                                         Param{"v2", WeightFormat::kAwq, 32},
                                         Param{"no_q_lora", WeightFormat::kPlain, 0},
                                         Param{"no_q_lora", WeightFormat::kAwq, 32},
                                         Param{"v3", WeightFormat::kAwq, 64}, Param{"v3", WeightFormat::kPackedInt, 32},
                                         Param{"v3", WeightFormat::kMxfp4, 32}),
                         param_name);

// A copy of a golden checkpoint. Tensors that `is_changed` are of `dtype`, and hold what change() makes of their
// numbers.
template <class IsChanged, class Change>
void write_copy(const char* golden, const std::string& folder, DType dtype, IsChanged is_changed, Change change) {
  const auto files = ModelFiles::open(golden_folder(golden));
  ASSERT_TRUE(files) << files.error().message;
  std::vector<TensorSpec> specs;
  for (const auto& [name, tensor] : files->checkpoint().tensors()) {
    specs.push_back(tensor.spec);
    if (is_changed(name)) specs.back().dtype = dtype;
  }
  auto writer = CheckpointWriter::create(folder, specs, uint64_t{1} << 30);
  ASSERT_TRUE(writer) << writer.error().message;
  for (const auto& [name, tensor] : files->checkpoint().tensors()) {
    if (!is_changed(name)) {
      ASSERT_TRUE(writer->write(name, tensor.data));
      continue;
    }
    std::vector<float> values = to_floats(tensor);
    change(name, values);
    const std::vector<bf16> narrow(values.begin(), values.end());
    ASSERT_TRUE(writer->write(
        name, dtype == DType::kF32 ? std::as_bytes(std::span(values)) : std::as_bytes(std::span(narrow))));
  }
  ASSERT_TRUE(writer->finish());
  ASSERT_TRUE(write_file(folder + "/config.json", read_file(files->checkpoint().folder() + "/config.json").value()));
}

// Experts of int4, one of which has a scale that fp16 does not hold.
void write_experts(DType dtype, const std::string& folder) {
  write_copy(
      "k2-ct-int4", folder, dtype, [](const std::string& name) { return name.ends_with(".weight_scale"); },
      [](const std::string& name, std::vector<float>& scales) {
        if (name == "model.layers.1.mlp.experts.3.down_proj.weight_scale") scales[0] = 0x1p-30f;
      });
}

TEST(ExpertsOfOtherFormats, AnswerAsTheirNumbersSay) {
  const TestFolder folder;
  write_experts(DType::kBF16, folder.path("bf16"));
  write_experts(DType::kF32, folder.path("f32"));  // one down_proj in kI4Bf16, the others in kI4
  const std::vector<TokenId> tokens = load_golden_cases("k2-ct-int4")[3].tokens;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const RunOptions options{.compute_dtype = dtype, .isa = detect_isa()};
    const RunResult want = ModelRun(folder.path("bf16"), options).logits(tokens);
    ASSERT_FALSE(want.logits.empty());
    EXPECT_TRUE(same_bits(ModelRun(folder.path("f32"), options).logits(tokens).logits, want.logits));
  }
}

// Under int8 rows as well: no answer is made of what is left of it.
TEST(NumbersThatOverflow, ShowInTheLogitsOfEveryRow) {
  const std::vector<TokenId> tokens = load_golden_cases("k2-ct-int4")[2].tokens;
  for (const std::string norm :
       {"model.layers.0.input_layernorm.weight", "model.layers.1.self_attn.q_a_layernorm.weight",
        "model.layers.1.self_attn.kv_a_layernorm.weight", "model.layers.1.post_attention_layernorm.weight",
        "model.norm.weight"}) {
    const TestFolder folder;
    write_copy(
        "k2-ct-int4", folder.path("m"), DType::kBF16, [&](const std::string& name) { return name == norm; },
        [](const std::string&, std::vector<float>& weights) { std::ranges::fill(weights, 3e38f); });
    for (const ActivationDTypeOption rows : {ActivationDTypeOption::kAuto, ActivationDTypeOption::kInt8}) {
      const RunOptions options{.compute_dtype = DType::kBF16, .activation_dtype = rows, .isa = detect_isa()};
      const std::vector<float> logits = ModelRun(folder.path("m"), options).logits(tokens).logits;
      const size_t vocab_size = logits.size() / tokens.size();
      for (size_t row = 0; row < tokens.size(); row++)
        EXPECT_TRUE(std::ranges::any_of(std::span(logits).subspan(row * vocab_size, vocab_size),
                                        [](float logit) { return std::isnan(logit); }))
            << norm << ", row " << row;
    }
  }
}

}  // namespace
}  // namespace cachalot::test
