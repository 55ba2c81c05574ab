#pragma once

#include <cstddef>

#include "base/error.h"
#include "config/engine_options.h"
#include "config/model_config.h"
#include "config/parallel_options.h"
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

}  // namespace cachalot
