#pragma once

#include <algorithm>
#include <cstdint>

#include "comm/expert_exchange.h"
#include "config/model_config.h"
#include "kernels/ops.h"
#include "model/model_settings.h"

namespace cachalot {

// A row of the expert exchange: the compute dtype, or int8 values with one float scale for each group behind them.
struct ExpertRowFormat {
  int64_t hidden = 0;
  int group = 0;  // 0: compute dtype
  DType compute_dtype = DType::kBF16;

  int64_t scales_offset() const { return (hidden + 3) / 4 * 4; }
  int64_t row_bytes() const {
    if (group == 0) return (hidden * static_cast<int64_t>(dtype_size(compute_dtype)) + 3) / 4 * 4;
    return scales_offset() + (hidden + group - 1) / group * static_cast<int64_t>(sizeof(float));
  }
  // Of any format.
  static int64_t max_row_bytes(int64_t hidden, DType compute_dtype) {
    return std::max(ExpertRowFormat{hidden, 0, compute_dtype}.row_bytes(),
                    ExpertRowFormat{hidden, kSmallestGroup, compute_dtype}.row_bytes());
  }

  // Views into rows of this format.
  ComputeView<2> values(View<std::byte, 2> rows) const;
  QuantizedRows quantized(View<std::byte, 2> rows) const;
};

// The sizes of this rank's expert exchange, which also bound the experts' work at a time. For a model with experts.
ExchangeLayout exchange_layout(const ModelConfig& config, const ModelSettings& settings);

}  // namespace cachalot
