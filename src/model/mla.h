#pragma once

#include <optional>
#include <vector>

#include "base/error.h"
#include "config/model_config.h"
#include "device/device.h"
#include "kernels/ops.h"
#include "model/inputs.h"
#include "model/kv_cache.h"
#include "model/model_weights.h"
#include "model/sparse_attention.h"
#include "model/workspace.h"

namespace cachalot {

// Rotary tables with YaRN (Peng et al., 2023) as DeepSeek applies it: frequencies are interpolated between the bands of
// beta_fast and beta_slow, and cos and sin carry mscale(factor, mscale) / mscale(factor, mscale_all_dim).
class Rope {
 public:
  static Result<Rope> create(const ModelConfig& config, int64_t max_positions);
  static size_t table_bytes(const ModelConfig& config, int64_t max_positions);
  // Of some thousand rows of the table and the softmax's scale: ranks that compute together have the same one.
  static uint64_t hash(const ModelConfig& config, int64_t max_positions);

  const RopeTable& table() const { return table_; }
  // 1/sqrt(qk_head_dim), times YaRN's mscale(factor, mscale_all_dim) squared.
  static float softmax_scale(const ModelConfig& config);

 private:
  Buffer buffer_;
  RopeTable table_;
};

// Multi-head latent attention (DeepSeek-V2, 2024) of one layer. A prompt row attends in the expanded form: keys and
// values of the context are rebuilt per head from the cached latents. A generated row attends in the absorbed form:
// kv_b is applied to the query and to the weighted sum of latents instead. The row's role decides, never the moment
// (docs/numerics.md). With an indexer, rows beyond index_topk attend to chosen positions only, each to its own, which
// the absorbed form reads where they are, whatever the row's role.
class Attention {
 public:
  Attention(const ModelConfig& config, const Ops& ops, const Workspace& workspace, const TensorParallel& parallel,
            const RopeTable& rope, float softmax_scale)
      : config_(config),
        ops_(ops),
        workspace_(workspace),
        parallel_(parallel),
        rope_(rope),
        softmax_scale_(softmax_scale) {
    if (config.indexer) indexer_.emplace(config, ops, workspace, rope);
    absorbed_rows_.reserve(kAbsorbedChunk);
  }

  // normed: this rank's own rows [own, hidden], normalized. The result, own rows of the output of o_proj, goes to
  // workspace.delta.
  Status forward(const AttentionWeights& weights, const ModelBatch& batch, View<float, 2> normed, const KvCache& cache,
                 int layer);

 private:
  Status project(const AttentionWeights& weights, const ModelBatch& batch, View<float, 2> normed, const KvCache& cache,
                 int layer);
  void attend_prompts(const AttentionWeights& weights, const ModelBatch& batch, const ComputeView<2>& cache);
  void attend_expanded(const AttentionWeights& weights, const PromptSegment& segment, const CachedContext& context);
  void attend_generated(const AttentionWeights& weights, const ModelBatch& batch, const ComputeView<2>& cache);
  void add_absorbed(const AttentionWeights& weights, const CachedContext& context, int64_t row, int position);
  void attend_absorbed(const AttentionWeights& weights);

  const ModelConfig& config_;
  const Ops& ops_;
  const Workspace& workspace_;
  const TensorParallel& parallel_;
  RopeTable rope_;
  float softmax_scale_;
  std::optional<Indexer> indexer_;
  std::vector<AbsorbedRow> absorbed_rows_;  // not yet computed, at most a chunk
  int64_t first_absorbed_ = 0;              // of them, in the batch
};

}  // namespace cachalot
