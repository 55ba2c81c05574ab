#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "device/thread_pool.h"
#include "kernels/matrix.h"
#include "tensor/dtype.h"
#include "weights/folding.h"
#include "weights/weight_catalog.h"

namespace cachalot {

// A weight in its new format: the bytes of its tensors, in the order of quantized_specs().
struct QuantizedWeight {
  std::vector<std::vector<std::byte>> tensors;
  // Of the weights, each weighed by its importance: sum (new - old)^2, sum old^2.
  double squared_error = 0, squared_norm = 0;
  bool finite = true;  // the weight held no NaN and no infinity; else the bytes mean nothing
};

// Quantizes a whole plain or fp8 weight that fits the target (fits_quantization), on all threads. The result does not
// depend on their number.
QuantizedWeight quantize_weight(const WeightSource& source, const Folding& folding, const QuantTarget& target,
                                ThreadPool& threads);

// Numbers as kF32, kBF16 or kF16.
std::vector<std::byte> from_floats(std::span<const float> values, DType dtype);

}  // namespace cachalot
