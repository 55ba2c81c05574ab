#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "device/thread_pool.h"
#include "kernels/matrix.h"
#include "tensor/dtype.h"
#include "weights/planned_weights.h"

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

// One AWQ group: weight = (nibble - zero) * scale.
struct AwqGroup {
  fp16 scale;
  uint8_t zero = 0;
  double squared_error = 0;
};

// Rounds a group (a multiple of 32 finite weights) to nibbles. The range of 15 steps is that of the weights or a
// narrower one: cutting off a few outliers makes all steps finer; the range with the least squared error wins, and its
// scale is fitted to the nibbles by least squares.
AwqGroup quantize_awq_group(std::span<const float> weights, uint8_t* nibbles);

// fp8 e4m3 as fp8e4m3(value) rounds, for finite values up to 448; fast.
uint8_t encode_e4m3(float value);
// The scale of an fp8 block with this largest magnitude.
float fp8_block_scale(float max_magnitude);

// A weight in its new format: the bytes of its tensors, in the order of quantized_specs().
struct QuantizedWeight {
  std::vector<std::vector<std::byte>> tensors;
  double squared_error = 0, squared_norm = 0;  // of the weights: sum (new - old)^2, sum old^2
  bool finite = true;                          // the weight held no NaN and no infinity; else the bytes mean nothing
};

// Quantizes a whole plain or fp8 weight that fits the target (fits_quantization), on all threads. The result does not
// depend on their number.
QuantizedWeight quantize_weight(const WeightSource& source, const QuantTarget& target, ThreadPool& threads);

}  // namespace cachalot
