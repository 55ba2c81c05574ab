#include "bench/step_cost.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace cachalot {
namespace {

Operation linear_operation(const StoredLinear& linear, double num_rows) {
  return {linear.num_bytes, 2 * linear.num_weights * num_rows, linear.arithmetic};
}

// Scores and weighted sums over the positions that each row sees, and the latents that they are made from.
Operation attention_operation(const ModelConfig& config, const StepShape& shape) {
  const auto rows = static_cast<double>(shape.num_rows), first = static_cast<double>(shape.first_position);
  const double latent_bytes = static_cast<double>(config.kv_cache_dim() * shape.cache_element_bytes);
  const double heads = config.num_heads;
  if (shape.generated) {
    const double num_seen = rows * (first + 1);
    return {num_seen * latent_bytes, 2 * num_seen * heads * (config.kv_cache_dim() + config.kv_lora_rank),
            Arithmetic::kFloat};
  }
  const double num_seen = rows * first + rows * (rows + 1) / 2;
  return {(first + rows) * latent_bytes, 2 * num_seen * heads * (config.qk_head_dim() + config.v_head_dim),
          Arithmetic::kFloat};
}

}  // namespace

std::vector<Operation> step_operations(const ModelConfig& config, const StoredModel& model, const StepShape& shape,
                                       std::span<const int> distinct_experts) {
  const auto num_rows = static_cast<double>(shape.num_rows);
  // The expanded form makes keys and values of all positions, also of those that earlier steps stored.
  const double kv_b_rows = shape.generated ? num_rows : static_cast<double>(shape.first_position) + num_rows;
  std::vector<Operation> operations{{.num_bytes = model.embedding_row_bytes * num_rows}};
  size_t moe_layer = 0;
  for (const StoredLayer& layer : model.layers) {
    for (const StoredLinear& linear : layer.linears) operations.push_back(linear_operation(linear, num_rows));
    operations.push_back(linear_operation(layer.kv_b, kv_b_rows));
    operations.push_back(attention_operation(config, shape));
    if (layer.expert.num_weights == 0) continue;
    CHECK(moe_layer < distinct_experts.size());
    operations.push_back({layer.expert.num_bytes * distinct_experts[moe_layer++],
                          2 * layer.expert.num_weights * num_rows * config.num_experts_per_token,
                          layer.expert.arithmetic});
  }
  CHECK(moe_layer == distinct_experts.size());
  if (shape.num_logit_rows > 0)
    operations.push_back(linear_operation(model.head, static_cast<double>(shape.num_logit_rows)));
  return operations;
}

double least_seconds(std::span<const Operation> operations, const MachineLimits& limits) {
  double seconds = 0;
  for (const Operation& operation : operations) {
    const double peak = operation.arithmetic == Arithmetic::kInt8 ? limits.int8_peak : limits.float_peak;
    seconds += std::max(operation.num_bytes / limits.bandwidth, operation.num_operations / peak);
  }
  return seconds;
}

double uniform_distinct_experts(int num_experts, int top_k, int64_t num_rows) {
  if (num_experts == 0) return 0;
  return num_experts * (1 - std::pow(1 - static_cast<double>(top_k) / num_experts, static_cast<double>(num_rows)));
}

}  // namespace cachalot
