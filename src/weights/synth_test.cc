#include "weights/synth.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "kernels/weight_samples_test_util.h"
#include "weights/files_test_util.h"
#include "weights/linear_source.h"
#include "weights/model_files.h"

namespace cachalot {
namespace {

using testing::HasSubstr;

// One dense and one expert layer, wide enough for statistics.
constexpr const char* kR1Like = R"({"architectures": ["DeepseekV3ForCausalLM"], "vocab_size": 96, "hidden_size": 256,
    "num_hidden_layers": 2, "num_attention_heads": 4, "q_lora_rank": 64, "kv_lora_rank": 64, "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16, "v_head_dim": 32, "intermediate_size": 384, "moe_intermediate_size": 128, "n_routed_experts": 32,
    "n_shared_experts": 1, "num_experts_per_tok": 4, "first_k_dense_replace": 1, "n_group": 4, "topk_group": 2,
    "num_nextn_predict_layers": 1, "max_position_embeddings": 512, "quantization_config": {"quant_method": "gptq"}})";
constexpr const char* kExpert = "model.layers.1.mlp.experts.7.gate_proj";

Result<ModelFiles> make(const TestFolder& folder, const SynthOptions& options) {
  const Result<SynthSummary> summary = synthesize(kR1Like, "config.json", folder.path("m"), options);
  if (!summary) return std::unexpected(summary.error());
  return ModelFiles::open(folder.path("m"));
}

std::vector<float> weights_of(const WeightSource& source) {
  std::vector<float> values(static_cast<size_t>(source.out_count * source.in_count));
  for (int64_t out = 0; out < source.out_count; out++)
    dequantize(source, out, 0, source.in_count, values.data() + out * source.in_count);
  return values;
}

double rms(const std::vector<float>& values) {
  return std::sqrt(std::inner_product(values.begin(), values.end(), values.begin(), 0.0) /
                   static_cast<double>(values.size()));
}

class SynthFormats : public testing::TestWithParam<WeightFormat> {
 protected:
  SynthOptions options() const {
    return {.target = {.format = GetParam(), .group_size = 32, .quantize_head = true}, .seed = 3};
  }
  TestFolder folder_;
};

TEST_P(SynthFormats, WritesAModelThatLoadsWithItsFormat) {
  const Result<ModelFiles> files = make(folder_, options());
  ASSERT_TRUE(files) << message_of(files);
  EXPECT_EQ(files->config().quantization.format, GetParam());
  EXPECT_EQ(files->num_mtp_layers(), 1);
  constexpr SourceFormat kOfFormat[] = {SourceFormat::kPlain, SourceFormat::kFp8Block, SourceFormat::kAwq,
                                        SourceFormat::kPackedInt, SourceFormat::kMxfp4};
  const SourceFormat wanted = kOfFormat[static_cast<size_t>(GetParam())];
  EXPECT_EQ(files->linear(kExpert, 128, 256)->format, wanted);
  EXPECT_EQ(files->linear("model.layers.2.self_attn.o_proj", 256, 128)->format, wanted);
  EXPECT_EQ(files->head()->format, wanted);
  EXPECT_EQ(files->linear("model.layers.1.mlp.gate", 32, 256)->format, SourceFormat::kPlain);
  EXPECT_EQ(files->linear("model.layers.2.eh_proj", 256, 512)->format, SourceFormat::kPlain);
}

TEST(Synth, SkewsTheChoiceOfExpertsByTheirBias) {
  const TestFolder folder;
  const Result<ModelFiles> files = make(folder, {.seed = 3, .routing_skew = 4});
  ASSERT_TRUE(files) << message_of(files);
  const auto bias = files->vector("model.layers.1.mlp.gate.e_score_correction_bias", 32);
  ASSERT_TRUE(bias) << message_of(bias);
  EXPECT_GT(std::ranges::max(*bias) - std::ranges::min(*bias), 0.1);
  std::string v2 = kR1Like;
  v2.replace(v2.find("DeepseekV3ForCausalLM"), 21, "DeepseekV2ForCausalLM");
  const auto refused = synthesize(v2, "config.json", folder.path("v2"), {.routing_skew = 4});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("no bias to skew it by"));
}

TEST_P(SynthFormats, KeepsActivationsAtTheirSize) {
  const Result<ModelFiles> files = make(folder_, options());
  ASSERT_TRUE(files) << message_of(files);
  const std::vector<float> weights = weights_of(files->linear("model.layers.0.mlp.up_proj", 384, 256).value());
  // fp8 has only six scales here, each of its own size.
  EXPECT_NEAR(rms(weights) * std::sqrt(256), 1, GetParam() == WeightFormat::kFp8Block ? 0.2 : 0.02);
  const double mean = std::accumulate(weights.begin(), weights.end(), 0.0) / static_cast<double>(weights.size());
  EXPECT_NEAR(mean * std::sqrt(256), 0, 0.02);
  const std::vector<float> norms = files->vector("model.norm.weight", 256).value();
  for (const float norm : norms) EXPECT_NEAR(norm, 1, 0.11);
  const std::vector<float> biases = files->vector("model.layers.1.mlp.gate.e_score_correction_bias", 32).value();
  for (const float bias : biases) EXPECT_NEAR(bias, 0, 0.002);
}

TEST_P(SynthFormats, GivesUnrelatedRowsAndExperts) {
  const Result<ModelFiles> files = make(folder_, options());
  ASSERT_TRUE(files) << message_of(files);
  std::vector<float> rows = weights_of(files->linear(kExpert, 128, 256).value());
  const std::vector<float> other =
      weights_of(files->linear("model.layers.1.mlp.experts.8.gate_proj", 128, 256).value());
  rows.insert(rows.end(), other.begin(), other.end());
  for (int64_t a = 0; a < 256; a++) {
    for (int64_t b = 0; b < a; b++) {
      const double product = std::inner_product(&rows[a * 256], &rows[a * 256] + 256, &rows[b * 256], 0.0);
      EXPECT_LT(std::fabs(product), 0.45) << a << " and " << b;  // unrelated: 0 +- 1/16
    }
  }
}

TEST_P(SynthFormats, IsTheSameForTheSameSeedOnly) {
  const auto fingerprint = [&](uint64_t seed) {
    const TestFolder folder;
    SynthOptions seeded = options();
    seeded.seed = seed;
    return make(folder, seeded)->fingerprint().value();
  };
  EXPECT_EQ(fingerprint(1), fingerprint(1));
  EXPECT_NE(fingerprint(1), fingerprint(2));
}

INSTANTIATE_TEST_SUITE_P(All, SynthFormats,
                         testing::Values(WeightFormat::kPlain, WeightFormat::kFp8Block, WeightFormat::kAwq,
                                         WeightFormat::kPackedInt, WeightFormat::kMxfp4),
                         [](const auto& info) { return format_name(info.param); });

TEST(Synth, SpreadsTokensEvenlyOverExperts) {
  const TestFolder folder;
  const Result<ModelFiles> files = make(folder, {.seed = 5});
  ASSERT_TRUE(files) << message_of(files);
  const std::vector<float> gate = weights_of(files->linear("model.layers.1.mlp.gate", 32, 256).value());
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<int> counts(32);
  constexpr int kNumTokens = 4000;
  for (int token = 0; token < kNumTokens; token++) {
    std::vector<float> x(256);
    std::ranges::generate(x, [&] { return normal(random); });
    std::vector<std::pair<double, int>> scores;
    for (int expert = 0; expert < 32; expert++)
      scores.emplace_back(std::inner_product(x.begin(), x.end(), &gate[expert * 256], 0.0), expert);
    std::ranges::partial_sort(scores, scores.begin() + 4, std::greater{});
    for (int slot = 0; slot < 4; slot++) counts[scores[slot].second]++;
  }
  for (const int count : counts) EXPECT_NEAR(count, kNumTokens * 4 / 32, 150);
}

TEST(Synth, SplitsShardsAndReportsProgress) {
  const TestFolder folder;
  uint64_t last = 0, total = 0;
  SynthOptions options{.shard_bytes = 500'000};
  options.on_progress = [&](uint64_t num_done, uint64_t num_total) {
    EXPECT_GT(num_done, last);
    last = num_done;
    total = num_total;
  };
  const Result<SynthSummary> summary = synthesize(kR1Like, "config.json", folder.path("m"), options);
  ASSERT_TRUE(summary) << message_of(summary);
  EXPECT_GT(summary->num_shards, 5);
  EXPECT_EQ(last, summary->num_bytes);
  EXPECT_EQ(total, summary->num_bytes);
  const Result<ModelFiles> files = ModelFiles::open(folder.path("m"));
  ASSERT_TRUE(files) << message_of(files);
  EXPECT_EQ(files->checkpoint().files().size(), static_cast<size_t>(summary->num_shards));
}

TEST(Synth, KeepsLinearsPlainThatTheGroupSizeDoesNotFit) {
  const TestFolder folder;
  const SynthOptions options{.target = {.format = WeightFormat::kAwq, .group_size = 128}};
  const Result<SynthSummary> summary = synthesize(kR1Like, "config.json", folder.path("m"), options);
  ASSERT_TRUE(summary) << message_of(summary);
  EXPECT_EQ(summary->num_plain, 6);  // q_b_proj and kv_b_proj, with their 64 inputs, of three layers
  const Result<ModelFiles> files = ModelFiles::open(folder.path("m"));
  ASSERT_TRUE(files) << message_of(files);
  EXPECT_EQ(files->linear("model.layers.0.self_attn.kv_b_proj", 256, 64)->format, SourceFormat::kPlain);
  EXPECT_EQ(files->config().quantization.modules_to_not_convert.size(), 6u);
}

TEST(Synth, RefusesWhatItCannotDo) {
  const TestFolder folder;
  const auto message = [&](const char* config, const SynthOptions& options) {
    return message_of(synthesize(config, "c.json", folder.path("m"), options));
  };
  EXPECT_THAT(message(kR1Like, {.target = {.format = WeightFormat::kAwq, .group_size = 48}}),
              HasSubstr("multiple of 32"));
  EXPECT_THAT(message("{}", {}), HasSubstr("c.json: architectures"));
  EXPECT_THAT(message("nonsense", {}), HasSubstr("c.json"));
  EXPECT_FALSE(std::filesystem::exists(folder.path("m")));
  EXPECT_EQ(message(kR1Like, {}), "no error");
  EXPECT_THAT(message(kR1Like, {}), HasSubstr("already; name a new folder"));
}

TEST(Synth, SaysHowMuchDiskSpaceIsMissing) {
  const TestFolder folder;
  EXPECT_THAT(message_of(check_disk_space(folder.path(), 1ull << 60)), HasSubstr("1152921.5 TB are needed"));
}

TEST(Synth, BenchmarkShapesAreValidModels) {
  const Result<ModelConfig> lite = parse_model_config(benchmark_config("lite"), "lite");
  ASSERT_TRUE(lite) << message_of(lite);
  EXPECT_EQ(lite->num_layers, 27);
  EXPECT_EQ(benchmark_config("huge"), nullptr);
}

TEST(Synth, BenchmarkShapesHaveTheWidthsOfTheirModels) {
  for (const auto& [shape, real] : {std::pair{"r1slice", "deepseek-r1"},
                                    {"v32slice", "deepseek-v3.2"},
                                    {"k2slice", "kimi-k2"},
                                    {"glm52slice", "glm-5.2"},
                                    {"glm47flash", "glm-4.7-flash"}}) {
    const Result<ModelConfig> slice = parse_model_config(benchmark_config(shape), shape);
    ASSERT_TRUE(slice) << message_of(slice);
    EXPECT_TRUE(slice->notes.empty()) << slice->notes.front();
    const std::string text = read_file(test_data(fmt::format("configs/{}.json", real))).value();
    const ModelConfig model = parse_model_config(text, real).value();
    const auto widths = [](const ModelConfig& config) {
      const IndexerConfig indexer = config.indexer.value_or(IndexerConfig{.num_heads = 0, .is_full = {}});
      return std::vector{config.hidden_size,
                         config.num_heads,
                         config.q_lora_rank,
                         config.kv_lora_rank,
                         config.qk_nope_head_dim,
                         config.qk_rope_head_dim,
                         config.v_head_dim,
                         config.intermediate_size,
                         config.moe_intermediate_size,
                         config.num_experts,
                         config.num_experts_per_token,
                         config.num_shared_experts,
                         config.num_groups,
                         config.topk_groups,
                         config.max_position_embeddings,
                         indexer.num_heads,
                         indexer.head_dim,
                         indexer.topk};
    };
    EXPECT_EQ(widths(*slice), widths(model)) << shape;
    EXPECT_FALSE(slice->is_moe_layer(0));
    EXPECT_TRUE(slice->is_moe_layer(1));
  }
  EXPECT_FALSE(parse_model_config(benchmark_config("glm52slice"), "")->has_indexer(1));
}

}  // namespace
}  // namespace cachalot
