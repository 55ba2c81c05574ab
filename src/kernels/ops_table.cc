#include <algorithm>

#include "kernels/cores.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/per_head_linear.h"
#include "kernels/cpu/rowwise.h"
#include "kernels/reference/rowwise.h"

namespace cachalot {
namespace {

// The families use the scratch one after another, so it is as large as the largest need.
template <const RowCores& kCores, const LinearCores& kLinearCores>
size_t scratch_bytes(const OpsLimits& limits, int num_threads) {
  return std::max(Rowwise<kCores>::scratch_bytes(limits, num_threads),
                  Linears<kLinearCores>::scratch_bytes(limits, num_threads));
}

size_t reference_scratch_bytes(const OpsLimits& limits, int num_threads) {
  return std::max(reference::rowwise_scratch_bytes(limits),
                  Linears<reference::kLinearCores>::scratch_bytes(limits, num_threads));
}

template <FloatCore kCore>
void per_head_linear(const OpsContext& context, View<const float, 3> x, std::span<const PackedMatrix> matrices,
                     View<float, 3> out) {
  per_head_linear(kCore, context, x, matrices, out);
}

constexpr OpsTable kReference = {
    .isa = IsaLevel::kReference,
    .scratch_bytes = reference_scratch_bytes,
    .embed = reference::embed,
    .add_norm = reference::add_norm,
    .quantize = Linears<reference::kLinearCores>::quantize,
    .linear = Linears<reference::kLinearCores>::linear,
    .gated_linear = Linears<reference::kLinearCores>::gated_linear,
    .per_head_linear = per_head_linear<reference::float_core>,
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

template <const RowCores& kCores, IsaLevel kLevel, FloatCore kFloatCore, const LinearCores& kLinearCores>
constexpr OpsTable table_of_level() {
  using Rows = Rowwise<kCores>;
  using Products = Linears<kLinearCores>;
  return {
      .isa = kLevel,
      .scratch_bytes = scratch_bytes<kCores, kLinearCores>,
      .embed = Rows::embed,
      .add_norm = Rows::add_norm,
      .quantize = Products::quantize,
      .linear = Products::linear,
      .gated_linear = Products::gated_linear,
      .per_head_linear = per_head_linear<kFloatCore>,
      .rotate_queries = Rows::rotate_queries,
      .store_latents = Rows::store_latents,
      .load_latents = Rows::load_latents,
      .attend_expanded = reference::attend_expanded,
      .attend_absorbed = reference::attend_absorbed,
      .route = Rows::route,
      .experts = Products::experts,
      .combine = Rows::combine,
      .gather_rows = Rows::gather_rows,
      .to_compute = Rows::to_compute,
      .from_compute = Rows::from_compute,
  };
}

constexpr OpsTable kAvx2 =
    table_of_level<avx2::kRowCores, IsaLevel::kAvx2, avx2::float_core, reference::kLinearCores>();
constexpr OpsTable kAvx512 =
    table_of_level<avx512::kRowCores, IsaLevel::kAvx512, avx512::float_core, avx512::kLinearCores>();

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
