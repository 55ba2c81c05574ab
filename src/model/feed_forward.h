#pragma once

#include <string_view>

#include "base/error.h"
#include "comm/expert_exchange.h"
#include "config/model_config.h"
#include "kernels/ops.h"
#include "model/batch.h"
#include "model/expert_rows.h"
#include "model/layer_weights.h"
#include "model/linear_input.h"
#include "model/tensor_parallel.h"
#include "model/workspace.h"

namespace cachalot {

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
