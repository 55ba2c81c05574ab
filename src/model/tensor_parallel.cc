#include "model/tensor_parallel.h"

#include "base/math.h"

namespace cachalot {

int64_t max_reduced_bytes(const ModelConfig& config, const ModelSettings& settings) {
  if (settings.tp_size == 1) return 0;
  const int64_t own_rows = ceil_div(settings.max_rows, settings.tp_size);
  return own_rows * config.hidden_size * static_cast<int64_t>(dtype_size(settings.compute_dtype));
}

Result<View<float, 2>> TensorParallel::gather(View<float, 2> own, View<float, 2> all,
                                              const CollectiveSite& site) const {
  if (size() == 1) return own;
  const int64_t features = own.extent(1), row_bytes = features * static_cast<int64_t>(dtype_size(compute_dtype_));
  const View<std::byte, 2> sent(workspace_.wire_own.data(), own.extent(0), row_bytes),
      arrived(workspace_.wire_all.data(), all.extent(0), row_bytes);
  ops_.to_compute(own, ComputeView<2>(sent.data(), compute_dtype_, own.extent(0), features));
  RETURN_IF_ERROR(group_.all_gather(sent, partition(all.extent(0)), arrived, site));
  ops_.from_compute(ComputeView<2>(arrived.data(), compute_dtype_, all.extent(0), features), all);
  return all;
}

Status TensorParallel::scatter_sum(View<float, 2> partial, View<float, 2> own, const CollectiveSite& site) const {
  if (size() == 1) {
    CHECK(partial.data() == own.data());
    return {};
  }
  const ComputeView<2> sent(workspace_.wire_all.data(), compute_dtype_, partial.extent(0), partial.extent(1));
  ops_.to_compute(partial, sent);
  return group_.reduce_scatter(sent, partition(partial.extent(0)), own, site);
}

}  // namespace cachalot
