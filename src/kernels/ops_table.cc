#include <algorithm>

#include "kernels/reference/rowwise.h"

namespace cachalot {
namespace {

size_t scratch_bytes(const OpsLimits& limits, int) {
  return static_cast<size_t>(std::max(limits.max_in_features, limits.max_kv_lora_rank)) * sizeof(float);
}

constexpr OpsTable kReference = {
    .isa = IsaLevel::kReference,
    .scratch_bytes = scratch_bytes,
    .embed = reference::embed,
    .add_norm = reference::add_norm,
    .rotate_queries = reference::rotate_queries,
    .store_latents = reference::store_latents,
    .load_latents = reference::load_latents,
    .route = reference::route,
    .combine = reference::combine,
    .gather_rows = reference::gather_rows,
    .to_compute = reference::to_compute,
    .from_compute = reference::from_compute,
};

}  // namespace

const OpsTable& ops_table(IsaLevel) {
  return kReference;
}

}  // namespace cachalot
