#include "model/mla.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/math.h"

namespace cachalot {
namespace {

double yarn_mscale(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * portable::log(factor) + 1;
}

// The (fractional) pair whose wave turns `num_rotations` times over the original context.
double correction_dim(double num_rotations, double dim, double theta, double original_positions) {
  return dim * portable::log(original_positions / (num_rotations * 2 * std::numbers::pi)) / (2 * portable::log(theta));
}

std::vector<double> inverse_frequencies(const ModelConfig& config) {
  const int dim = config.qk_rope_head_dim;
  std::vector<double> frequencies(static_cast<size_t>(dim / 2));
  for (int pair = 0; pair < dim / 2; pair++)
    frequencies[static_cast<size_t>(pair)] = portable::pow(config.rope_theta, -2.0 * pair / dim);
  if (!config.yarn) return frequencies;
  const YarnConfig& yarn = *config.yarn;
  const double low = std::max(
      0.0, std::floor(correction_dim(yarn.beta_fast, dim, config.rope_theta, yarn.original_max_position_embeddings)));
  double high = std::min(dim - 1.0, std::ceil(correction_dim(yarn.beta_slow, dim, config.rope_theta,
                                                             yarn.original_max_position_embeddings)));
  if (low == high) high += 0.001;
  for (int pair = 0; pair < dim / 2; pair++) {
    const double interpolated = std::clamp((pair - low) / (high - low), 0.0, 1.0);
    double& frequency = frequencies[static_cast<size_t>(pair)];
    frequency = frequency / yarn.factor * interpolated + frequency * (1 - interpolated);
  }
  return frequencies;
}

// What a row of the table holds for a pair.
class Angles {
 public:
  explicit Angles(const ModelConfig& config) : frequencies_(inverse_frequencies(config)) {
    if (config.yarn)
      magnitude_ = yarn_mscale(config.yarn->factor, config.yarn->mscale) /
                   yarn_mscale(config.yarn->factor, config.yarn->mscale_all_dim);
  }
  int num_pairs() const { return static_cast<int>(frequencies_.size()); }

  portable::SinCos at(int64_t position, int pair) const {
    // The angle as a float product, like the models were trained with: at far positions its rounding is a visible part.
    const float angle = static_cast<float>(position) * static_cast<float>(frequencies_[static_cast<size_t>(pair)]);
    const auto [sin, cos] = portable::sin_cos(static_cast<double>(angle));
    return {sin * magnitude_, cos * magnitude_};
  }

 private:
  std::vector<double> frequencies_;
  double magnitude_ = 1;
};

}  // namespace

size_t Rope::table_bytes(const ModelConfig& config, int64_t max_positions) {
  return static_cast<size_t>(max_positions) * static_cast<size_t>(config.qk_rope_head_dim) * sizeof(float);
}

Result<Rope> Rope::create(const ModelConfig& config, int64_t max_positions) {
  Rope rope;
  ASSIGN_OR_RETURN(rope.buffer_, Device::allocate(table_bytes(config, max_positions)));
  const Angles angles(config);
  const int num_pairs = angles.num_pairs();
  auto* data = reinterpret_cast<float*>(rope.buffer_.data());
  const View<float, 2> cos(data, max_positions, num_pairs),
      sin(data + max_positions * num_pairs, max_positions, num_pairs);
  for (int64_t position = 0; position < max_positions; position++) {
    for (int pair = 0; pair < num_pairs; pair++) {
      const portable::SinCos values = angles.at(position, pair);
      cos(position, pair) = static_cast<float>(values.cos);  // host: once, at load
      sin(position, pair) = static_cast<float>(values.sin);  // host: as above
    }
  }
  rope.table_ = {cos, sin};
  return rope;
}

uint64_t Rope::hash(const ModelConfig& config, int64_t max_positions) {
  constexpr int64_t kRows = 2048;
  const Angles angles(config);
  portable::BitHash hash;
  hash.add(double{softmax_scale(config)});
  for (int64_t row = 0; row < kRows; row++) {
    for (int pair = 0; pair < angles.num_pairs(); pair++) {
      const portable::SinCos values = angles.at(row * max_positions / kRows, pair);
      hash.add(values.sin);
      hash.add(values.cos);
    }
  }
  return hash.value();
}

float Rope::softmax_scale(const ModelConfig& config) {
  double scale = 1 / std::sqrt(static_cast<double>(config.qk_head_dim()));
  if (config.yarn && config.yarn->mscale_all_dim != 0) {
    const double mscale = yarn_mscale(config.yarn->factor, config.yarn->mscale_all_dim);
    scale *= mscale * mscale;
  }
  return static_cast<float>(scale);
}

namespace {

// [rows, heads, dim] as [rows, heads * dim].
template <class T>
View<T, 2> flat(View<T, 3> view) {
  return View<T, 2>(view.data(), {view.extent(0), view.extent(1) * view.extent(2)}, {view.stride(0), 1});
}

}  // namespace

Status Attention::forward(const AttentionWeights& weights, const ModelBatch& batch, View<float, 2> normed,
                          const KvCache& cache, int layer) {
  const TraceScope span(batch.trace, "attention", layer);
  const int64_t num_rows = batch.num_rows();
  RETURN_IF_ERROR(project(weights, batch, normed, cache, layer));
  if (!batch.chosen_positions.empty()) indexer_->report(batch, layer);
  attend_prompts(weights, batch, cache(CacheKind::kLatents, layer));
  attend_generated(weights, batch, cache(CacheKind::kLatents, layer));

  const View<float, 2> own = workspace_.delta.rows(0, normed.extent(0));
  const View<float, 2> out = parallel_.partial(own, num_rows);
  apply_linear(ops_, workspace_, flat(workspace_.attention.rows(0, num_rows)), weights.o, out);
  return parallel_.scatter_sum(out, own, {.operation = "o_proj reduce-scatter", .step = batch.step, .layer = layer});
}

// Queries of this rank's heads for all rows, rotated, to workspace.q; what is kept of all rows to the cache; the choice
// of an indexer.
Status Attention::project(const AttentionWeights& weights, const ModelBatch& batch, View<float, 2> normed,
                          const KvCache& cache, int layer) {
  const int64_t num_rows = batch.num_rows(), own_rows = normed.extent(0), q_rank = config_.q_lora_rank;
  const View<float, 3> q = workspace_.q.rows(0, num_rows);
  View<float, 2> kv_a;
  if (q_rank > 0) {
    // The low-rank projections on own rows: what is gathered is narrower than the hidden rows.
    const int64_t index_begin = q_rank + config_.kv_cache_dim(), index_width = Indexer::projected_width(config_, layer),
                  width = index_begin + index_width;
    const View<float, 2> own(workspace_.low_rank.data(), own_rows, width);
    const View<float, 2> gathered(workspace_.low_rank_gathered.data(), workspace_.low_rank_gathered.extent(0), width);
    InputRows input(ops_, workspace_, normed);
    ops_.linear(input.for_linear(weights.q_a), weights.q_a.matrix, own.slice(1, 0, q_rank));
    ops_.linear(input.for_linear(weights.kv_a), weights.kv_a.matrix, own.slice(1, q_rank, config_.kv_cache_dim()));
    if (weights.indexer) indexer_->project(*weights.indexer, input, normed, own.slice(1, index_begin, index_width));
    ASSIGN_OR_RETURN(const auto low_rank,
                     parallel_.gather(own, num_rows, gathered,
                                      {.operation = "low-rank all-gather", .step = batch.step, .layer = layer}));
    const View<float, 2> q_a = workspace_.q_a_normed.rows(0, num_rows);
    ops_.add_norm({.residual = low_rank.slice(1, 0, q_rank),
                   .weight = weights.q_a_norm,
                   .epsilon = static_cast<float>(config_.rms_norm_eps),
                   .out = q_a});
    apply_linear(ops_, workspace_, q_a, weights.q_b, flat(q));
    kv_a = low_rank.slice(1, q_rank, config_.kv_cache_dim());
    if (weights.indexer)
      indexer_->choose(*weights.indexer, batch, q_a, low_rank.slice(1, index_begin, index_width),
                       cache(CacheKind::kIndexerKeys, layer), layer);
  } else {
    ASSIGN_OR_RETURN(const auto all,
                     parallel_.gather(normed, num_rows, workspace_.gathered,
                                      {.operation = "attention all-gather", .step = batch.step, .layer = layer}));
    kv_a = workspace_.low_rank.rows(0, num_rows);
    InputRows input(ops_, workspace_, all);
    ops_.linear(input.for_linear(weights.q), weights.q.matrix, flat(q));
    ops_.linear(input.for_linear(weights.kv_a), weights.kv_a.matrix, kv_a);
  }
  ops_.rotate_queries(q.slice(2, config_.qk_nope_head_dim, config_.qk_rope_head_dim), batch.positions, rope_);
  ops_.store_latents({.kv_a = kv_a,
                      .norm_weight = weights.kv_a_norm,
                      .epsilon = static_cast<float>(config_.rms_norm_eps),
                      .rope = rope_,
                      .positions = batch.positions,
                      .slots = batch.slots,
                      .cache = cache(CacheKind::kLatents, layer)});
  return {};
}

void Attention::attend_prompts(const AttentionWeights& weights, const ModelBatch& batch, const ComputeView<2>& cache) {
  for (const PromptSegment& segment : batch.prompts) {
    const CachedContext context{cache, segment.blocks, batch.block_size};
    PromptSegment dense = segment;  // the rows that attend to all positions up to their own
    if (indexer_)
      dense.num_rows = std::clamp<int64_t>(indexer_->first_choosing() - segment.first_position, 0, segment.num_rows);
    if (dense.num_rows > 0) attend_expanded(weights, dense, context);
    for (int64_t idx = dense.num_rows; idx < segment.num_rows; idx++)
      add_absorbed(weights, context, segment.first_row + idx, segment.first_position + static_cast<int>(idx));
    attend_absorbed(weights);
  }
}

void Attention::attend_expanded(const AttentionWeights& weights, const PromptSegment& segment,
                                const CachedContext& context) {
  const int64_t num_heads = workspace_.q.extent(1), head_kv = config_.qk_nope_head_dim + config_.v_head_dim;
  const int64_t num_positions = segment.first_position + segment.num_rows;
  for (int64_t first = 0; first < num_positions; first += kContextChunk) {
    const int64_t count = std::min(kContextChunk, num_positions - first);
    const View<float, 2> latents = workspace_.latents.rows(0, count),
                         keys_values = workspace_.keys_values.rows(0, count);
    const int group = weights.kv_b.input_group;
    const QuantizedRows quantized =
        group ? workspace_.quantized_input.rows(count, config_.kv_lora_rank, group) : QuantizedRows{};
    ops_.load_latents(
        {.context = context, .first_position = static_cast<int>(first), .out = latents, .quantized = quantized});
    ops_.linear({.values = latents, .quantized = quantized}, weights.kv_b.matrix, keys_values);
    ops_.attend_expanded({.q = workspace_.q.rows(segment.first_row, segment.num_rows),
                          .kv = View<const float, 3>(keys_values.data(), count, num_heads, head_kv),
                          .context = context,
                          .nope_dim = config_.qk_nope_head_dim,
                          .rope_dim = config_.qk_rope_head_dim,
                          .first_row_position = segment.first_position,
                          .first_chunk_position = static_cast<int>(first),
                          .softmax_scale = softmax_scale_,
                          .first_chunk = first == 0,
                          .last_chunk = first + count == num_positions,
                          .out = workspace_.attention.rows(segment.first_row, segment.num_rows),
                          .row_max = workspace_.softmax_max.rows(segment.first_row, segment.num_rows),
                          .row_sum = workspace_.softmax_sum.rows(segment.first_row, segment.num_rows)});
  }
}

void Attention::attend_generated(const AttentionWeights& weights, const ModelBatch& batch,
                                 const ComputeView<2>& cache) {
  int64_t batch_row = batch.num_prompt_rows();
  for (const GeneratedRow& row : batch.generated)
    add_absorbed(weights, {cache, row.blocks, batch.block_size}, batch_row++, row.position);
  attend_absorbed(weights);
}

// Rows come one behind another, until attend_absorbed() is called.
void Attention::add_absorbed(const AttentionWeights& weights, const CachedContext& context, int64_t row, int position) {
  if (std::ssize(absorbed_rows_) == kAbsorbedChunk) attend_absorbed(weights);
  if (absorbed_rows_.empty()) first_absorbed_ = row;
  absorbed_rows_.push_back({context, position, indexer_ ? indexer_->chosen(row, position) : View<const int32_t, 1>()});
}

void Attention::attend_absorbed(const AttentionWeights& weights) {
  const int64_t count = std::ssize(absorbed_rows_);
  if (count == 0) return;
  const View<float, 3> q = workspace_.q.rows(first_absorbed_, count), q_latent = workspace_.q_latent.rows(0, count),
                       sum = workspace_.latent_sum.rows(0, count);
  ops_.per_head_linear(q.slice(2, 0, config_.qk_nope_head_dim), weights.query_absorb, q_latent);
  ops_.attend_absorbed({.q_latent = q_latent,
                        .q_rope = q.slice(2, config_.qk_nope_head_dim, config_.qk_rope_head_dim),
                        .rows = absorbed_rows_,
                        .softmax_scale = softmax_scale_,
                        .out = sum});
  ops_.per_head_linear(sum, weights.value_absorb, workspace_.attention.rows(first_absorbed_, count));
  absorbed_rows_.clear();
}

}  // namespace cachalot
