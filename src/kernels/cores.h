#pragma once

#include <cstdint>

#include "kernels/matrix.h"

// The inner loops of linears, one implementation an instruction level (reference/, avx2/, avx512/). Drivers above them share
// out strips and rows among threads and do what comes after the product.
namespace cachalot {

// out[r][o - 16 * strip_begin] = sum over inputs, in order, of weight * rows[r][input], by fp32 fma; for every format but kI8
// with full groups also for integer matrices (weights expanded in registers). Any number of rows; the result of a row does
// not depend on the others. kF8: the sum over each 128-block, then acc = fma(block sum, scale, acc). kI4: likewise by its
// block: acc = fma(sum of (q - zero) * x, scale, acc). kF32, kBF16: even and odd inputs are summed apart, then added.
struct FloatCoreArgs {
  PackedMatrix matrix;
  int64_t strip_begin = 0, strip_end = 0;
  const float* const* rows = nullptr;  // [num_rows], each in_features floats
  int64_t num_rows = 0;
  float* out = nullptr;    // [num_rows, 16 * (strip_end - strip_begin)]
  int64_t out_stride = 0;  // floats between rows
};
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
