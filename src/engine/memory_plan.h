#pragma once

#include <cstddef>
#include <string>

#include "base/error.h"
#include "config/model_config.h"
#include "config/options.h"
#include "device/memory_info.h"
#include "model/deepseek.h"

namespace cachalot {

// What one rank takes of its node's memory beside the KV cache. It follows from options, layout and the weights' shapes
// alone: the engine allocates by it, and a plan needs nothing but a config.json.
struct RankMemory {
  ModelSettings settings;  // max_positions as wanted: a KV cache that holds fewer cuts it
  ModelMemory model;
  size_t logits_bytes = 0;  // that are read at a time
  size_t shared_bytes = 0;  // shared memory that this rank receives through from its node's others

  size_t fixed_bytes() const;
  size_t block_bytes(int block_size) const { return model.cache_bytes_per_token * static_cast<size_t>(block_size); }
};

// What a rank computes with.
struct RankResources {
  int num_local_ranks = 1;  // that share the node
  int num_threads = 1;      // of this rank
  IsaLevel isa = IsaLevel::kReference;
};

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

// `num_local_ranks` share the node. The error says by how much the plan does not fit, and what would.
Result<MemoryPlan> plan_memory(const EngineOptions& options, const ModelConfig& config, const RankMemory& rank,
                               const MemoryInfo& node, int num_local_ranks);

}  // namespace cachalot
