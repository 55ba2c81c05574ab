#pragma once

#include <span>

#include "core/types.h"
#include "engine/rank_engine.h"

namespace cachalot {

// One sequence through a group of ranks, for people who compare engines.
struct SequenceLogitsRequest {
  std::span<const TokenId> tokens;
  int generated_from = -1;  // tokens from here on have the role generated and come one a step; -1: none
};

// Of one leader, while the others take part (engine/participate.h). logits [num_tokens, vocab_size]. Uses the cache's
// first blocks. leave_group() follows.
Status compute_sequence_logits(RankEngine& leader, const SequenceLogitsRequest& request, View<float, 2> logits);

// Of a leader that is through: says so, and returns when all are.
Status leave_group(RankEngine& leader);

}  // namespace cachalot
