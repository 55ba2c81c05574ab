#pragma once

#include <cstdint>
#include <vector>

#include "config/model_config.h"
#include "kernels/ops.h"
#include "model/inputs.h"
#include "model/model_weights.h"
#include "model/workspace.h"

namespace cachalot {

// The lightning indexer of sparse attention (DeepSeek-V3.2, 2025): small queries of a row, from the query's latent,
// score the small keys of all positions up to its own, and the row attends to the index_topk best of them. Up to
// position index_topk that is all of them, and nothing is scored: there attention is the dense one, bit for bit.
//
// It is whole on every rank of a replica, and all have the same rows, so that all choose alike. What is chosen stays
// for the layers that come next, until one of them chooses anew.
class Indexer {
 public:
  Indexer(const ModelConfig& config, const Ops& ops, const Workspace& workspace, const RopeTable& rope)
      : config_(config), indexer_(*config.indexer), ops_(ops), workspace_(workspace), rope_(rope) {
    rows_.reserve(kIndexerChunk);
  }

  // What project() gives of a row: its key before the norm, then the weights of its heads.
  static int64_t projected_width(const ModelConfig& config, int layer) {
    return config.has_indexer(layer) ? config.indexer->head_dim + config.indexer->num_heads : 0;
  }
  // normed, and the same rows as `input`: [num_rows, hidden].
  void project(const IndexerWeights& weights, InputRows& input, View<const float, 2> normed, View<float, 2> out);
  // Stores the keys of all rows, then chooses for those that see more than index_topk positions. q_a: the normalized
  // latents of the queries [num_rows, q_lora_rank]; projected: by project(); keys: this layer's cache.
  void choose(const IndexerWeights& weights, const ModelBatch& batch, View<const float, 2> q_a,
              View<const float, 2> projected, const ComputeView<2>& keys, int layer);
  // Tells the batch what the layer's rows attend to.
  void report(const ModelBatch& batch, int layer) const;

  // From this position on rows attend to what is chosen.
  int first_choosing() const { return indexer_.topk; }
  // What a row at this position attends to; empty: all up to its own.
  View<const int32_t, 1> chosen(int64_t row, int position) const {
    return position < indexer_.topk ? View<const int32_t, 1>() : workspace_.chosen_positions[row];
  }

 private:
  void choose_rows(const IndexerWeights& weights, View<const float, 2> q_a, View<const float, 2> head_weights,
                   View<const int32_t, 1> positions, int64_t first_row);

  const ModelConfig& config_;
  const IndexerConfig& indexer_;
  const Ops& ops_;
  const Workspace& workspace_;
  RopeTable rope_;
  std::vector<ScoredRow> rows_;  // of the current chunk
};

}  // namespace cachalot
