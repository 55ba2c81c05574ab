#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/operations.h"

// Attention as plain loops, one row and head at a time; the rule stands in operations.h.
namespace cachalot::reference {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

float dot(float sum, const float* a, const float* b, int64_t count) {
  for (int64_t idx = 0; idx < count; idx++) sum = std::fma(a[idx], b[idx], sum);
  return sum;
}

// Elements [begin, begin + count) of the cache's row of a position, as floats.
void load_cached(const CachedContext& context, int64_t position, int64_t begin, int64_t count, float* out) {
  visit_compute(context.cache.dtype(), [&]<class T>() {
    const T* row = context.cache.as<T>().row(context.slot(position)) + begin;
    for (int64_t idx = 0; idx < count; idx++) out[idx] = static_cast<float>(row[idx]);
  });
}

struct SoftmaxState {
  float* max;
  float* sum;
  float* acc;  // [dim]

  void clear(int64_t dim) const {
    *max = -kInfinity;
    *sum = 0;
    std::fill_n(acc, dim, 0.f);
  }
};

// One tile: the scores of its visible positions, and value(position of the tile, d).
template <class Value>
void add_tile(const SoftmaxState& state, const float* scores, int64_t num_visible, int64_t dim, Value&& value) {
  const float new_max = std::max(*state.max, *std::max_element(scores, scores + num_visible));
  const float decay = exp_nonpositive(*state.max - new_max);
  float p[kAttentionTile] = {}, total[kAttentionTile];
  for (int64_t position = 0; position < num_visible; position++)
    p[position] = exp_nonpositive(scores[position] - new_max);
  std::copy_n(p, kAttentionTile, total);
  for (int half = kAttentionTile / 2; half > 0; half /= 2)
    for (int idx = 0; idx < half; idx++) total[idx] += total[idx + half];
  *state.sum = std::fma(*state.sum, decay, total[0]);
  *state.max = new_max;
  for (int64_t d = 0; d < dim; d++) {
    float sum = 0;
    for (int64_t position = 0; position < num_visible; position++) sum = std::fma(p[position], value(position, d), sum);
    state.acc[d] = std::fma(state.acc[d], decay, sum);
  }
}

void expanded_row_of_head(const ExpandedAttentionArgs& args, int64_t row, int64_t head) {
  const int64_t v_dim = args.out.extent(2), latent_dim = args.context.cache.extent(1) - args.rope_dim;
  const SoftmaxState state{&args.row_max(row, head), &args.row_sum(row, head), &args.out(row, head, 0)};
  if (args.first_chunk) state.clear(v_dim);
  const int64_t num_visible =
      std::min(args.first_row_position + row + 1 - args.first_chunk_position, args.kv.extent(0));
  const float* query = &args.q(row, head, 0);
  std::vector<float> rope_key(static_cast<size_t>(args.rope_dim));
  for (int64_t tile = 0; tile < num_visible; tile += kAttentionTile) {
    const int64_t tile_visible = std::min<int64_t>(kAttentionTile, num_visible - tile);
    float scores[kAttentionTile];
    for (int64_t position = 0; position < tile_visible; position++) {
      load_cached(args.context, args.first_chunk_position + tile + position, latent_dim, args.rope_dim,
                  rope_key.data());
      const float nope = dot(0, query, &args.kv(tile + position, head, 0), args.nope_dim);
      scores[position] = args.softmax_scale * dot(nope, query + args.nope_dim, rope_key.data(), args.rope_dim);
    }
    add_tile(state, scores, tile_visible, v_dim,
             [&](int64_t position, int64_t d) { return args.kv(tile + position, head, args.nope_dim + d); });
  }
  if (args.last_chunk)
    for (int64_t d = 0; d < v_dim; d++) state.acc[d] /= *state.sum;
}

// The positions [begin, end), within one span, of one row and head.
void absorbed_span(const AbsorbedAttentionArgs& args, int64_t row, int64_t head, int64_t begin, int64_t end,
                   const SoftmaxState& state) {
  const int64_t latent_dim = args.q_latent.extent(2), rope_dim = args.q_rope.extent(2),
                cached_dim = latent_dim + rope_dim;
  std::vector<float> cached(static_cast<size_t>(kAttentionTile * cached_dim));
  state.clear(latent_dim);
  for (int64_t tile = begin; tile < end; tile += kAttentionTile) {
    const int64_t tile_visible = std::min<int64_t>(kAttentionTile, end - tile);
    float scores[kAttentionTile];
    for (int64_t position = 0; position < tile_visible; position++) {
      float* key = cached.data() + position * cached_dim;
      load_cached(args.rows[static_cast<size_t>(row)].context, tile + position, 0, cached_dim, key);
      const float latent = dot(0, &args.q_latent(row, head, 0), key, latent_dim);
      scores[position] = args.softmax_scale * dot(latent, &args.q_rope(row, head, 0), key + latent_dim, rope_dim);
    }
    add_tile(state, scores, tile_visible, latent_dim,
             [&](int64_t position, int64_t d) { return cached[static_cast<size_t>(position * cached_dim + d)]; });
  }
}

void merge(const SoftmaxState& state, const SoftmaxState& later, int64_t dim) {
  const float new_max = std::max(*state.max, *later.max);
  const float earlier_factor = exp_nonpositive(*state.max - new_max),
              later_factor = exp_nonpositive(*later.max - new_max);
  *state.max = new_max;
  *state.sum = std::fma(*state.sum, earlier_factor, *later.sum * later_factor);
  for (int64_t d = 0; d < dim; d++) state.acc[d] = std::fma(state.acc[d], earlier_factor, later.acc[d] * later_factor);
}

void absorbed_row_of_head(const AbsorbedAttentionArgs& args, int64_t row, int64_t head) {
  const int64_t latent_dim = args.q_latent.extent(2), num_positions = args.rows[static_cast<size_t>(row)].position + 1;
  std::vector<float> later_acc(static_cast<size_t>(latent_dim));
  float max, sum, later_max, later_sum;
  const SoftmaxState state{&max, &sum, &args.out(row, head, 0)}, later{&later_max, &later_sum, later_acc.data()};
  for (int64_t begin = 0; begin < num_positions; begin += kAttentionSpan) {
    const int64_t end = std::min<int64_t>(begin + kAttentionSpan, num_positions);
    absorbed_span(args, row, head, begin, end, begin == 0 ? state : later);
    if (begin > 0) merge(state, later, latent_dim);
  }
  for (int64_t d = 0; d < latent_dim; d++) state.acc[d] /= sum;
}

template <class Body>
void for_rows_and_heads(const OpsContext& context, int64_t num_rows, int64_t num_heads, Body&& body) {
  context.threads->parallel_for(num_rows * num_heads, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t item = begin; item < end; item++) body(item / num_heads, item % num_heads);
  });
}

void attend_expanded(const OpsContext& context, const ExpandedAttentionArgs& args) {
  for_rows_and_heads(context, args.q.extent(0), args.q.extent(1),
                     [&](int64_t row, int64_t head) { expanded_row_of_head(args, row, head); });
}

void attend_absorbed(const OpsContext& context, const AbsorbedAttentionArgs& args) {
  for_rows_and_heads(context, args.q_latent.extent(0), args.q_latent.extent(1),
                     [&](int64_t row, int64_t head) { absorbed_row_of_head(args, row, head); });
}

}  // namespace

void add_attention(OpsTable& table) {
  table.attend_expanded = attend_expanded;
  table.attend_absorbed = attend_absorbed;
}

}  // namespace cachalot::reference
