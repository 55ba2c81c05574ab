#pragma once

#include <cstdint>

#include "kernels/matrix.h"

// The inner loops of linears, one implementation an instruction level (reference/, avx2/, avx512/). Drivers above them
// share out strips and rows among threads and do what comes after the product.
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

namespace reference {
void float_core(const FloatCoreArgs& args);
}
namespace avx2 {
void float_core(const FloatCoreArgs& args);
}
namespace avx512 {
void float_core(const FloatCoreArgs& args);
}

}  // namespace cachalot
