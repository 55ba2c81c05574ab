#include <algorithm>

#include "kernels/cores.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/rowwise.h"
#include "kernels/reference/rowwise.h"

namespace cachalot {
namespace {

// The families use the scratch one after another, so it is as large as the largest need.
size_t reference_scratch_bytes(const OpsLimits& limits, int num_threads) {
  return std::max(reference::rowwise_scratch_bytes(limits),
                  linear_scratch_bytes(reference::kLinearCores, limits, num_threads));
}

template <const RowCores& kRowCores, const LinearCores& kLinearCores>
size_t scratch_bytes(const OpsLimits& limits, int num_threads) {
  return std::max({Rowwise<kRowCores>::scratch_bytes(limits, num_threads),
                   linear_scratch_bytes(kLinearCores, limits, num_threads),
                   attention_scratch_bytes(limits, num_threads)});
}

template <const LinearCores& kCores>
void per_head_linear(const OpsContext& context, View<const float, 3> x, std::span<const PackedMatrix> matrices,
                     View<float, 3> out) {
  per_head_linear(kCores.float_core, context, x, matrices, out);
}
template <const AttentionKernels& kKernels>
void attend_expanded(const OpsContext& context, const ExpandedAttentionArgs& args) {
  attend_expanded(kKernels, context, args);
}
template <const AttentionKernels& kKernels>
void attend_absorbed(const OpsContext& context, const AbsorbedAttentionArgs& args) {
  attend_absorbed(kKernels, context, args);
}

constexpr OpsTable kReference = {
    .isa = IsaLevel::kReference,
    .scratch_bytes = reference_scratch_bytes,
    .embed = reference::embed,
    .add_norm = reference::add_norm,
    .quantize = Linears<reference::kLinearCores>::quantize,
    .linear = Linears<reference::kLinearCores>::linear,
    .gated_linear = Linears<reference::kLinearCores>::gated_linear,
    .per_head_linear = per_head_linear<reference::kLinearCores>,
    .rotate_queries = reference::rotate_queries,
    .store_latents = reference::store_latents,
    .load_latents = reference::load_latents,
    .attend_expanded = reference::attend_expanded,
    .attend_absorbed = reference::attend_absorbed,
    .route = reference::route,
    .experts = Linears<reference::kLinearCores>::experts,
    .combine = reference::combine,
    .gather_rows = reference::gather_rows,
    .to_compute = reference::to_compute,
    .from_compute = reference::from_compute,
};

// The drivers shared by the levels over the inner loops of one.
template <IsaLevel kLevel, const RowCores& kRowCores, const LinearCores& kLinearCores, const AttentionKernels& kKernels>
constexpr OpsTable table_of_level() {
  return {
      .isa = kLevel,
      .scratch_bytes = scratch_bytes<kRowCores, kLinearCores>,
      .embed = Rowwise<kRowCores>::embed,
      .add_norm = Rowwise<kRowCores>::add_norm,
      .quantize = Linears<kLinearCores>::quantize,
      .linear = Linears<kLinearCores>::linear,
      .gated_linear = Linears<kLinearCores>::gated_linear,
      .per_head_linear = per_head_linear<kLinearCores>,
      .rotate_queries = Rowwise<kRowCores>::rotate_queries,
      .store_latents = Rowwise<kRowCores>::store_latents,
      .load_latents = Rowwise<kRowCores>::load_latents,
      .attend_expanded = attend_expanded<kKernels>,
      .attend_absorbed = attend_absorbed<kKernels>,
      .route = Rowwise<kRowCores>::route,
      .experts = Linears<kLinearCores>::experts,
      .combine = Rowwise<kRowCores>::combine,
      .gather_rows = Rowwise<kRowCores>::gather_rows,
      .to_compute = Rowwise<kRowCores>::to_compute,
      .from_compute = Rowwise<kRowCores>::from_compute,
  };
}

constexpr OpsTable kAvx2 =
    table_of_level<IsaLevel::kAvx2, avx2::kRowCores, avx2::kLinearCores, avx2::kAttentionKernels>();
constexpr OpsTable kAvx512 =
    table_of_level<IsaLevel::kAvx512, avx512::kRowCores, avx512::kLinearCores, avx512::kAttentionKernels>();

}  // namespace

const OpsTable& ops_table(IsaLevel isa) {
  switch (isa) {
    case IsaLevel::kReference:
      return kReference;
    case IsaLevel::kAvx2:
      return kAvx2;
    case IsaLevel::kAvx512:
      return kAvx512;
  }
  check_failed(__FILE__, __LINE__, "isa", "unknown level");
}

}  // namespace cachalot
