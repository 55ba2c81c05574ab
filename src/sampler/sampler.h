#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "core/sampling_params.h"
#include "core/step.h"
#include "core/token_constraint.h"
#include "core/types.h"
#include "tensor/view.h"

namespace cachalot {

struct SamplingInput {
  View<const float, 1> logits;      // [vocab_size], of the last known token
  std::span<const TokenId> tokens;  // all known ones, prompt first
  int num_prompt_tokens = 0;
  const SamplingParams* sampling = nullptr;
  TokenConstraint* constraint = nullptr;  // may be null; accepts the chosen token
};

// Chooses the next token of a sequence from its logits. In vLLM's order: logit_bias, min_tokens, penalties, the
// constraint's mask; then the likeliest token if temperature is 0, else temperature, min_p, top_k, top_p and a draw.
// Equal logits stand in the order of their ids. The draw is keyed by (seed, choice, position) alone, and the arithmetic
// is the same on every machine. Logprobs are those of the model's own logits, before all of that (vLLM's
// "raw_logprobs").
//
// Remembers nothing from call to call but its work space. Used by one thread; threads that share a batch's rows have a
// Sampler each.
class Sampler {
 public:
  explicit Sampler(int vocab_size);
  ~Sampler();

  // An error is this sequence's alone: logits that are no numbers, or no token is allowed.
  Result<SampledToken> sample(const SamplingInput& input);

  // What the logits say of `token`: its logprob and rank, and the num_logprobs likeliest. For the tokens of a prompt.
  Result<SampledToken> describe(View<const float, 1> logits, TokenId token, int num_logprobs);
};

}  // namespace cachalot
