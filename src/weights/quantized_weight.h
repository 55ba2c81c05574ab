#pragma once

#include <cstddef>
#include <vector>

#include "device/thread_pool.h"
#include "kernels/matrix.h"
#include "weights/weight_catalog.h"

namespace cachalot {

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
