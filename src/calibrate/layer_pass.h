#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/error.h"
#include "comm/expert_exchange.h"
#include "comm/group.h"
#include "core/types.h"
#include "device/device.h"
#include "engine/round.h"
#include "kernels/ops.h"
#include "model/feed_forward.h"
#include "model/mla.h"
#include "model/model_weights.h"
#include "model/workspace.h"
#include "weights/model_files.h"

namespace cachalot {

// The forward pass of some sequences, all of their rows in one step and in float32, through a model that may be larger
// than memory: a layer's weights at a time. What the layer's linears read can be seen after each of its halves. Used by
// one thread.
class LayerPass {
 public:
  // Borrows everything. Token ids are below the model's vocab_size.
  static Result<std::unique_ptr<LayerPass>> create(const ModelFiles& files, Device& device,
                                                   const std::vector<std::vector<TokenId>>& sequences);

  // Layers come in order, each attention before its feed-forward half.
  Status attend(int layer);
  Status feed_forward(int layer);

  // All [num_rows, ...], until the next half: what its projections read, or its gate, up and router;
  View<const float, 2> normed() const { return rows_of(workspace_.normed); }
  // the queries' second projection and the indexer's; kv_b; o;
  View<const float, 2> query_latents() const { return rows_of(workspace_.q_a_normed); }
  View<const float, 2> latents() const;
  View<const float, 2> attended() const;
  // `down` of a dense layer, or of the shared experts.
  View<const float, 2> product() const;
  // [num_rows, top_k], of a layer with experts.
  View<const int32_t, 2> expert_ids() const { return workspace_.expert_ids.rows(0, num_rows()); }
  // What `down` of an expert reads of these of normed()'s rows, until the next call.
  View<const float, 2> expert_product(int expert, std::span<const int32_t> row_ids);

 private:
  LayerPass(const ModelFiles& files, Device& device, const ModelSettings& settings, Ops ops, Workspace workspace,
            Rope rope, std::unique_ptr<Mesh> mesh, std::unique_ptr<Group> group,
            std::unique_ptr<ExpertExchange> exchange);
  Status begin(const std::vector<std::vector<TokenId>>& sequences);
  Status load(int layer);
  int64_t num_rows() const { return batch_.num_rows(); }
  View<const float, 2> rows_of(View<float, 2> store) const { return store.rows(0, num_rows()); }

  const ModelFiles& files_;
  const ModelConfig& config_;
  Device& device_;
  ModelSettings settings_;
  Ops ops_;
  Workspace workspace_;
  Rope rope_;
  std::unique_ptr<Mesh> mesh_;
  std::unique_ptr<Group> group_;
  std::unique_ptr<ExpertExchange> exchange_;
  TensorParallel parallel_;
  Attention attention_;
  FeedForward feed_forward_;
  StepBatch layout_;
  std::vector<std::vector<BlockId>> blocks_;  // of each sequence
  ModelBatch batch_;
  Buffer cache_memory_, weight_memory_;
  KvCache cache_;
  LayerWeights weights_;
  View<float, 2> pending_;  // the last half-layer's output, not yet added to the residual
  std::vector<float> latents_, expert_rows_, expert_product_;
};

}  // namespace cachalot
