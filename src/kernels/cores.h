#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/isa.h"
#include "kernels/matrix.h"

// The inner loops of linears, one implementation an instruction level (reference/, avx2/, avx512/). Drivers above them
// (cpu/product.h, cpu/linear.h) share out strips and rows among threads and do what comes after the product.
namespace cachalot {

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

namespace avx2 {
extern const IntCore kIntCore;
}
namespace avx512 {
extern const IntCore kIntCore;
}

// What a level brings to the drivers of linears.
struct LinearCores {
  FloatCore float_core;
  const IntCore* int_core;
  // The rule of QuantizedRows, one row.
  void (*quantize)(const float* x, int64_t count, int group, int8_t* values, float* scales);
  // gate = silu(gate) * up on tiles [num_rows][kStrip], rows `stride` floats apart: with e = exp(-|gate|) as in exp.h,
  // silu = (gate < 0 ? gate * e : gate) / (1 + e).
  void (*silu_product)(float* gate, const float* up, int64_t stride, int64_t num_rows);
  // A tile rounded to bf16.
  void (*store_bf16)(const float* tile, int64_t stride, int64_t num_rows, bf16* out, int64_t out_stride);
};

namespace reference {
extern const LinearCores kLinearCores;
}
namespace avx2 {
extern const LinearCores kLinearCores;
}
namespace avx512 {
extern const LinearCores kLinearCores;
}

}  // namespace cachalot
