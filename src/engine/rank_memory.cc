#include "engine/rank_memory.h"

#include <algorithm>

#include "comm/shm/segment.h"

namespace cachalot {
namespace {

constexpr int64_t kMaxLogitRows = 256;  // at a time; they bound the memory of prompt logprobs

ModelSettings settings_of(const EngineOptions& options, const ParallelOptions& parallel, const ModelConfig& config) {
  // Without replicas to share them with, a replica's ranks still share whole experts out if that is asked for.
  const bool spread_experts = parallel.enable_expert_parallel || parallel.tensor_parallel_size == 1;
  return {.compute_dtype = options.dtype == DTypeOption::kFloat32 ? DType::kF32 : DType::kBF16,
          .activation_dtype = options.activation_dtype,
          .tp_rank = parallel.tensor_parallel_rank,
          .tp_size = parallel.tensor_parallel_size,
          .expert_parallel = spread_experts,
          .ep_rank = spread_experts ? parallel.group_rank() : 0,
          .ep_size = spread_experts ? parallel.group_size() : 1,
          .exchange_max_bytes = static_cast<int64_t>(parallel.exchange_max_bytes),
          .max_rows = options.max_num_batched_tokens,
          .max_logit_rows = std::min<int64_t>(kMaxLogitRows, std::max(options.max_num_seqs, 16)),
          .max_positions = options.max_model_len > 0 ? options.max_model_len : config.max_position_embeddings};
}

size_t shared_memory_bytes(const ParallelOptions& parallel, int num_local_ranks) {
  const int num_peers = std::min(num_local_ranks, parallel.group_size()) - 1;
  if (num_peers == 0 || parallel.transports == "ucx") return 0;
  return SegmentLayout::of_node(num_peers).size();
}

}  // namespace

size_t RankMemory::fixed_bytes() const {
  return model.weight_bytes + model.workspace_bytes + model.scratch_bytes + model.rope_bytes + model.comm_bytes() +
         logits_bytes + shared_bytes;
}

Result<RankMemory> plan_rank_memory(const EngineOptions& options, const ParallelOptions& parallel,
                                    const ModelConfig& config, const WeightCatalog& catalog,
                                    const RankResources& resources) {
  if (options.max_model_len > config.max_position_embeddings) {
    return make_parameter_error("--max-model-len", "--max-model-len {}: the model has max_position_embeddings {} ({})",
                                options.max_model_len, config.max_position_embeddings, catalog.name());
  }
  RankMemory memory{.settings = settings_of(options, parallel, config)};
  memory.settings.isa = resources.isa;
  ASSIGN_OR_RETURN(memory.model, DeepseekModel::plan(config, memory.settings, catalog, resources.num_threads));
  memory.logits_bytes = static_cast<size_t>(memory.settings.max_logit_rows * config.vocab_size) * sizeof(float);
  memory.shared_bytes = shared_memory_bytes(parallel, resources.num_local_ranks);
  return memory;
}

}  // namespace cachalot
