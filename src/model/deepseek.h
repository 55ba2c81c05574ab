#pragma once

#include <memory>
#include <vector>

#include "base/error.h"
#include "comm/expert_exchange.h"
#include "comm/group.h"
#include "config/model_config.h"
#include "device/device.h"
#include "kernels/ops.h"
#include "model/feed_forward.h"
#include "model/inputs.h"
#include "model/kv_cache.h"
#include "model/mla.h"
#include "model/model_weights.h"
#include "model/workspace.h"
#include "weights/weight_catalog.h"

namespace cachalot {

// What a model takes of its device, before anything is allocated.
struct ModelMemory {
  size_t weight_bytes = 0, workspace_bytes = 0, scratch_bytes = 0, rope_bytes = 0;
  WeightBytes weights_by_kind{};
  size_t exchange_bytes = 0;   // of the expert exchange
  size_t reduce_bytes = 0;     // of the tensor-parallel group's sums
  CacheBytes cache_bytes{};    // of a token
  int expert_input_group = 0;  // of the rows that travel to experts: int8 with so many values a scale; 0: compute dtype
  // Of every layer's own experts, 0 where it has none; the one above is the first layer's that has.
  std::vector<int32_t> expert_inputs;
  std::vector<int32_t> first_experts;  // of every layer's, that this rank holds; 0 where it has none

  size_t cache_bytes_per_token() const { return sum_of(cache_bytes); }
  size_t comm_bytes() const { return exchange_bytes + reduce_bytes; }
};

// DeepSeek V2, V3 and relatives on one rank: the whole forward pass. Used by one thread, the engine's.
class DeepseekModel {
 public:
  static OpsLimits ops_limits(const ModelConfig& config, const ModelSettings& settings);
  static Result<ModelMemory> plan(const ModelConfig& config, const ModelSettings& settings,
                                  const WeightCatalog& catalog, int num_threads);
  // Borrows everything; `exchange` may be null for a model without experts, and until connect().
  static Result<std::unique_ptr<DeepseekModel>> load(const ModelConfig& config, const ModelSettings& settings,
                                                     const WeightCatalog& catalog, Device& device, Group& tensor_group,
                                                     ExpertExchange* exchange, WeightPacker::Progress progress);

  // With other ranks from the next step on. Borrows both.
  void connect(Group& tensor_group, ExpertExchange* exchange) {
    parallel_.set_group(tensor_group);
    feed_forward_.set_exchange(exchange);
  }

  // One step through all layers. An error comes from a peer; the step is then abandoned.
  Status forward(const ModelBatch& batch, const KvCache& cache);
  // The logits of some rows (at most max_logit_rows) of the last step, as often as wanted. All ranks of the group call
  // it; the first one gets them, [row_ids, vocab_size], the others' `logits` are not looked at.
  Status logits(View<const int32_t, 1> row_ids, View<float, 2> logits);

  const ModelConfig& config() const { return config_; }
  const ModelSettings& settings() const { return settings_; }
  const ModelWeights& weights() const { return weights_; }
  ModelWeights& weights() { return weights_; }  // between two steps an expert may take another's place
  IsaLevel isa() const { return ops_.isa(); }
  size_t weight_bytes() const { return weight_bytes_; }

 private:
  DeepseekModel(const ModelConfig& config, const ModelSettings& settings, Ops ops, Workspace workspace, Rope rope,
                Group& tensor_group, ExpertExchange* exchange);

  ModelConfig config_;
  ModelSettings settings_;
  Ops ops_;
  Workspace workspace_;
  Rope rope_;
  Buffer weight_memory_;
  size_t weight_bytes_ = 0;  // that were packed
  ModelWeights weights_;
  TensorParallel parallel_;
  Attention attention_;
  FeedForward feed_forward_;
  View<float, 2> final_rows_;  // of the last step: all rows after the final norm
  uint64_t step_ = 0;
};

}  // namespace cachalot
