#pragma once

#include <cstdint>
#include <vector>

#include "kernels/weight_source.h"

namespace cachalot {

// Rows of a plain or fp8 weight as floats: the same numbers as dequantize(), by tables instead of arithmetic, since
// whole checkpoints go through here. Thread-safe.
class RowReader {
 public:
  // The source is borrowed; its format must not be kAwq, its window must be the whole.
  explicit RowReader(const WeightSource& source);

  void read(int64_t row, float* values) const;  // in_features of them

 private:
  WeightSource source_;
  std::vector<float> table_;  // value of every bit pattern of F16 or F8_E4M3
};

}  // namespace cachalot
