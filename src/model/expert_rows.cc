#include "model/expert_rows.h"

#include "base/math.h"

namespace cachalot {

ComputeView<2> ExpertRowFormat::values(View<std::byte, 2> rows) const {
  const auto element_bytes = static_cast<int64_t>(dtype_size(compute_dtype));
  return ComputeView<2>(rows.data(), compute_dtype, {rows.extent(0), hidden}, {row_bytes() / element_bytes, 1});
}

QuantizedRows ExpertRowFormat::quantized(View<std::byte, 2> rows) const {
  const int64_t bytes = row_bytes(), num_rows = rows.extent(0);
  return {.values = View<int8_t, 2>(reinterpret_cast<int8_t*>(rows.data()), {num_rows, hidden}, {bytes, 1}),
          .scales = View<float, 2>(reinterpret_cast<float*>(rows.data() + scales_offset()),
                                   {num_rows, ceil_div(hidden, group)}, {bytes / 4, 1}),
          .group = group};
}

ExchangeLayout exchange_layout(const ModelConfig& config, const ModelSettings& settings) {
  // With expert parallelism a rank brings its own rows, else every row of the step (to itself).
  const int64_t max_rows = settings.expert_parallel ? ceil_div(settings.max_rows, settings.tp_size) : settings.max_rows;
  return ExchangeLayout({.num_ranks = settings.ep_size,
                         .num_experts = config.num_experts,
                         .top_k = config.num_experts_per_token,
                         .hidden_size = config.hidden_size,
                         .compute_dtype = settings.compute_dtype,
                         .row_bytes = ExpertRowFormat::max_row_bytes(config.hidden_size, settings.compute_dtype),
                         .max_rows = max_rows,
                         .max_bytes = settings.exchange_max_bytes});
}

}  // namespace cachalot
