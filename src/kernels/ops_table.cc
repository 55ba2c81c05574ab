#include <algorithm>

#include "kernels/operations.h"

namespace cachalot {
namespace {

// The drivers shared by the levels, over the inner loops of the context's.
constexpr OpsTable kShared = {
    .embed = embed,
    .add_norm = add_norm,
    .quantize = quantize,
    .linear = linear,
    .gated_linear = gated_linear,
    .per_head_linear = per_head_linear,
    .rotate_queries = rotate_queries,
    .store_latents = store_latents,
    .load_latents = load_latents,
    .attend_expanded = attend_expanded,
    .attend_absorbed = attend_absorbed,
    .route = route,
    .experts = experts,
    .combine = combine,
    .gather_rows = gather_rows,
    .to_compute = to_compute,
    .from_compute = from_compute,
};

constexpr OpsTable reference_table() {
  OpsTable table = kShared;  // linears have a reference level of their inner loops
  table.embed = reference::embed;
  table.add_norm = reference::add_norm;
  table.rotate_queries = reference::rotate_queries;
  table.store_latents = reference::store_latents;
  table.load_latents = reference::load_latents;
  table.attend_expanded = reference::attend_expanded;
  table.attend_absorbed = reference::attend_absorbed;
  table.route = reference::route;
  table.combine = reference::combine;
  table.gather_rows = reference::gather_rows;
  table.to_compute = reference::to_compute;
  table.from_compute = reference::from_compute;
  return table;
}
constexpr OpsTable kReference = reference_table();

constexpr LevelCores kReferenceCores = {
    .isa = IsaLevel::kReference, .linear = &reference::kLinearCores, .limits = &reference::kLimitCores};

}  // namespace

const LevelCores& level_cores(IsaLevel isa) {
  static constexpr const LevelCores* kLevels[] = {&kReferenceCores, &avx2::kCores, &avx512::kCores};
  return *kLevels[static_cast<size_t>(isa)];
}

const OpsTable& ops_table(IsaLevel isa) {
  return isa == IsaLevel::kReference ? kReference : kShared;
}

// The families use the scratch one after another, so it is as large as the largest need.
size_t ops_scratch_bytes(IsaLevel isa, const OpsLimits& limits, int num_threads) {
  const size_t linears = linear_scratch_bytes(*level_cores(isa).linear, limits, num_threads);
  if (isa == IsaLevel::kReference) return std::max(reference::rowwise_scratch_bytes(limits), linears);
  return std::max({rowwise_scratch_bytes(limits, num_threads), linears, attention_scratch_bytes(limits, num_threads)});
}

}  // namespace cachalot
