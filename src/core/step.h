#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/request.h"
#include "core/types.h"

namespace cachalot {

// What one sequence does in a round. Spans and pointers are borrowed from the scheduler until commit().
struct PlannedSequence {
  RequestId id = 0;
  std::span<const TokenId> tokens;  // all tokens known so far, prompt first
  int first_position = 0;           // tokens [first_position, first_position + num_tokens) go through the model ...
  int num_tokens = 0;               // ... in the round's first step; earlier ones are in the cache
  int num_prompt_tokens = 0;        // tokens before this position have the role prompt
  // Covers first_position + num_tokens + num_steps - 1 slots, or the fewer after which max_tokens ends the sequence.
  std::span<const BlockId> blocks;
  bool sample = false;  // the last of the tokens is the last known one: its logits give the next token
  const SamplingParams* sampling = nullptr;
  TokenConstraint* constraint = nullptr;  // may be null; on leaders alone
};

// One scheduling decision: `num_steps` forward passes. More than one only if every sequence brings one token and
// samples; then each sampled token is fed to the next step on the rank, until the sequence stops. A rank may run fewer
// steps (the agreement of a group), not more.
struct StepPlan {
  uint64_t round = 0;
  int num_steps = 1;
  std::vector<PlannedSequence> sequences;
  int num_tokens() const {
    int count = 0;
    for (const PlannedSequence& sequence : sequences) count += sequence.num_tokens;
    return count;
  }
};

struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0.f;
  int rank = 0;  // 1: the likeliest
};

struct SampledToken {
  TokenId token = 0;
  // With logprobs: the token's own, and the likeliest alternatives in order (as many as were asked for).
  float logprob = 0.f;
  int rank = 0;
  std::vector<TokenLogprob> top;
};

struct SequenceResult {
  RequestId id = 0;
  std::vector<SampledToken> tokens;  // at most num_steps; ends with the stop token if there was one
  FinishReason finish = FinishReason::kNone;
  bool is_deferred = false;  // the mask of its next token is not there yet: it sits out until it is
  // With prompt logprobs: an entry for each prompt token whose predecessor went through the model in this round, in
  // order: tokens [first_position + 1, min(first_position + num_tokens, num_prompt_tokens - 1)].
  std::vector<SampledToken> prompt_logprobs;
  ErrorCode error_code = ErrorCode::kInternal;  // kInvalidArgument: what the request asks for cannot be
  std::string error;                            // finish == kError: this sequence alone failed, the others are fine
};

struct StepResult {
  uint64_t round = 0;
  std::vector<SequenceResult> sequences;  // in the plan's order
};

}  // namespace cachalot
