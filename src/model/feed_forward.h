#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "comm/expert_exchange.h"
#include "config/model_config.h"
#include "kernels/ops.h"
#include "model/inputs.h"
#include "model/model_weights.h"
#include "model/workspace.h"

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

// Spans of a MoE layer in a trace: one of the gate, then one of the experts for each pass, with their rows.
inline constexpr std::string_view kGateSpan = "gate", kExpertsSpan = "experts";

// The feed-forward half of a layer: dense, or a mixture of experts with shared ones (DeepSeekMoE, 2024).
class FeedForward {
 public:
  FeedForward(const ModelConfig& config, const ModelSettings& settings, const Ops& ops, const Workspace& workspace,
              const TensorParallel& parallel, ExpertExchange* exchange)
      : config_(config),
        settings_(settings),
        ops_(ops),
        workspace_(workspace),
        parallel_(parallel),
        exchange_(exchange) {}

  void set_exchange(ExpertExchange* exchange) { exchange_ = exchange; }

  // normed: own rows [own, hidden]; the result goes to workspace.delta.
  Status dense(const FeedForwardWeights& weights, const ModelBatch& batch, View<float, 2> normed, int layer);
  // moe_layer counts MoE layers only.
  Status moe(const MoeWeights& weights, const ModelBatch& batch, View<float, 2> normed, int layer, int moe_layer);

 private:
  // The two halves of down(silu(gate(x)) * up(x)); the first gives the product in the form that the second wants.
  LinearInput gate(const FeedForwardWeights& weights, InputRows& input, int64_t num_rows);
  void down(const FeedForwardWeights& weights, const LinearInput& product, View<float, 2> out);
  // The experts of `rows`, which are this rank's own or, without expert parallelism, all of the step from `first_row`
  // on.
  Status experts(const MoeWeights& weights, const ModelBatch& batch, View<float, 2> rows, int64_t first_row,
                 View<float, 2> out, int layer, int moe_layer);
  void route(const MoeWeights& weights, const ModelBatch& batch, View<float, 2> rows, int64_t first_row, int layer,
             int moe_layer);
  LinearInput arrived_input(const ExpertRowFormat& format, const ArrivedRows& arrived) const;

  const ModelConfig& config_;
  const ModelSettings& settings_;
  const Ops& ops_;
  const Workspace& workspace_;
  const TensorParallel& parallel_;
  ExpertExchange* exchange_;  // null: a model without experts
};

}  // namespace cachalot
