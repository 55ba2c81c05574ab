#pragma once

#include <cstdint>
#include <type_traits>

namespace cachalot {

// What one rank holds and has done. Plain numbers, so that it can be read across processes (serve/rank_board.h).
struct RankReport {
  int64_t rank = 0, dp_rank = 0, tp_rank = 0, pid = 0;
  int64_t arithmetic = 0;  // a hash of numbers that ranks compute for themselves (engine/common_plan.h)
  int64_t first_expert = 0, num_experts = 0;  // that it holds, of every layer
  uint64_t weight_bytes = 0, planned_weight_bytes = 0;

  uint64_t rows_brought = 0;                  // token rows that it entered into MoE layers, summed over layers
  uint64_t rows_sent = 0, rows_received = 0;  // by dispatches, to and from other ranks
  uint64_t expert_rows = 0;                   // that its experts computed: a row for each of its experts here
  uint64_t sequence_parallel_rows = 0;        // token rows that it owned between two attentions, summed over layers
  uint64_t agreements = 0, steps = 0;
  uint64_t steps_without_rows = 0;  // of its replica's: those that it took for the others' sake alone
  // Of steps with what belongs to them (agreement, sampling): computing, moving messages, and waiting for a peer's.
  uint64_t nanoseconds_computing = 0, nanoseconds_exchanging = 0, nanoseconds_waiting = 0;
  uint64_t shm_bytes_sent = 0, shm_bytes_received = 0, ucx_bytes_sent = 0, ucx_bytes_received = 0;
};
static_assert(std::is_trivially_copyable_v<RankReport> && sizeof(RankReport) % sizeof(uint64_t) == 0);

}  // namespace cachalot
