#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/matrix.h"

// Inside of pack_matrix: strips of one source, written to places that need not be adjacent (gate and up alternate).
namespace cachalot {

struct StripRange {
  int64_t begin = 0, end = 0;  // strips of the source's window
  std::byte* out = nullptr;    // where strip `begin` goes
  size_t out_stride = 0;       // bytes from strip to strip
};

// kAwq to kI4, at the speed of memory.
void pack_awq(const WeightSource& source, const MatrixShape& shape, const StripRange& strips);

}  // namespace cachalot
