#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "device/thread_pool.h"
#include "kernels/matrix.h"
#include "tensor/view.h"
#include "weights/weight_catalog.h"

// By which factors the inputs of linears are multiplied before these are rounded (AWQ, Lin et al. 2023).
namespace cachalot {

// Rows that some linears read.
struct Activations {
  std::vector<float> magnitude,
      square;  // [features]: the means of |x| and, of a hundredth of their own mean or more, of x^2
  std::vector<const float*> sample;  // a few of the rows, borrowed
};
// `row_ids`: those that count; empty: all.
Activations observe(View<const float, 2> rows, std::span<const int32_t> row_ids, ThreadPool& threads);

// A linear to be rounded.
struct Reader {
  WeightSource source;
  const Activations* seen = nullptr;  // what it reads
  double weight = 1;                  // how much its error counts
};

struct ChosenFactors {
  std::vector<float> factors;  // of inputs; empty: ones
  bool weighs = false;         // rounding should weigh errors by the inputs' mean squares
  // Sums over the readers, each with its weight: the squared error of the outputs that rounding makes, as a share of
  // the outputs' own squares. Plain rounding, and with what was chosen.
  double plain_error = 0, error = 0, weight = 0;
};

// The factors magnitude^alpha, and the alpha, under which some outputs of the readers, on the sample of their rows,
// come out best; never worse there than plain rounding. `magnitude`: of all rows together. The result does not depend
// on the number of threads.
ChosenFactors choose_factors(std::span<const float> magnitude, bool powers_of_two, std::span<const Reader> readers,
                             const QuantTarget& target, ThreadPool& threads);

}  // namespace cachalot
