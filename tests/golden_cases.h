#pragma once

#include <string>
#include <vector>

#include "core/types.h"

namespace cachalot::test {

// What a golden checkpoint must answer, computed by an independent implementation.
struct GoldenCase {
  std::vector<TokenId> tokens;
  std::vector<float> logits;  // [num_tokens, vocab_size]
  // Of models with an indexer: what rows attend to, [num_layers, num_tokens, index_topk], rising, -1 where fewer.
  std::vector<int32_t> selected = {};
};

// Golden checkpoints, each with 8 heads, and the errors that rounding may make: of bf16, and of int8 activations.
struct GoldenFolder {
  std::string name;
  int num_experts = 32;
  double bf16_median = 0.03, bf16_ninetieth = 0.2;
  double int8_median = 0.08, int8_ninetieth = 0.3;
};
inline const std::vector<GoldenFolder> kGoldenFolders = [] {
  const auto newer = [](const char* name, int num_experts) {
    return GoldenFolder{name, num_experts, 0.04, 0.25, 0.08, 0.35};
  };
  // Weights in fp8 that are requantized to int8 lose a little more.
  const auto requantized = [](GoldenFolder folder) {
    folder.int8_median = 0.12, folder.int8_ninetieth = 0.35;
    return folder;
  };
  return std::vector<GoldenFolder>{
      {.name = "r1-bf16"},          requantized({.name = "r1-fp8"}),     {.name = "r1-awq"},
      {.name = "v2lite-bf16"},      requantized(newer("k2-fp8", 24)),    newer("k2-ct-int4", 24),
      newer("k25-ct-int4", 24),     requantized(newer("k2-ct-fp8", 12)), newer("k2-ct-mxfp4", 16),
      newer("glm47flash-bf16", 16), newer("glm47flash-ct-int4asym", 12), newer("glm47flash-mtp", 8)};
}();

// Of those whose experts can be shared out to so many ranks.
std::vector<std::string> golden_names(int num_ranks);

// Models with an indexer, of 24, 16 and 8 experts.
inline const std::vector<std::string> kSparseGoldenNames{"v32-fp8", "glm5-bf16", "glm52-bf16"};

std::string golden_folder(const std::string& name);
// In the order of their lengths: 1, 2, 7, 64, 65 and 150 tokens. Fails the test if they cannot be read.
std::vector<GoldenCase> load_golden_cases(const std::string& name);
// The largest difference of any logit; infinite if there are not as many, or one is no number.
double worst_difference(const std::vector<float>& logits, const GoldenCase& golden);

}  // namespace cachalot::test
