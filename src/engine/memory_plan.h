#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "comm/mesh.h"
#include "config/model_config.h"
#include "config/options.h"
#include "device/device.h"
#include "model/deepseek.h"
#include "placement/balance.h"

namespace cachalot {

// What one rank takes of its node's memory beside the KV cache. It follows from options, layout and the weights' shapes
// alone: the engine allocates by it, and a plan needs nothing but a config.json.
struct RankMemory {
  ModelSettings settings;  // max_positions as wanted: a KV cache that holds fewer cuts it
  ModelMemory model;
  size_t logits_bytes = 0;  // that are read at a time
  size_t shared_bytes = 0;  // shared memory that this rank receives through from its node's others

  size_t fixed_bytes() const;
  size_t block_bytes(int block_size) const { return model.cache_bytes_per_token() * static_cast<size_t>(block_size); }
};

// What --survive comes to: empty slots of each layer on each rank, so that the experts of so many ranks that are lost
// at once find place on the others.
struct Survival {
  Survive what = Survive::kNone;
  int num_lost = 0, num_spare = 0;
};

// What a rank computes with.
struct RankResources {
  int num_local_ranks = 1;  // that share the node
  int num_threads = 1;      // of this rank
  IsaLevel isa = IsaLevel::kReference;
  SharedPlacement placement = nullptr;  // of plan_placement(), where that was asked already
};

// For --survive; kAuto: none as yet. ranks_of_node: most of a node. Errors: what cannot be asked for here, and why.
Result<Survival> survival_of(Survive what, const ParallelOptions& parallel, const ModelConfig& config,
                             int ranks_of_node);
// Those that --survive auto chooses among, the most that survives first.
std::vector<Survival> survival_choices(const ParallelOptions& parallel, const ModelConfig& config);

// How experts of this model are balanced over the group's ranks.
BalanceOptions balance_options(const ParallelOptions& parallel, const ModelConfig& config, int num_nodes);

// Where the ranks of a group, on so many nodes, have the model's experts: as a file says, by a recorded load, or
// evenly; and so many spare slots. Null for a model without. Errors name the flag: files that are not of this model and
// layout, and what asks for experts on ranks where they are not.
Result<SharedPlacement> plan_placement(const ParallelOptions& parallel, const ModelConfig& config, int num_nodes,
                                       int num_spare = 0);

// Errors: a layout that the model does not divide into; a length beyond the model's.
Result<RankMemory> plan_rank_memory(const EngineOptions& options, const ParallelOptions& parallel,
                                    const ModelConfig& config, const WeightCatalog& catalog,
                                    const RankResources& resources);

// How a device's memory is shared out, decided before any buffer is allocated.
struct MemoryPlan {
  MemoryInfo node;
  size_t device_bytes = 0;  // this rank's share of the node's memory
  size_t usable_bytes = 0;  // gpu_memory_utilization of it
  RankMemory rank;
  int block_size = 0, num_blocks = 0;
  int num_own_blocks = 0;  // that this rank has memory for; another of its replica may have for fewer
  size_t cache_bytes = 0;
  int max_model_len = 0;
  bool max_model_len_was_cut = false;  // below the config's, because the cache holds no more

  // To what the ranks have agreed on: never more than before.
  void cut_to(int num_blocks, int max_model_len);

  // One line a kind, for the log.
  std::string describe() const;
};

// Of survival_choices(), the first that leaves this rank's KV cache nine tenths of the blocks that it would have
// without
// (`rank`: its memory without).
Survival affordable_survival(const EngineOptions& options, const ParallelOptions& parallel, const ModelConfig& config,
                             const RankMemory& rank, const MemoryInfo& node, int num_local_ranks);
// Of so many of the rank's slots for experts.
size_t bytes_of_slots(const RankMemory& rank, double num_slots);
// For people, of the whole plan: what it is for, and what spare slots and buffers cost this rank.
std::string moving_text(const Survival& survival, const MemoryPlan& plan);

// `num_local_ranks` share the node. The error says by how much the plan does not fit, and what would.
Result<MemoryPlan> plan_memory(const EngineOptions& options, const ModelConfig& config, const RankMemory& rank,
                               const MemoryInfo& node, int num_local_ranks);

// What a rank has worked out for itself, from its own node, flags and files. Travels between ranks as it is; the first
// word is the format's.
struct RankNumbers {
  static constexpr uint64_t kFormat = 0x4352'4e4b'0000'0004;  // "CRNK", version 4

  uint64_t format = kFormat;
  // What it has memory for: the least holds, of a replica's ranks and of all ranks of the group.
  int64_t num_blocks = 0, max_model_len = 0;
  // What messages and roundings follow from: alike on all ranks of the group.
  int64_t block_size = 0, cache_bytes_per_token = 0, num_layers = 0, vocab_size = 0;
  int64_t max_rows = 0, max_num_seqs = 0, max_steps = 0, max_logit_rows = 0;
  int64_t isa_level = 0;
  int64_t expert_inputs = 0;  // a hash of ModelMemory's; where it differs, ranks ask each other for the rest
  int64_t expert_rows_per_peer = 0, expert_pairs_per_peer = 0, expert_row_bytes = 0, reduced_bytes = 0;
  int64_t arithmetic = 0;                             // arithmetic_hash()
  int64_t placement_version = 0, placement_hash = 0;  // of the experts when they are loaded
  int64_t identity = 0;                               // Placement::identity
};
static_assert(std::is_trivially_copyable_v<RankNumbers> && sizeof(RankNumbers) == 21 * sizeof(int64_t));

// Of numbers that ranks compute for themselves and must have alike to the bit, rotary tables and draws, and that no
// file or flag says: a build or a machine that computes others is found at the start. 53 bits, so that JSON holds them.
int64_t arithmetic_hash(const ModelConfig& config);

// What all build on.
struct CommonPlan {
  int64_t num_blocks = 0, max_model_len = 0;
  // "277 KV blocks, the least of the replica's (rank 1 (...)), and max_model_len 17728"
  std::string text;
};

// [rank]: of the group that `parallel` describes. The error, the same on all ranks, names what should be alike, both
// numbers and both ranks.
Result<CommonPlan> find_common_plan(std::span<const RankNumbers> of_ranks, const ParallelOptions& parallel,
                                    std::span<const std::string> rank_names);

// The same by asking: all ranks of the mesh call it, each with its own numbers. Also refuses experts of a layer that
// take rows otherwise on another rank.
Result<CommonPlan> agree_on_plan(Mesh& mesh, const ParallelOptions& parallel, RankNumbers own,
                                 const ModelMemory& memory);
int64_t expert_inputs_hash(const ModelMemory& memory);

// A living rank as an epoch begins.
struct RankStanding {
  int rank = 0;
  std::string name;
  RankNumbers numbers;  // what it has memory for, or, if it stands by that already, what its KV cache has
  bool stands = false;
};
// What this rank builds on where its replica is whole. Ranks that stand by a plan go on by it, and who comes takes it
// over; where none does, all are alike and the least holds. Else the error, the same on all, and who is refused so that
// the others can go on; -1: all.
struct EpochPlan {
  Result<CommonPlan> plan;
  int refused = -1;
};
EpochPlan plan_of_epoch(std::span<const RankStanding> living, const ParallelOptions& own);

// The least of the ranks' numbers: all call it.
Result<int64_t> least_of_all(Mesh& mesh, int64_t own);

}  // namespace cachalot
