#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "core/types.h"

namespace cachalot {

// How to choose the next token, and when to stop. Names and meanings are those of vLLM's sampling parameters.
struct SamplingParams {
  float temperature = 1.f;                                // 0: greedy
  float top_p = 1.f;                                      // (0, 1]
  int top_k = 0;                                          // 0: all
  float min_p = 0.f;                                      // [0, 1]
  float presence_penalty = 0.f, frequency_penalty = 0.f;  // [-2, 2], over generated tokens
  float repetition_penalty = 1.f;                         // > 0, over prompt and generated tokens
  std::vector<std::pair<TokenId, float>> logit_bias;

  // Randomness is keyed by (seed, choice, position), never by batch or time.
  uint64_t seed = 0;
  uint32_t choice = 0;

  int max_tokens = 16;                  // at least 1
  int min_tokens = 0;                   // stop ids are masked until so many tokens were generated
  std::vector<TokenId> stop_token_ids;  // the end-of-sequence ids included, unless they are to be ignored

  int num_logprobs = -1;         // alternatives to report for each generated token; -1: no logprobs at all
  int num_prompt_logprobs = -1;  // the same for the tokens of the prompt
};

}  // namespace cachalot
