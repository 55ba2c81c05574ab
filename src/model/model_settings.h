#pragma once

#include <cstdint>

#include "config/options.h"
#include "kernels/isa.h"
#include "kernels/matrix.h"
#include "tensor/dtype.h"

namespace cachalot {

// How one rank runs the model: numbers, its place in the layout, and the largest step.
struct ModelSettings {
  DType compute_dtype = DType::kBF16;
  IsaLevel isa = IsaLevel::kReference;
  ActivationDTypeOption activation_dtype = ActivationDTypeOption::kAuto;
  int tp_rank = 0, tp_size = 1;
  bool expert_parallel = true;  // else each expert's width is split over the TP ranks
  int ep_rank = 0, ep_size = 1;
  int64_t exchange_max_bytes = 0;  // of each buffer between ranks of the expert exchange; 0: no bound
  int64_t max_rows = 0;            // token rows of a step
  int64_t max_logit_rows = 0;      // rows whose logits are wanted at once
  int64_t max_positions = 0;       // length of a sequence

  bool float32() const { return compute_dtype == DType::kF32; }
  MatrixPolicy matrix_policy() const {
    return {.float32 = float32(), .int8_activations = !float32() && activation_dtype == ActivationDTypeOption::kInt8};
  }
};

}  // namespace cachalot
