#pragma once

#include "kernels/cores.h"
#include "kernels/ops.h"

namespace cachalot {

// The rowwise operations over a level's inner loops: rows are shared out among threads in chunks that are worth a
// wake-up, so a few rows stay on the caller's thread.
template <const RowCores& kCores>
struct Rowwise {
  // Of each thread a row of floats.
  static size_t scratch_bytes(const OpsLimits& limits, int num_threads);

  static void embed(const OpsContext& context, const EmbedArgs& args);
  static void add_norm(const OpsContext& context, const NormArgs& args);
  static void rotate_queries(const OpsContext& context, View<float, 3> q_rope, View<const int32_t, 1> positions,
                             const RopeTable& rope);
  static void store_latents(const OpsContext& context, const LatentStoreArgs& args);
  static void load_latents(const OpsContext& context, const LoadLatentsArgs& args);
  static void route(const OpsContext& context, const RouteArgs& args);
  static void combine(const OpsContext& context, const CombineArgs& args);
  static void gather_rows(const OpsContext& context, View<const float, 2> in, View<const int32_t, 1> row_ids,
                          View<float, 2> out);
  static void to_compute(const OpsContext& context, View<const float, 2> in, const ComputeView<2>& out);
  static void from_compute(const OpsContext& context, const ComputeView<2>& in, View<float, 2> out);
};

extern template struct Rowwise<avx2::kRowCores>;
extern template struct Rowwise<avx512::kRowCores>;

}  // namespace cachalot
