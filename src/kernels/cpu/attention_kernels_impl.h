#pragma once

#include <cstring>
#include <limits>

#include "kernels/cpu/row_cores_impl.h"

// AttentionKernels written once over a level's vectors: S is its Simd, T its TileSimd (simd.h). Included
// by one file of each level, and of internal linkage: what is compiled here for a level must not be taken for another
// one.
namespace cachalot {
namespace {

template <class S, class T>
struct AttentionLoops {
  using Floats = typename S::Floats;
  static constexpr int kLanes = S::kLanes;
  static constexpr int kPanel = 2 * kLanes;  // two vectors: with kRows rows, all sums in registers
  static constexpr int kRows = T::kAttentionRows;
  static constexpr int kTileVectors = kAttentionTile / kLanes;
  // Queries are copied so many dimensions at a time to a fixed stride, which leaves one address register for all rows;
  // odd in cache lines, so that rows do not share cache sets.
  static constexpr int64_t kQueryDims = 128, kQueryStride = 144;

  // ---- packing ----

  // Four rows' worth of 16 bytes in each lane, transposed: vector j holds dword j of kLanes positions, in order.
  CACHALOT_INLINE static void transpose(const std::byte* const* rows, int64_t byte, Floats* dwords) {
    Floats lanes[4];
    unroll<4>([&](auto i) CACHALOT_INLINE { lanes[i] = T::load_lanes(rows + i, byte); });
    const Floats low01 = T::unpack_low(lanes[0], lanes[1]), high01 = T::unpack_high(lanes[0], lanes[1]);
    const Floats low23 = T::unpack_low(lanes[2], lanes[3]), high23 = T::unpack_high(lanes[2], lanes[3]);
    dwords[0] = T::unpack_low_pairs(low01, low23);
    dwords[1] = T::unpack_high_pairs(low01, low23);
    dwords[2] = T::unpack_low_pairs(high01, high23);
    dwords[3] = T::unpack_high_pairs(high01, high23);
  }

  // 16 bytes of each of kLanes positions become keys [4 or 8 dimensions][kLanes] at a distance of kPanel.
  template <bool kBF16>
  CACHALOT_INLINE static void pack_key_quad(const std::byte* const* rows, int64_t byte, int64_t dims, float* keys) {
    Floats dwords[4];
    transpose(rows, byte, dwords);
    constexpr int kDims = kBF16 ? 8 : 4;
    unroll<kDims>([&](auto dim) CACHALOT_INLINE {
      if (dim >= dims) return;
      const Floats dword = dwords[kBF16 ? dim / 2 : dim + 0];
      const Floats key = !kBF16 ? dword : dim % 2 == 0 ? T::first_bf16(dword) : T::second_bf16(dword);
      S::store(keys + dim * kPanel, typename S::Whole(), key);
    });
  }

  template <bool kBF16>
  static void pack_keys_of(const std::byte* const* rows, int64_t num_positions, int64_t first_dim, int64_t dim,
                           int64_t key_dim, float* keys) {
    constexpr int64_t kDims = kBF16 ? 8 : 4;
    const int64_t whole = dim / kDims * kDims, rest = dim - whole, rest_bytes = rest * 16 / kDims;
    for (int64_t position = 0; position < num_positions; position += kLanes) {
      float* panel = keys + position / kPanel * key_dim * kPanel + first_dim * kPanel + position % kPanel;
      for (int64_t d = 0; d < whole; d += kDims)
        pack_key_quad<kBF16>(rows + position, d * 16 / kDims, kDims, panel + d * kPanel);
      if (rest == 0) continue;
      std::byte ends[kLanes][16] = {};
      const std::byte* end_rows[kLanes];
      for (int lane = 0; lane < kLanes; lane++) {
        std::memcpy(ends[lane], rows[position + lane] + whole * 16 / kDims, static_cast<size_t>(rest_bytes));
        end_rows[lane] = ends[lane];
      }
      pack_key_quad<kBF16>(end_rows, 0, rest, panel + whole * kPanel);
    }
  }

  static void pack_keys(const std::byte* const* rows, DType dtype, int64_t num_positions, int64_t first_dim,
                        int64_t dim, int64_t key_dim, float* keys) {
    (dtype == DType::kBF16 ? pack_keys_of<true> : pack_keys_of<false>)(rows, num_positions, first_dim, dim, key_dim,
                                                                       keys);
  }

  template <class Element>
  static void pack_values_of(const std::byte* const* rows, int64_t num_positions, int64_t dim, float* values) {
    for (int64_t first = 0; first < dim; first += kLanes) {
      float* panel = values + first / kPanel * kAttentionTile * kPanel + first % kPanel;
      for (int64_t position = 0; position < num_positions; position++) {
        const auto* row = reinterpret_cast<const Element*>(rows[position]) + first;
        const Floats value =
            first + kLanes <= dim ? S::load(row, typename S::Whole()) : S::load(row, typename S::Tail(dim - first));
        S::store(panel + position * kPanel, typename S::Whole(), value);
      }
    }
  }

  static void pack_values(const std::byte* const* rows, DType dtype, int64_t num_positions, int64_t dim,
                          float* values) {
    (dtype == DType::kBF16 ? pack_values_of<bf16> : pack_values_of<float>)(rows, num_positions, dim, values);
  }

  // ---- a tile ----

  // What a tile of up to kRows rows works on.
  struct Rows {
    alignas(64) float query[kRows * kQueryStride];  // some dimensions of it
    alignas(64) float p[kRows * kAttentionTile];    // scores, then exponentials
    float decay[kRows];
  };

  // Goes on with the chains of fma of a panel of scores over `dims` dimensions.
  template <int kNumRows>
  CACHALOT_INLINE static void add_scores(Rows& rows, const float* keys, int64_t dims, int64_t position, bool first) {
    Floats sums[kNumRows][2];
    float* scores = rows.p + position;
    unroll<kNumRows * 2>([&](auto i) CACHALOT_INLINE {
      sums[i / 2][i % 2] = first ? S::zero() : T::load(scores + i / 2 * kAttentionTile + i % 2 * kLanes);
    });
    const float* query = rows.query;
    for (int64_t dim = 0; dim < dims; dim++, keys += kPanel, query++) {
      const Floats key0 = T::load(keys), key1 = T::load(keys + kLanes);
      unroll<kNumRows>([&](auto row) CACHALOT_INLINE {
        const Floats x = T::set(query[row * kQueryStride]);
        sums[row][0] = T::fma(x, key0, sums[row][0]);
        sums[row][1] = T::fma(x, key1, sums[row][1]);
      });
    }
    unroll<kNumRows * 2>([&](auto i) CACHALOT_INLINE {
      T::store(scores + i / 2 * kAttentionTile + i % 2 * kLanes, sums[i / 2][i % 2]);
    });
  }

  // Not memcpy, which g++ makes a string instruction of that takes as long to start as a copy here takes.
  CACHALOT_INLINE static void copy(const float* from, int64_t count, float* to) {
    for_each_vector<S>(count,
                       [&](int64_t i, auto part) CACHALOT_INLINE { S::store(to + i, part, S::load(from + i, part)); });
  }

  // Dimensions [begin, begin + dims) of the queries of rows [first_row, first_row + num_rows).
  CACHALOT_INLINE static void copy_queries(const AttentionTile& tile, int64_t first_row, int num_rows, int64_t begin,
                                           int64_t dims, Rows& rows) {
    const int64_t left = tile.query[0].dim - begin;  // of the first piece
    const int64_t first_dims = left < 0 ? 0 : (left < dims ? left : dims);
    for (int row = 0; row < num_rows; row++) {
      float* query = rows.query + row * kQueryStride;
      copy(tile.query[0].data + (first_row + row) * tile.query[0].stride + begin, first_dims, query);
      if (first_dims == dims) continue;  // there may be no second piece
      copy(tile.query[1].data + (first_row + row) * tile.query[1].stride + (begin + first_dims - tile.query[0].dim),
           dims - first_dims, query + first_dims);
    }
  }

  template <int kNumRows>
  CACHALOT_INLINE static void score(const AttentionTile& tile, int64_t first_row, int64_t positions, Rows& rows) {
    const int64_t key_dim = tile.query[0].dim + tile.query[1].dim;
    for (int64_t begin = 0; begin < key_dim; begin += kQueryDims) {
      const int64_t rest = key_dim - begin, dims = rest < kQueryDims ? rest : kQueryDims;
      copy_queries(tile, first_row, kNumRows, begin, dims, rows);
      for (int64_t position = 0; position < positions; position += kPanel)
        add_scores<kNumRows>(rows, tile.keys + (position / kPanel * key_dim + begin) * kPanel, dims, position,
                             begin == 0);
    }
  }

  // Scores of a row, of which `visible` count, to exponentials; the state's maximum, sum and decay.
  CACHALOT_INLINE static float soften(float* scores, int64_t visible, float scale, float& max, float& sum) {
    const Floats masked = S::set(-std::numeric_limits<float>::infinity());
    Floats p[kTileVectors], top = S::set(max);
    unroll<kTileVectors>([&](auto i) CACHALOT_INLINE {
      const int64_t count = visible - i * kLanes;
      p[i] = masked;
      if (count >= kLanes) p[i] = S::load(scores + i * kLanes, typename S::Whole());
      if (count > 0 && count < kLanes) p[i] = S::load_or(scores + i * kLanes, typename S::Tail(count), masked);
      p[i] = p[i] * S::set(scale);
      top = S::max(top, p[i]);
    });
    const float new_max = S::max(top);
    unroll<kTileVectors>([&](auto i) CACHALOT_INLINE {
      p[i] = S::exp_nonpositive(p[i] - S::set(new_max));
      T::store(scores + i * kLanes, p[i]);
    });
    unroll<4>([&](auto level) CACHALOT_INLINE {  // by halves
      constexpr int kHalf = kTileVectors >> (decltype(level)::value + 1);
      unroll<kHalf>([&](auto i) CACHALOT_INLINE { p[i] = p[i] + p[i + kHalf]; });
    });
    const float decay = first_lane(S::exp_nonpositive(S::set(max - new_max)));
    sum = __builtin_fmaf(sum, decay, S::sum(p[0]));
    max = new_max;
    return decay;
  }

  CACHALOT_INLINE static float first_lane(Floats x) { return x[0]; }

  // acc = fma(acc, decay, p . values) for a panel of dimensions, of which `dims` are real.
  template <int kNumRows>
  CACHALOT_INLINE static void add_values(const Rows& rows, const float* values, int64_t positions, float* acc,
                                         int64_t acc_stride, int64_t dims) {
    Floats sums[kNumRows][2];
    unroll<kNumRows * 2>([&](auto i) CACHALOT_INLINE { sums[i / 2][i % 2] = S::zero(); });
    const float* p = rows.p;
    for (int64_t position = 0; position < positions; position++, values += kPanel, p++) {
      const Floats value0 = T::load(values), value1 = T::load(values + kLanes);
      unroll<kNumRows>([&](auto row) CACHALOT_INLINE {
        const Floats x = T::set(p[row * kAttentionTile]);
        sums[row][0] = T::fma(x, value0, sums[row][0]);
        sums[row][1] = T::fma(x, value1, sums[row][1]);
      });
    }
    unroll<kNumRows * 2>([&](auto i) CACHALOT_INLINE {
      float* to = acc + i / 2 * acc_stride + i % 2 * kLanes;
      const int64_t count = dims - i % 2 * kLanes;
      const Floats decay = S::set(rows.decay[i / 2]);
      if (count >= kLanes) {
        T::store(to, S::fma(T::load(to), decay, sums[i / 2][i % 2]));
      } else if (count > 0) {
        const typename S::Tail tail(count);
        S::store(to, tail, S::fma(S::load(to, tail), decay, sums[i / 2][i % 2]));
      }
    });
  }

  // body(std::integral_constant<int, count>, first row) for tiles of rows of equal size as far as can be.
  template <class Body>
  CACHALOT_INLINE static void for_each_tile_of_rows(int64_t num_rows, int64_t row, Body body) {
    while (row < num_rows) {
      const int64_t rest = num_rows - row, tiles = (rest + kRows - 1) / kRows, count = (rest + tiles - 1) / tiles;
      unroll<kRows>([&](auto i) CACHALOT_INLINE {
        if (count == i + 1) body(std::integral_constant<int, i + 1>(), row);
      });
      row += count;
    }
  }

  template <int kNumRows>
  [[gnu::noinline]] static void attend_rows(const AttentionTile& tile, int64_t first_row) {
    const auto visible = [&](int64_t row) CACHALOT_INLINE {
      const int64_t count = tile.visible + (first_row + row) * tile.visible_step;
      return count < tile.num_positions ? count : tile.num_positions;
    };
    Rows rows;
    const int64_t positions = visible(kNumRows - 1);
    score<kNumRows>(tile, first_row, positions, rows);
    for (int row = 0; row < kNumRows; row++) {
      const int64_t state = (first_row + row) * tile.state_stride;
      rows.decay[row] =
          soften(rows.p + row * kAttentionTile, visible(row), tile.softmax_scale, tile.max[state], tile.sum[state]);
    }
    float* acc = tile.acc + first_row * tile.acc_stride;
    for (int64_t dim = 0; dim < tile.value_dim; dim += kPanel)
      add_values<kNumRows>(rows, tile.values + dim * kAttentionTile, positions, acc + dim, tile.acc_stride,
                           tile.value_dim - dim);
  }

  static void attend(const AttentionTile& tile) {
    const int64_t first = tile.visible_step > 0 && tile.visible < 1 ? 1 - tile.visible : 0;  // that sees a position
    for_each_tile_of_rows(tile.num_rows, first,
                          [&](auto count, int64_t row) CACHALOT_INLINE { attend_rows<count>(tile, row); });
  }

  // ---- an indexer's scores ----

  template <int kNumRows>
  [[gnu::noinline]] static void add_head_scores(const AttentionTile& tile, int64_t first_row, const float* weights,
                                                float* scores) {
    Rows rows;
    score<kNumRows>(tile, first_row, tile.num_positions, rows);
    for (int64_t position = 0; position < tile.num_positions; position += kLanes) {
      Floats sum = T::load(scores + position);
      unroll<kNumRows>([&](auto row) CACHALOT_INLINE {
        const Floats dot = T::load(rows.p + row * kAttentionTile + position);
        sum = S::fma(S::set(weights[first_row + row]), S::max(S::zero(), dot), sum);
      });
      T::store(scores + position, sum);
    }
  }

  static void score_positions(const AttentionTile& tile, const float* weights, float* scores) {
    unroll<kTileVectors>([&](auto i) CACHALOT_INLINE { T::store(scores + i * kLanes, S::zero()); });
    for_each_tile_of_rows(tile.num_rows, 0, [&](auto count, int64_t row) CACHALOT_INLINE {
      add_head_scores<count>(tile, row, weights, scores);
    });
  }

  // ---- states ----

  static void merge(float* acc, float factor, const float* later, float later_factor, int64_t dim) {
    for_each_vector<S>(dim, [&](int64_t d, auto part) CACHALOT_INLINE {
      const Floats scaled = S::load(later + d, part) * S::set(later_factor);
      S::store(acc + d, part, S::fma(S::load(acc + d, part), S::set(factor), scaled));
    });
  }

  static void divide(float* acc, float divisor, int64_t dim) {
    for_each_vector<S>(dim, [&](int64_t d, auto part)
                                CACHALOT_INLINE { S::store(acc + d, part, S::load(acc + d, part) / S::set(divisor)); });
  }
};

template <class S, class T>
constexpr AttentionKernels attention_kernels() {
  using Loops = AttentionLoops<S, T>;
  return {.pack_keys = Loops::pack_keys,
          .pack_values = Loops::pack_values,
          .attend = Loops::attend,
          .score_positions = Loops::score_positions,
          .merge = Loops::merge,
          .divide = Loops::divide};
}

}  // namespace
}  // namespace cachalot
