#pragma once

#include <cstdint>

#include "kernels/cores.h"
#include "kernels/ops.h"

namespace cachalot::reference {

// The rule of sums of cores.h: step(i, sum) gives `sum` with element i added.
template <class Step>
float sum_in_order(int64_t count, Step step) {
  float sums[kPartialSums] = {};
  for (int64_t i = 0; i < count; i++) sums[i % kPartialSums] = step(i, sums[i % kPartialSums]);
  for (int half = kPartialSums / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; i++) sums[i] += sums[i + half];
  }
  return sums[0];
}

// The plain definitions of the rowwise operations; the other levels are tested against them.

// One row by the rule of QuantizedRows; every level gives these bits. What is quantized anywhere follows this rule.
void quantize_row(const float* x, int64_t count, int group, int8_t* values, float* scales);

size_t rowwise_scratch_bytes(const OpsLimits& limits);  // a row of floats

void embed(const OpsContext& context, const EmbedArgs& args);
void add_norm(const OpsContext& context, const NormArgs& args);
void rotate_queries(const OpsContext& context, View<float, 3> q_rope, View<const int32_t, 1> positions,
                    const RopeTable& rope);
void store_latents(const OpsContext& context, const LatentStoreArgs& args);
void load_latents(const OpsContext& context, const LoadLatentsArgs& args);
void route(const OpsContext& context, const RouteArgs& args);
void combine(const OpsContext& context, const CombineArgs& args);
void gather_rows(const OpsContext& context, View<const float, 2> in, View<const int32_t, 1> row_ids,
                 View<float, 2> out);
void to_compute(const OpsContext& context, View<const float, 2> in, const ComputeView<2>& out);
void from_compute(const OpsContext& context, const ComputeView<2>& in, View<float, 2> out);

}  // namespace cachalot::reference
