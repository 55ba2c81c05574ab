#pragma once

#include "base/error.h"
#include "engine/rank_engine.h"

namespace cachalot {

// Called behind each round.
using RoundObserver = std::function<void(RankEngine&)>;

// The life of a replica's other ranks: does what the leader announces until it dismisses them.
Status follow_leader(RankEngine& engine, const RoundObserver& after_round);

// The life of a leader without requests of its own: takes every step with zero rows until all replicas leave.
Status take_part_idle(RankEngine& engine, const RoundObserver& after_round);

}  // namespace cachalot
