#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernels/ops.h"

// The inner loops of operations, one implementation an instruction level (reference/, avx2/, avx512/). The drivers
// above them (cpu/) share out rows, strips and positions among threads.

// For the files of instruction levels: everything is inlined, so that no level's code is shared with another's.
#define CACHALOT_INLINE __attribute__((always_inline))

namespace cachalot {

// body(std::integral_constant<int, 0>) ... body(<N - 1>): indices known to the compiler, so that arrays of vectors live
// in registers (g++ 12 keeps them in memory behind loops). `body` is a lambda marked CACHALOT_INLINE.
template <int N, class Body>
CACHALOT_INLINE inline void unroll(Body&& body) {
  [&]<int... I>(std::integer_sequence<int, I...>)
      CACHALOT_INLINE { (body(std::integral_constant<int, I>{}), ...); }(std::make_integer_sequence<int, N>{});
}

// The exponential of all kernels, for x <= 0, the same bits on every level: 0 below kExpLowest; else n = x * log2(e)
// rounded to the nearest integer, r = x - n * ln(2) in two fma, and the Taylor polynomial of degree 7 in r by fma,
// times 2^n. Within 1 ulp or so.
inline constexpr float kExpLowest = -86.f;  // e^-86 = 4.5e-38: above it no result is subnormal
inline constexpr float kLog2E = 1.44269504f;
inline constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;  // ln(2) = high + low; n * high is exact
inline constexpr float kExpTaylor[8] = {1.f / 5040, 1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, 1.f / 2, 1.f, 1.f};

namespace reference {

inline float exp_nonpositive(float x) {
  if (std::isnan(x)) return x;
  if (x < kExpLowest) return 0;
  const float n = std::nearbyint(x * kLog2E);
  const float r = std::fma(n, -kLn2Low, std::fma(n, -kLn2High, x));
  float p = kExpTaylor[0];
  for (int degree = 1; degree < 8; degree++) p = std::fma(p, r, kExpTaylor[degree]);
  return std::bit_cast<float>(std::bit_cast<uint32_t>(p) + (static_cast<uint32_t>(static_cast<int32_t>(n)) << 23));
}

}  // namespace reference

// ---- rowwise operations: one row, or a few, at a time ---------------------------------------------------------------

// Every level gives the same bits. Sums over a row: element i goes to sum i % kPartialSums (squares by fma), in order;
// then the sums are added by halves: sum i and sum i + kPartialSums / 2, then of those i and i + kPartialSums / 4, ...
inline constexpr int kPartialSums = 64;

struct RowCores {
  float (*sum_of_squares)(const float* x, int64_t count);
  // x += delta; gives the sum of squares of x.
  float (*add_and_square)(float* x, const float* delta, int64_t count);
  // out = x * factor * weight
  void (*scale)(const float* x, float factor, const float* weight, int64_t count, float* out);
  // The rule of QuantizedRows (ops.h): over each `group` of the row, scale = max|x| / 127 and value = x * (127 /
  // max|x|) rounded to nearest, ties to even. A group whose maximum is below kSmallestQuantized is zero, with scale 0.
  void (*quantize)(const float* x, int64_t count, int group, int8_t* values, float* scales);
  // Pairs (2i, 2i+1) by angle i; in place allowed.
  void (*rotate)(const float* x, const float* cos, const float* sin, int64_t num_pairs, float* out);
  // The same of pairs (i, i + num_pairs).
  void (*rotate_halves)(const float* x, const float* cos, const float* sin, int64_t num_pairs, float* out);

  void (*to_bf16)(const float* in, int64_t count, bf16* out);
  void (*from_bf16)(const bf16* in, int64_t count, float* out);
  void (*from_fp16)(const fp16* in, int64_t count, float* out);

  // sum = fma(weights[k], rows[k], sum) for k in order, from what the sum is before or from zero.
  void (*add_weighted_f32)(const float* const* rows, const float* weights, int num_rows, int64_t count, bool accumulate,
                           float* sum);
  void (*add_weighted_bf16)(const bf16* const* rows, const float* weights, int num_rows, int64_t count, bool accumulate,
                            float* sum);

  // By e = exp(-|x|): 1 / (1 + e), and e / (1 + e) for negative x.
  void (*sigmoid)(const float* logits, int64_t count, float* scores);
  // exp(x - largest x) / their sum
  void (*softmax)(const float* logits, int64_t count, float* scores);
  // choice = score + bias (bias may be null), at least kLowestChoice, and that for a NaN.
  void (*choice_scores)(const float* scores, const float* bias, int64_t count, float* choice);
  // The first index of the largest value.
  int (*argmax)(const float* x, int64_t count);
  // The largest value, and the one after it in falling order (-infinity where there is none).
  void (*largest_two)(const float* x, int64_t count, float* first, float* second);
};

// What is masked out is -infinity: less than any choice score, and than the sum of two.
inline constexpr float kLowestChoice = -0x1p126f;

// Below this, 127 / max|x| could overflow.
inline constexpr float kSmallestQuantized = 1e-30f;

// ---- linears --------------------------------------------------------------------------------------------------------

// out[r][o - 16 * strip_begin] = weight[o] . rows[r], weights expanded to fp32, for every format.
//
// The rule of sums, the same on every level and for any number of rows, so that results are equal to the bit: inputs go
// in spans, which are the blocks of the format, or 128 inputs of kF32 and kBF16. In a span, inputs are numbered from
// its start and sums[i % 4] = fma(weight, x, sums[i % 4]) in order, without the scale; then acc = fma((sums[0] +
// sums[2]) + (sums[1] + sums[3]), scale, acc), spans in order. kF32 and kBF16 have scale 1.
struct FloatCoreArgs {
  PackedMatrix matrix;
  int64_t strip_begin = 0, strip_end = 0;
  const float* const* rows = nullptr;  // [num_rows], each in_features floats
  int64_t num_rows = 0;
  float* out = nullptr;    // [num_rows, 16 * (strip_end - strip_begin)], whole strips
  int64_t out_stride = 0;  // floats between rows
};
inline constexpr int kFloatSpan = 128;  // inputs a span of kF32 and kBF16, and the most of any format
using FloatCore = void (*)(const FloatCoreArgs&);

// Integer matrices times int8 rows of their group: out[r][s][o] = acc, where acc = fma(float(sum over the block of
// (q - zero) * a), weight scale * activation scale, acc), blocks in order. The sums are exact, so that every way to
// compute them gives the same bits.
//
// A core reads rows in an order of its own, into which it brings them first ("prepared": each block's inputs of a few
// rows side by side); that is worth about one strip of products.
inline constexpr int64_t kMostIntRows = 192;  // prepared rows stay in the second-level cache, for the usual widths
inline constexpr int64_t kIntTileRows = kMostIntRows + 8;  // room for the padding of a core's last tile of rows
struct IntRows {
  const int8_t* const* values = nullptr;  // [num_rows], each in_features int8
  const float* const* scales = nullptr;   // [num_rows], one a block
  int64_t num_rows = 0;                   // at most kMostIntRows
};
// Where the results of a row go afterwards, strip by strip: a core may fetch these lines for writing meanwhile.
struct ResultTargets {
  const std::byte* strips[2] = {};   // of target row 0; null: nothing to fetch
  int64_t row_bytes = 0;             // from row to row
  const int32_t* row_ids = nullptr;  // [num_rows]: each row's target row; null: the same
};
struct IntCoreArgs {
  MatrixShape shape;
  const std::byte* strips[2] = {};      // two streams of weights; may be the same one
  const std::byte* prepared = nullptr;  // by prepare() for the same shape
  int64_t num_rows = 0;
  ResultTargets targets;
  float* out = nullptr;  // [num_rows][2 strips][16 outputs], with room for kIntTileRows rows; 64-byte aligned
};
struct IntCore {
  size_t (*prepared_bytes)(int64_t in_features, int64_t num_rows);  // for any shape
  void (*prepare)(const MatrixShape& shape, const IntRows& rows, std::byte* prepared);
  void (*multiply)(const IntCoreArgs& args);
};

// What a level brings to the drivers of linears.
struct LinearCores {
  FloatCore float_core;
  const IntCore* int_core;
  // The rule of QuantizedRows, one row.
  void (*quantize)(const float* x, int64_t count, int group, int8_t* values, float* scales);
  // gate = silu(gate) * up on tiles [num_rows][kStrip], rows `stride` floats apart: with e = exp(-|gate|) as above,
  // silu = (gate < 0 ? gate * e : gate) / (1 + e).
  void (*silu_product)(float* gate, const float* up, int64_t stride, int64_t num_rows);
  // A tile rounded to bf16.
  void (*store_bf16)(const float* tile, int64_t stride, int64_t num_rows, bf16* out, int64_t out_stride);
};

// ---- attention ------------------------------------------------------------------------------------------------------

// The drivers hand these tiles of positions, whose keys and values they first pack for all the rows that attend to
// them:
//   keys    panels of two vectors of positions, each [key_dim][2 vectors]
//   values  panels of two vectors of dimensions, each [kAttentionTile positions][2 vectors]

// Rows that attend to one packed tile: rows of one head (expanded), or heads of one row (absorbed).
struct AttentionTile {
  // The query, in one or two pieces that follow one another in the key's dimensions; rows are a stride apart.
  struct Piece {
    const float* data = nullptr;
    int64_t stride = 0, dim = 0;
  };
  Piece query[2];
  int64_t num_rows = 0;
  const float* keys = nullptr;
  const float* values = nullptr;
  int64_t value_dim = 0;
  int64_t num_positions = 0;  // of the tile; row r sees the first min(visible + r * visible_step, num_positions)
  int64_t visible = 0, visible_step = 0;  // rows that see none keep their state
  float softmax_scale = 0;
  float* acc = nullptr;  // [num_rows, value_dim]
  float* max = nullptr;  // [num_rows]
  float* sum = nullptr;  // [num_rows]
  int64_t acc_stride = 0, state_stride = 0;
};

// Where a tile's elements stand in memory. Places past its end repeat the last one, so that all can be read.
using TileRows = const std::byte* [kAttentionTile];

// Places are positions, or those that are chosen.
inline void cached_rows(const CachedContext& context, View<const int32_t, 1> chosen, int64_t first_place, int64_t count,
                        int64_t first_element, TileRows rows) {
  const auto size = static_cast<int64_t>(dtype_size(context.cache.dtype()));
  const auto* data = static_cast<const std::byte*>(context.cache.data()) + first_element * size;
  for (int64_t idx = 0; idx < kAttentionTile; idx++) {
    const int64_t place = first_place + (idx < count ? idx : count - 1);
    const int64_t position = chosen.empty() ? place : chosen(place);
    rows[idx] = data + context.slot(position) * context.cache.stride(0) * size;
  }
}

struct AttentionKernels {
  // rows: the kAttentionTile positions' first elements (those past num_positions: any that can be read), floats or
  // bf16. Dimensions [first_dim, first_dim + dim) of keys of key_dim.
  void (*pack_keys)(const std::byte* const* rows, DType dtype, int64_t num_positions, int64_t first_dim, int64_t dim,
                    int64_t key_dim, float* keys);
  void (*pack_values)(const std::byte* const* rows, DType dtype, int64_t num_positions, int64_t dim, float* values);
  void (*attend)(const AttentionTile& tile);
  // An indexer's scores of the tile's positions, its rows being the heads of one query: score = fma(weights[row],
  // max(query . key, 0), score), rows in order, from 0. `scores` has room for a whole tile.
  void (*score_positions)(const AttentionTile& tile, const float* weights, float* scores);
  // acc[d] = fma(acc[d], factor, later[d] * later_factor)
  void (*merge)(float* acc, float factor, const float* later, float later_factor, int64_t dim);
  void (*divide)(float* acc, float divisor, int64_t dim);
};

// ---- the machine's limits (cpu/limits.h) ----------------------------------------------------------------------------

struct LimitCores {
  // Reads both streams of `bytes` (a multiple of 128) once.
  void (*read)(const std::byte* first, const std::byte* second, size_t bytes);
  // As many operations as stated a round (an addition and a multiplication each count as one), at best speed.
  void (*multiply_int8)(int64_t rounds);
  void (*multiply_floats)(int64_t rounds);
  int64_t int8_operations, float_operations;
};

// ---- a level --------------------------------------------------------------------------------------------------------

struct LevelCores {
  IsaLevel isa;
  const RowCores* rows;
  const LinearCores* linear;
  const AttentionKernels* attention;
  const LimitCores* limits;
};
const LevelCores& level_cores(IsaLevel isa);

// What the drivers need of scratch.
size_t row_scratch_bytes(const OpsLimits& limits, int num_threads);  // of each thread a row of floats
size_t linear_scratch_bytes(const LinearCores& cores, const OpsLimits& limits, int num_threads);
size_t attention_scratch_bytes(const OpsLimits& limits, int num_threads);
size_t indexer_scratch_bytes(const OpsLimits& limits, int num_threads);

namespace reference {
extern const LevelCores kCores;
}
namespace avx2 {
extern const LevelCores kCores;
}
namespace avx512 {
extern const LevelCores kCores;
}

}  // namespace cachalot
