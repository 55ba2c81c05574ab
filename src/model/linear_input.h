#pragma once

#include "kernels/ops.h"
#include "model/layer_weights.h"
#include "model/workspace.h"

namespace cachalot {

// Rows on their way into one or more linears: quantized when the first of them wants int8, once for all that want the
// same.
class InputRows {
 public:
  InputRows(const Ops& ops, const Workspace& workspace, View<const float, 2> values)
      : ops_(ops), workspace_(workspace), values_(values) {}
  // `quantized` rows were made by an operation before.
  InputRows(const Ops& ops, const Workspace& workspace, View<const float, 2> values, const QuantizedRows& quantized)
      : ops_(ops), workspace_(workspace), values_(values), quantized_(quantized) {}

  LinearInput for_group(int group) {
    if (group == 0) return {.values = values_, .quantized = {}};
    if (quantized_.group != group) {
      quantized_ = workspace_.quantized_input.rows(values_.extent(0), values_.extent(1), group);
      ops_.quantize(values_, quantized_);
    }
    return {.values = values_, .quantized = quantized_};
  }
  LinearInput for_linear(const Linear& linear) { return for_group(linear.input_group); }

 private:
  const Ops& ops_;
  const Workspace& workspace_;
  View<const float, 2> values_;
  QuantizedRows quantized_;
};

// out = linear(rows), quantizing as the linear wants.
inline void apply_linear(const Ops& ops, const Workspace& workspace, View<const float, 2> rows, const Linear& linear,
                         View<float, 2> out) {
  InputRows input(ops, workspace, rows);
  ops.linear(input.for_linear(linear), linear.matrix, out);
}

}  // namespace cachalot
