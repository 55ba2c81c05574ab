#pragma once

#include <cstdint>
#include <vector>

#include "core/request.h"

namespace cachalot {

// A model for tests: the state at a position is a hash of all tokens up to it and of their roles, kept in the slot of a
// cache of blocks; the next token is a hash of the last state. Whatever is computed twice, out of order or from the
// wrong slot changes the answer.
class FakeModel {
 public:
  static constexpr uint64_t kStart = 0x243f6a8885a308d3;
  int vocab_size = 50;
  bool sees_roles = true;

  uint64_t next_state(uint64_t state, TokenId token, bool is_prompt) const {
    return mix(state ^ mix(static_cast<uint64_t>(token) * 2 + (is_prompt || !sees_roles)));
  }
  TokenId next_token(uint64_t state, uint64_t seed = 0) const {
    return static_cast<TokenId>(mix(state + 1 + seed * 0x9e3779b97f4a7c15) % vocab_size);
  }
  static float logprob(uint64_t state, TokenId token) { return -static_cast<float>(mix(state + token) % 1000); }

  // What a request generates when it is alone in the world.
  std::vector<TokenId> answer(std::vector<TokenId> tokens, int num_prompt_tokens,
                              const SamplingParams& sampling) const {
    uint64_t state = kStart;
    const size_t num_known = tokens.size();
    for (size_t position = 0;; position++) {
      state = next_state(state, tokens[position], static_cast<int>(position) < num_prompt_tokens);
      if (position + 1 < tokens.size()) continue;
      tokens.push_back(next_token(state, sampling.seed));
      if (finish_reason(sampling, static_cast<int>(tokens.size()) - num_prompt_tokens, tokens.back()) !=
          FinishReason::kNone)
        break;
    }
    return {tokens.begin() + num_known, tokens.end()};
  }

 private:
  static uint64_t mix(uint64_t value) {
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
    value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
    return value ^ (value >> 31);
  }
};

}  // namespace cachalot
