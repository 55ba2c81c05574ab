#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "core/request.h"
#include "core/step.h"
#include "core/types.h"
#include "sampler/logit_row.h"
#include "tensor/view.h"

namespace cachalot {

// Philox4x32-10: the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011). A
// pure function of counter and key, in integers only, so that every machine draws the same.
constexpr std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; round++) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter[0], product1 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

// The random number in [0, 1), of 53 bits, that decides a choice's token at `position` (its index in the sequence);
// `attempt` counts when one decision takes several.
constexpr double uniform_at(uint64_t seed, uint32_t choice, uint64_t position, uint32_t attempt) {
  const std::array<uint32_t, 4> bits =
      philox4x32({static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), choice, attempt},
                 {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return static_cast<double>((uint64_t{bits[1]} << 32 | bits[0]) >> 11) * 0x1p-53;
}

struct SamplingInput {
  View<const float, 1> logits;      // [vocab_size], of the last known token
  std::span<const TokenId> tokens;  // all known ones, prompt first ...
  std::span<const TokenId> newer;   // ... but for those that this round has sampled: behind them
  int num_prompt_tokens = 0;
  const SamplingParams* sampling = nullptr;
  TokenConstraint* constraint = nullptr;  // may be null

  size_t num_tokens() const { return tokens.size() + newer.size(); }
  int num_generated() const { return static_cast<int>(num_tokens()) - num_prompt_tokens; }
};

// Chooses the next token of a sequence from its logits. In vLLM's order: min_tokens, logit_bias, penalties, bad words,
// allowed tokens and the constraint's mask; then the likeliest token if temperature is 0, else temperature, min_p,
// top_k, top_p and a draw. Equal logits stand in the order of their ids, also at the cuts (exactly top_k remain). The
// draw runs through what remains in the order of ids up to a random number keyed by (seed, choice, position) alone, and
// the arithmetic is the same on every machine. Logprobs are those of the model's own logits, before all of that (vLLM's
// "raw_logprobs").
//
// Remembers nothing from call to call but its work space, and allocates nothing but the alternatives that are asked
// for. Used by one thread; threads that share a batch have one each.
class Sampler {
 public:
  explicit Sampler(int vocab_size);

  // The constraint, if any, accepts the token. An error is this sequence's alone: logits that are no numbers, no token
  // is allowed.
  Result<SampledToken> sample(const SamplingInput& input);

  // What the logits say of a given token, as sample() reports it of its own: for the tokens of a prompt.
  Result<SampledToken> describe(View<const float, 1> logits, TokenId token, int num_logprobs);

 private:
  std::span<const float> checked_row(View<const float, 1> logits) const;
  Status assign(std::span<const float> logits);
  Status adjust(const SamplingInput& input);
  void apply_penalties(const SamplingInput& input);
  void forbid_tokens(const SamplingInput& input);
  void apply_mask();
  Status apply_constraint(TokenConstraint& constraint);
  TokenId draw(const SamplingParams& sampling, uint64_t position);

  int vocab_size_;
  LogitRow row_;
  std::vector<float> adjusted_;           // [vocab_size]
  std::vector<int32_t> num_occurrences_;  // [vocab_size], all zero between calls
  std::vector<TokenId> occurring_;
  std::vector<uint32_t> mask_;  // [ceil(vocab_size / 32)]
};

// Of some draws from fixed logits, and their logprobs, by bits: machines whose streams continue each other have the
// same.
uint64_t hash_of_draws();

}  // namespace cachalot
