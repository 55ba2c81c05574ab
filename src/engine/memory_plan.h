#pragma once

#include <string>

#include "base/error.h"
#include "config/engine_options.h"
#include "config/model_config.h"
#include "device/memory_info.h"
#include "engine/rank_memory.h"

namespace cachalot {

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
