#pragma once

#include <string>
#include <vector>

#include "core/types.h"

namespace cachalot::test {

// What a golden checkpoint must answer, computed by an independent implementation.
struct GoldenCase {
  std::vector<TokenId> tokens;
  std::vector<float> logits;  // [num_tokens, vocab_size]
};

inline const std::vector<std::string> kGoldenNames{"r1-bf16", "r1-fp8", "r1-awq", "v2lite-bf16"};

std::string golden_folder(const std::string& name);
// In the order of their lengths: 1, 2, 7, 64, 65 and 150 tokens. Fails the test if they cannot be read.
std::vector<GoldenCase> load_golden_cases(const std::string& name);
// The largest difference of any logit; infinite if there are not as many, or one is no number.
double worst_difference(const std::vector<float>& logits, const GoldenCase& golden);

}  // namespace cachalot::test
