#pragma once

#include <cstdint>

#include "kernels/row_cores.h"

namespace cachalot::reference {

// The rule of sums of row_cores.h: step(i, sum) gives `sum` with element i added.
template <class Step>
float sum_in_order(int64_t count, Step step) {
  float sums[kPartialSums] = {};
  for (int64_t i = 0; i < count; i++) sums[i % kPartialSums] = step(i, sums[i % kPartialSums]);
  for (int half = kPartialSums / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; i++) sums[i] += sums[i + half];
  }
  return sums[0];
}

}  // namespace cachalot::reference
