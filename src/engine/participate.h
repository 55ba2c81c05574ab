#pragma once

#include <functional>
#include <span>

#include "base/error.h"
#include "core/types.h"
#include "engine/rank_engine.h"

namespace cachalot {

// Called behind each round.
using RoundObserver = std::function<void(RankEngine&)>;

// Of a rank that has loaded alone: returns in an epoch in which its replica serves. Until then it takes part as ranks
// of a replica do that lacks some.
Status enter_first_epoch(RankEngine& engine, Epochs& epochs, const RoundObserver& after_round);

// The life of a replica's other ranks: does what the leader announces until it dismisses them, and the rounds of others
// where its replica lacks a rank. epochs: where the next one is heard of; null: the end of the first is the rank's.
Status follow_leader(RankEngine& engine, const RoundObserver& after_round, Epochs* epochs = nullptr);

// The life of a leader without requests of its own: takes every step with zero rows until all replicas leave.
Status take_part_idle(RankEngine& engine, const RoundObserver& after_round);

// One sequence through a group of ranks, for people who compare engines.
struct SequenceLogitsRequest {
  std::span<const TokenId> tokens;
  int generated_from = -1;  // tokens from here on have the role generated and come one a step; -1: none
};

// Of one leader, while the others take part. logits [num_tokens, vocab_size]. Uses the cache's
// first blocks. leave_group() follows.
Status compute_sequence_logits(RankEngine& leader, const SequenceLogitsRequest& request, View<float, 2> logits);

// Of a leader that is through: says so, and returns when all are.
Status leave_group(RankEngine& leader);

}  // namespace cachalot
