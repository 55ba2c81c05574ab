#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "comm/mesh.h"
#include "config/options.h"
#include "device/device.h"
#include "device/thread_pool.h"

namespace cachalot {

// Where a rank stands: in the layout, among the group's processes, and on its node.
struct Placement {
  ParallelOptions parallel;
  Mesh* mesh = nullptr;     // of the group; borrowed
  int num_local_ranks = 1;  // that share this node's memory
  ThreadPoolOptions threads;
  IsaLevel isa = IsaLevel::kReference;  // the group's
  std::vector<int> nodes = {};          // of each rank of the group, numbered; empty: all on one
  // The rank loads before it meets the others, in an epoch that it then enters: the mesh connects it to nobody yet.
  bool loads_alone = false;
  // Of what must be alike on all ranks and nothing else says to who meets them so: a hash, of 53 bits. 0: somebody
  // does.
  int64_t identity = 0;
  std::span<uint64_t> choices = {};  // [layers with experts, experts]: where it counts what rows choose; or empty
  // Told of each step as it begins, and of nothing when a round is over; may be empty.
  std::function<void(std::optional<uint64_t> step)> on_activity;
};

// The highest level that the option allows: what is planned with for machines that are not here.
IsaLevel highest_isa(IsaOption option);

// The instruction level that this machine is to run, as the option says. The error: it has not got it.
Result<IsaLevel> choose_isa(IsaOption option);

// What one rank holds and has done. Plain numbers, so that it can be read across processes (serve/rank_board.h).
struct RankReport {
  int64_t rank = 0, dp_rank = 0, tp_rank = 0, pid = 0;
  int64_t arithmetic = 0;  // a hash of numbers that ranks compute for themselves (engine/memory_plan.h)
  int64_t moe_layers = 0, num_experts = 0;     // layers with experts, and the experts of each
  int64_t expert_slots = 0, experts_held = 0;  // by the rank, in all these layers
  int64_t placement_version = 0, placement_hash = 0;
  // Since its start: how often it went over to another placement, the experts that it brought for that, and how often
  // some rank could not bring its own.
  uint64_t placement_switches = 0, experts_moved = 0, failed_moves = 0;
  // Of rank 0: mean rows of all ranks over the busiest one's, in thousandths, when last looked at; 0: never.
  uint64_t balancedness_permille = 0;
  uint64_t weight_bytes = 0, planned_weight_bytes = 0;

  uint64_t rows_brought = 0;                      // token rows that it entered into MoE layers, summed over layers
  uint64_t rows_sent = 0, rows_received = 0;      // by dispatches, to and from other ranks
  uint64_t expert_rows = 0;                       // that its experts computed: a row for each of its experts here
  std::array<uint64_t, 128> layer_expert_rows{};  // the same by layer; of more layers the last has the rest
  uint64_t sequence_parallel_rows = 0;            // token rows that it owned between two attentions, summed over layers
  uint64_t agreements = 0, steps = 0;
  uint64_t epoch = 0, epoch_changes = 0, nanoseconds_between_epochs = 0;
  uint64_t foreign_messages = 0;     // of another epoch, which were passed over
  uint64_t living_ranks = 0;         // of the group, in this epoch
  uint64_t ranks_lost = 0;           // by the group, since this one is in it
  uint64_t lost_experts_loaded = 0;  // by this rank, because nobody held them any more
  uint64_t steps_without_rows = 0;   // of its replica's: those that it took for the others' sake alone
  // Of steps with what belongs to them (agreement, sampling): computing, moving messages, and waiting for a peer's.
  uint64_t nanoseconds_computing = 0, nanoseconds_exchanging = 0, nanoseconds_waiting = 0;
  double experts_of_layer() const {
    return moe_layers > 0 ? static_cast<double>(experts_held) / static_cast<double>(moe_layers) : 0;
  }
  uint64_t shm_bytes_sent = 0, shm_bytes_received = 0, ucx_bytes_sent = 0, ucx_bytes_received = 0;
};
static_assert(std::is_trivially_copyable_v<RankReport> && sizeof(RankReport) % sizeof(uint64_t) == 0);

}  // namespace cachalot
