#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

#include "base/file.h"
#include "base/folder_test_util.h"
#include "calibrate/calibrate.h"
#include "golden_cases.h"
#include "model_harness.h"
#include "weights/linear_source.h"
#include "weights/quantize.h"

// Scales found with a text, on golden checkpoints, and on those with channels whose activations are far larger than
// others, as grown models have them.
namespace cachalot::test {
namespace {

using testing::HasSubstr;

// What activations pass through between two linears without losing a factor.
enum class Pair { kInputNorm, kQueryNorm, kLatentNorm, kValues, kPostAttentionNorm, kUp };
constexpr Pair kAllPairs[] = {Pair::kInputNorm, Pair::kQueryNorm,         Pair::kLatentNorm,
                              Pair::kValues,    Pair::kPostAttentionNorm, Pair::kUp};

// A pair's activations become larger by these, each another one, in one of 16 channels by 64.
Folding::Numbers enlarged(int64_t count, bool inverse = false) {
  std::vector<float> factors;
  for (int64_t idx = 0; idx < count; idx++) {
    const int exponent = idx % 16 == 5 ? 6 : static_cast<int>(idx * 7 % 3) - 1;
    factors.push_back(std::ldexp(1.f, inverse ? -exponent : exponent));
  }
  return std::make_shared<const std::vector<float>>(std::move(factors));
}

class PairList {
 public:
  PairList(const ModelConfig& config, const std::set<Pair>& pairs) {
    for (int layer = 0; layer < config.num_layers; layer++)
      for (const Pair pair : pairs) add(config, layer, pair);
  }
  Foldings take() { return std::move(foldings_); }

 private:
  void add(const ModelConfig& config, int layer, Pair pair) {
    const std::string attention = layer_name(layer, "self_attn."), mlp = layer_name(layer, "mlp.");
    const int64_t hidden = config.hidden_size, v = config.v_head_dim, nope = config.qk_nope_head_dim;
    switch (pair) {
      case Pair::kInputNorm:
        norm(layer_name(layer, "input_layernorm.weight"), hidden);
        for (const char* part : {"q_proj", "q_a_proj", "kv_a_proj_with_mqa", "indexer.wk", "indexer.weights_proj"})
          foldings_[attention + part].inputs = enlarged(hidden, true);
        break;
      case Pair::kQueryNorm:
        norm(attention + "q_a_layernorm.weight", config.q_lora_rank);
        for (const char* part : {"q_b_proj", "indexer.wq_b"})
          foldings_[attention + part].inputs = enlarged(config.q_lora_rank, true);
        break;
      case Pair::kLatentNorm:
        norm(attention + "kv_a_layernorm.weight", config.kv_lora_rank);
        foldings_[attention + "kv_b_proj"].inputs = enlarged(config.kv_lora_rank, true);
        break;
      case Pair::kValues: {
        const Folding::Numbers factors = enlarged(config.num_heads * v);
        std::vector<float> outputs;
        for (int head = 0; head < config.num_heads; head++) {
          outputs.insert(outputs.end(), static_cast<size_t>(nope), 1.f);
          outputs.insert(outputs.end(), factors->begin() + head * v, factors->begin() + (head + 1) * v);
        }
        foldings_[attention + "kv_b_proj"].outputs = std::make_shared<const std::vector<float>>(std::move(outputs));
        foldings_[attention + "o_proj"].inputs = enlarged(config.num_heads * v, true);
        break;
      }
      case Pair::kPostAttentionNorm:
        norm(layer_name(layer, "post_attention_layernorm.weight"), hidden);
        for (const std::string& part : mlps(config, layer))
          for (const char* linear : {"gate_proj", "up_proj"})
            foldings_[mlp + part + linear].inputs = enlarged(hidden, true);
        foldings_[mlp + "gate"].inputs = enlarged(hidden, true);
        break;
      case Pair::kUp:
        for (const std::string& part : mlps(config, layer)) {
          const int64_t width = part.empty() ? config.intermediate_size
                                : part.starts_with("experts.")
                                    ? config.moe_intermediate_size
                                    : config.num_shared_experts * config.moe_intermediate_size;
          foldings_[mlp + part + "up_proj"].outputs = enlarged(width);
          foldings_[mlp + part + "down_proj"].inputs = enlarged(width, true);
        }
    }
  }

  void norm(const std::string& name, int64_t size) { foldings_[name].outputs = enlarged(size); }
  static std::vector<std::string> mlps(const ModelConfig& config, int layer) {
    if (!config.is_moe_layer(layer)) return {""};
    std::vector<std::string> parts{"shared_experts."};
    for (int expert = 0; expert < config.num_experts; expert++) parts.push_back(fmt::format("experts.{}.", expert));
    return parts;
  }

  Foldings foldings_;
};

// The model, written with what is folded into it and rounded to the target.
void write(const std::string& model, const std::string& folder, const QuantTarget& target,
           std::function<Result<Foldings>(const ModelFiles&)> calibrate) {
  const auto summary = quantize_model(model, folder, {.target = target, .calibrate = std::move(calibrate)});
  ASSERT_TRUE(summary) << summary.error().message;
}

void write_with_pairs(const std::string& model, const std::string& folder, const std::set<Pair>& pairs) {
  write(model, folder, {.format = WeightFormat::kPlain},
        [&](const ModelFiles& files) -> Result<Foldings> { return PairList(files.config(), pairs).take(); });
}

std::vector<float> logits_of(const std::string& folder, const std::vector<TokenId>& tokens) {
  return ModelRun(folder, {.isa = detect_isa()}).logits(tokens).logits;
}

// Other tokens than those of the golden cases.
std::string random_tokens(const TestFolder& folder, int vocab_size, int num_sequences, int num_tokens) {
  std::mt19937 random(5);
  std::string lines;
  for (int sequence = 0; sequence < num_sequences; sequence++) {
    std::vector<int> ids;
    for (int idx = 0; idx < num_tokens; idx++) ids.push_back(static_cast<int>(random() % vocab_size));
    lines += fmt::format("{{\"token_ids\": [{}]}}\n", fmt::join(ids, ","));
  }
  std::string path = folder.path(fmt::format("{}x{}.jsonl", num_sequences, num_tokens));
  EXPECT_TRUE(write_file(path, lines));
  return path;
}

constexpr QuantTarget kTargets[] = {{.format = WeightFormat::kAwq, .group_size = 32},
                                    {.format = WeightFormat::kPackedInt, .group_size = 32},
                                    {.format = WeightFormat::kMxfp4, .group_size = 32}};

class CalibrationOfGoldens : public testing::TestWithParam<std::string> {};

TEST_P(CalibrationOfGoldens, FoldingChangesNoBitOfTheLogits) {
  const TestFolder folder;
  const std::string model = golden_folder(GetParam());
  const std::vector<TokenId> tokens = load_golden_cases(GetParam()).back().tokens;
  const std::vector<float> wanted = logits_of(model, tokens);
  for (const Pair pair : kAllPairs) {
    const std::string written = folder.path(fmt::format("{}", static_cast<int>(pair)));
    write_with_pairs(model, written, {pair});
    EXPECT_TRUE(same_bits(logits_of(written, tokens), wanted)) << "pair " << static_cast<int>(pair);
  }
}

TEST_P(CalibrationOfGoldens, FindsWhatIsFarLargerThanOthers) {
  const TestFolder folder;
  const GoldenCase golden = load_golden_cases(GetParam()).back();
  const std::string model = folder.path("model");
  write_with_pairs(golden_folder(GetParam()), model, {std::begin(kAllPairs), std::end(kAllPairs)});
  const ModelFiles files = ModelFiles::open(model).value();
  const std::string texts = random_tokens(folder, files.config().vocab_size, 4, 128);
  const Result<Calibration> found =
      calibrate(files, {.target = kTargets[0], .texts = texts, .most_tokens = 400, .num_threads = 2});
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(found->num_tokens, 400);
  EXPECT_LT(found->error, 0.6 * found->plain_error);
  for (const char* norm :
       {"input_layernorm.weight", "post_attention_layernorm.weight", "self_attn.kv_a_layernorm.weight"})
    EXPECT_TRUE(found->foldings.contains(layer_name(1, norm))) << norm;
  const auto same = [&](const ModelFiles&) -> Result<Foldings> { return found->foldings; };
  write(model, folder.path("folded"), {.format = WeightFormat::kPlain}, same);
  const GoldenCase wanted{.tokens = golden.tokens, .logits = logits_of(model, golden.tokens)};
  const float largest = std::max(std::ranges::max(wanted.logits), -std::ranges::min(wanted.logits));
  EXPECT_LT(worst_difference(logits_of(folder.path("folded"), golden.tokens), wanted), 1e-5 * largest);

  const auto error = [&](const std::string& written) {
    const std::vector<float> logits = logits_of(written, golden.tokens);
    double sum = 0;
    for (size_t idx = 0; idx < logits.size(); idx++) sum += std::fabs(logits[idx] - golden.logits[idx]);
    return sum / static_cast<double>(logits.size());
  };
  write(model, folder.path("plain"), kTargets[0], {});
  write(model, folder.path("calibrated"), kTargets[0], same);
  const double plain = error(folder.path("plain")), calibrated = error(folder.path("calibrated"));
  EXPECT_LT(calibrated, 0.75 * plain);
  // For docs/models.md.
  fmt::print("{}: outputs off by {:.3f}, calibrated {:.3f}; logits off by {:.2f}, calibrated {:.2f}\n", GetParam(),
             found->plain_error, found->error, plain, calibrated);
}

INSTANTIATE_TEST_SUITE_P(Bf16, CalibrationOfGoldens,
                         testing::Values("r1-bf16", "v2lite-bf16", "glm47flash-bf16", "glm5-bf16", "glm52-bf16"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST(Calibration, FoldsIntoWhatStaysFp8AsBf16) {
  const TestFolder folder;
  write_with_pairs(golden_folder("v32-fp8"), folder.path("m"), {Pair::kQueryNorm});
  const Result<ModelFiles> files = ModelFiles::open(folder.path("m"));
  ASSERT_TRUE(files) << files.error().message;
  const LinearParts parts = find_linear(files->checkpoint(), layer_name(0, "self_attn.indexer.wq_b"));
  ASSERT_TRUE(parts.weight);
  EXPECT_EQ(parts.weight->spec.dtype, DType::kBF16);
  EXPECT_FALSE(parts.scale);
}

// From fp8 to every format, with experts that hardly any token or none has chosen, and MTP layers that are not run.
TEST(Calibration, TakesATextOfAFewTokens) {
  const TestFolder folder;
  for (const char* name : {"k2-fp8", "v32-fp8", "glm47flash-mtp"}) {
    const GoldenCase golden = load_golden_cases(name)[2];
    const std::string texts = random_tokens(folder, 128, 2, 3);
    for (const QuantTarget& target : kTargets) {
      const std::string written = folder.path(fmt::format("{}-{}", name, static_cast<int>(target.format)));
      write(golden_folder(name), written, target, [&](const ModelFiles& files) -> Result<Foldings> {
        ASSIGN_OR_RETURN(Calibration found, calibrate(files, {.target = target, .texts = texts}));
        EXPECT_LE(found.error, found.plain_error);
        return std::move(found.foldings);
      });
      for (const float logit : logits_of(written, golden.tokens)) ASSERT_TRUE(std::isfinite(logit)) << written;
    }
  }
}

TEST(Calibration, DoesNotDependOnTheNumberOfThreads) {
  const TestFolder folder;
  const ModelFiles files = ModelFiles::open(golden_folder("glm47flash-bf16")).value();
  const std::string texts = random_tokens(folder, files.config().vocab_size, 2, 100);
  CalibrateOptions options{.target = kTargets[1], .texts = texts, .num_threads = 1};
  std::vector<uint64_t> progress;
  options.on_progress = [&](uint64_t num_done, uint64_t) { progress.push_back(num_done); };
  const Result<Calibration> one = calibrate(files, options);
  options.num_threads = 3;
  const Result<Calibration> three = calibrate(files, options);
  ASSERT_TRUE(one && three);
  EXPECT_EQ(one->error, three->error);
  EXPECT_EQ(one->foldings.size(), three->foldings.size());
  EXPECT_EQ(progress.size(), 2u * static_cast<size_t>(files.config().num_layers));
}

TEST(Calibration, SaysWhatIsWrongBeforeTheModelRuns) {
  const TestFolder folder;
  const auto message = [&](const std::string& name, std::string_view text) {
    EXPECT_TRUE(write_file(folder.path(name), text));
    const ModelFiles files = ModelFiles::open(golden_folder("r1-bf16")).value();
    const Result<Calibration> found = calibrate(files, {.target = kTargets[0], .texts = folder.path(name)});
    return found ? "no error" : found.error().message;
  };
  EXPECT_THAT(message("t.jsonl", "{\"token_ids\": [1, 320]}"), HasSubstr("t.jsonl:1: `token_ids`: 320 is no token id"));
  EXPECT_THAT(message("t.txt", " \n"), HasSubstr("t.txt: there is no text in it"));
  EXPECT_THAT(message("u.txt", "a word"), HasSubstr("u.txt:1: "));  // the folder has no tokenizer
}

}  // namespace
}  // namespace cachalot::test
