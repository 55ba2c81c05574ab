#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
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
  std::vector<TokenId> allowed_token_ids;       // none: all
  std::vector<std::vector<TokenId>> bad_words;  // whose last token never follows the others; none is empty

  // Randomness is keyed by (seed, choice, position), never by batch or time.
  uint64_t seed = 0;
  uint32_t choice = 0;

  int max_tokens = 16;                  // at least 1
  int min_tokens = 0;                   // stop ids are masked until so many tokens were generated
  std::vector<TokenId> stop_token_ids;  // the end-of-sequence ids included, unless they are to be ignored

  int num_logprobs = -1;         // alternatives to report for each generated token; -1: no logprobs at all
  int num_prompt_logprobs = -1;  // the same for the tokens of the prompt
};

// Which tokens may come next (a grammar, a JSON schema). Implemented in text/, made by who makes the request, driven by
// the sampler. Used by one thread at a time.
class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;
  // Clears the bits of the tokens that may not come next. mask: one bit a token, ceil(vocab_size / 32) words, set on
  // entry.
  virtual Status fill_mask(std::span<uint32_t> mask) = 0;
  virtual Status accept(TokenId token) = 0;
  // Back to where it stood when it had accepted so many tokens: what came since then was given up. What cannot be
  // undone, the next fill_mask() says.
  virtual void rollback(int num_tokens) = 0;
  // Whether fill_mask() has its mask, waiting for it until the deadline if it has not.
  virtual bool is_ready_by(std::chrono::steady_clock::time_point) { return true; }
  // From now on `wake` is called, on any thread, when a mask is there that is_ready_by() has said is not; never after
  // the end of the constraint.
  virtual void set_wake(std::function<void()>) {}
};

// One sequence to be continued: one choice of an API request.
struct Request {
  RequestId id = 0;
  // What is known at the start: the prompt, and for a resumed request what it had generated.
  std::vector<TokenId> tokens;
  int num_prompt_tokens = 0;  // the first so many tokens have the role prompt; the rest were generated
  SamplingParams sampling;
  RequestId parent = 0;                         // the same for all choices of one prompt
  int num_choices = 1;                          // of the prompt; sampling.choice says which this is
  int priority = 0;                             // lower is served first (--scheduling-policy priority)
  int64_t arrival_ns = 0;                       // monotonic clock
  uint64_t client = 0;                          // who shares its turns among their requests; 0: nobody in particular
  bool is_alone = false;                        // its client has no other under way
  std::string cache_salt;                       // the prefix cache is shared only among equal salts (tenants)
  std::unique_ptr<TokenConstraint> constraint;  // may be null; has accepted what a resumed request had generated
  bool wants_progress = false;                  // until its first token
};

// Whether a sequence ends with `last`, its num_generated-th generated token. The rank asks at every step, so that an
// ended sequence brings no further rows; the scheduler holds the rank to it. Before min_tokens no stop id is ever
// sampled.
inline FinishReason finish_reason(const SamplingParams& sampling, int num_generated, TokenId last) {
  const auto& stops = sampling.stop_token_ids;
  if (std::ranges::find(stops, last) != stops.end()) return FinishReason::kStop;
  return num_generated >= sampling.max_tokens ? FinishReason::kLength : FinishReason::kNone;
}

}  // namespace cachalot
