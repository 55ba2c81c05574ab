#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/matrix.h"

// Activation-aware quantization (AWQ, Lin et al. 2023) multiplies each input of a linear by a factor, and divides what
// the input comes from by it: the model computes the same, and the weights of large activations are rounded more
// finely.
namespace cachalot {

// What is multiplied into a tensor before it is rounded or stored. Lists are shared by linears that read the same rows;
// null: ones.
struct Folding {
  using Numbers = std::shared_ptr<const std::vector<float>>;
  Numbers outputs;     // [outputs]: of rows of a linear, or of the elements of a norm
  Numbers inputs;      // [inputs]
  Numbers importance;  // [inputs]: the mean square of what the linear reads, before anything was folded

  bool changes() const { return outputs || inputs; }
  // Only exponents: any floating type holds the product.
  bool has_powers_of_two() const {
    const auto has = [](const Numbers& numbers) {
      int exponent = 0;
      return !numbers ||
             std::ranges::all_of(*numbers, [&](float factor) { return std::frexp(factor, &exponent) == 0.5f; });
    };
    return has(outputs) && has(inputs);
  }
};
using Foldings = std::unordered_map<std::string, Folding>;  // by ModelTensor::name

// A linear's weight with what is folded into it.
class FoldedWeight {
 public:
  FoldedWeight(const WeightSource& source, const Folding& folding)
      : source_(source), folding_(folding), importance_(static_cast<size_t>(source.in_features), 1.f) {
    if (folding.importance) importance_ = *folding.importance;
    if (!folding.inputs) return;
    for (size_t idx = 0; idx < importance_.size(); idx++) {
      const float factor = (*folding.inputs)[idx];
      importance_[idx] /= factor * factor;
    }
  }

  const WeightSource& source() const { return source_; }
  // [in_features]: how much the squared error of a folded weight counts.
  std::span<const float> importance() const { return importance_; }
  void read_row(int64_t out, float* values) const {
    read_values(source_, out, 0, source_.in_features, values);
    if (folding_.inputs)
      for (size_t idx = 0; idx < importance_.size(); idx++) values[idx] *= (*folding_.inputs)[idx];
    if (folding_.outputs)
      for (size_t idx = 0; idx < importance_.size(); idx++)
        values[idx] *= (*folding_.outputs)[static_cast<size_t>(out)];
  }

 private:
  const WeightSource& source_;
  const Folding& folding_;
  std::vector<float> importance_;
};

}  // namespace cachalot
