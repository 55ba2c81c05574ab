#pragma once

#include "kernels/cores.h"
#include "kernels/ops.h"

// Linears, gated linears and experts over a level's inner loops. See ops.h for what they compute.
namespace cachalot {

size_t linear_scratch_bytes(const LinearCores& cores, const OpsLimits& limits, int num_threads);
void quantize(const LinearCores& cores, const OpsContext& context, View<const float, 2> rows, const QuantizedRows& out);
void linear(const LinearCores& cores, const OpsContext& context, const LinearInput& input, const PackedMatrix& matrix,
            View<float, 2> out);
void gated_linear(const LinearCores& cores, const OpsContext& context, const LinearInput& input,
                  const PackedMatrix& gate_up, View<float, 2> out, const QuantizedRows& quantized);
void experts(const LinearCores& cores, const OpsContext& context, const ExpertsArgs& args);

// The same, in the shape of the table of operations.
template <const LinearCores& kCores>
struct Linears {
  static size_t scratch_bytes(const OpsLimits& limits, int num_threads) {
    return linear_scratch_bytes(kCores, limits, num_threads);
  }
  static void quantize(const OpsContext& context, View<const float, 2> rows, const QuantizedRows& out) {
    cachalot::quantize(kCores, context, rows, out);
  }
  static void linear(const OpsContext& context, const LinearInput& input, const PackedMatrix& matrix,
                     View<float, 2> out) {
    cachalot::linear(kCores, context, input, matrix, out);
  }
  static void gated_linear(const OpsContext& context, const LinearInput& input, const PackedMatrix& gate_up,
                           View<float, 2> out, const QuantizedRows& quantized) {
    cachalot::gated_linear(kCores, context, input, gate_up, out, quantized);
  }
  static void experts(const OpsContext& context, const ExpertsArgs& args) { cachalot::experts(kCores, context, args); }
};

// out[r][h] = matrices[h] . x[r][h] with the float core of a level; threads share heads and strips. Uses no scratch.
void per_head_linear(FloatCore core, const OpsContext& context, View<const float, 3> x,
                     std::span<const PackedMatrix> matrices, View<float, 3> out);

}  // namespace cachalot
