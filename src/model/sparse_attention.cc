#include "model/sparse_attention.h"

#include <algorithm>
#include <cmath>

namespace cachalot {
namespace {

constexpr float kKeyNormEpsilon = 1e-6f;  // whatever rms_norm_eps is

RopePairs rope_pairs(const IndexerConfig& indexer) {
  return indexer.interleaved_rope ? RopePairs::kNeighbours : RopePairs::kHalves;
}

}  // namespace

void Indexer::project(const IndexerWeights& weights, InputRows& input, View<const float, 2> normed,
                      View<float, 2> out) {
  ops_.linear(input.for_linear(weights.key), weights.key.matrix, out.slice(1, 0, indexer_.head_dim));
  ops_.linear({.values = normed, .quantized = {}}, weights.head_weights,
              out.slice(1, indexer_.head_dim, indexer_.num_heads));
}

void Indexer::choose(const IndexerWeights& weights, const ModelBatch& batch, View<const float, 2> q_a,
                     View<const float, 2> projected, const ComputeView<2>& keys, int layer) {
  const TraceScope span(batch.trace, "indexer", layer);
  const View<const float, 2> head_weights = projected.slice(1, indexer_.head_dim, indexer_.num_heads);
  ops_.store_index_keys({.keys = projected.slice(1, 0, indexer_.head_dim),
                         .norm_weight = weights.key_norm,
                         .norm_bias = weights.key_norm_bias,
                         .epsilon = kKeyNormEpsilon,
                         .rope = rope_,
                         .pairs = rope_pairs(indexer_),
                         .positions = batch.positions,
                         .slots = batch.slots,
                         .cache = keys});
  for (const PromptSegment& segment : batch.prompts) {
    const int64_t end = segment.first_row + segment.num_rows;
    int64_t row = segment.first_row + std::max<int64_t>(indexer_.topk - segment.first_position, 0);
    for (; row < end; row += std::ssize(rows_)) {
      rows_.clear();
      for (int64_t idx = row; idx < std::min(row + kIndexerChunk, end); idx++)
        rows_.push_back({{keys, segment.blocks, batch.block_size}, batch.positions(idx)});
      choose_rows(weights, q_a, head_weights, batch.positions, row);
    }
  }
  const auto num_generated = std::ssize(batch.generated);
  for (int64_t begin = 0; begin < num_generated; begin += std::ssize(rows_)) {
    rows_.clear();
    for (int64_t idx = begin; idx < std::min(begin + kIndexerChunk, num_generated); idx++) {
      const GeneratedRow& row = batch.generated[static_cast<size_t>(idx)];
      rows_.push_back({{keys, row.blocks, batch.block_size}, row.position});
    }
    const bool some_choose =
        std::ranges::any_of(rows_, [&](const ScoredRow& row) { return row.position >= indexer_.topk; });
    if (some_choose) choose_rows(weights, q_a, head_weights, batch.positions, batch.num_prompt_rows() + begin);
  }
  if (batch.forced_positions.empty()) return;
  for (int64_t row = 0; row < batch.num_rows(); row++)
    for (int64_t place = 0; place < indexer_.topk && batch.positions(row) >= indexer_.topk; place++)
      workspace_.chosen_positions(row, place) = batch.forced_positions(layer, row, place);  // host: in tests
}

// For rows_, the batch's rows from first_row on.
void Indexer::choose_rows(const IndexerWeights& weights, View<const float, 2> q_a, View<const float, 2> head_weights,
                          View<const int32_t, 1> positions, int64_t first_row) {
  const int64_t count = std::ssize(rows_), heads = indexer_.num_heads, dim = indexer_.head_dim;
  const View<float, 3> q(workspace_.index_queries.data(), count, heads, dim);
  apply_linear(ops_, workspace_, q_a.rows(first_row, count), weights.query,
               View<float, 2>(q.data(), count, heads * dim));
  ops_.rotate_queries(q.slice(2, 0, config_.qk_rope_head_dim), positions.rows(first_row, count), rope_,
                      rope_pairs(indexer_));
  ops_.choose_positions({.q = q,
                         .head_weights = head_weights.rows(first_row, count),
                         .weight_scale = static_cast<float>(1 / std::sqrt(static_cast<double>(heads * dim))),
                         .rows = rows_,
                         .chosen = workspace_.chosen_positions.rows(first_row, count)});
}

void Indexer::report(const ModelBatch& batch, int layer) const {
  for (int64_t row = 0; row < batch.num_rows(); row++) {
    const View<const int32_t, 1> chosen = this->chosen(row, batch.positions(row));
    const auto seen = [&](int64_t place) { return place <= batch.positions(row) ? static_cast<int32_t>(place) : -1; };
    for (int64_t place = 0; place < indexer_.topk; place++)
      batch.chosen_positions(layer, row, place) = chosen.empty() ? seen(place) : chosen(place);  // host: in tests
  }
}

}  // namespace cachalot
