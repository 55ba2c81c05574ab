#include "bench/figure.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <string_view>

#include "base/error.h"
#include "base/text.h"
#include "weights/linear_source.h"

namespace cachalot {

namespace {

constexpr std::string_view kLayerPrefix = "model.layers.";

void add_to_layer(StoredLayer& layer, std::string_view name, const StoredLinear& linear, int num_experts) {
  if (name.ends_with("kv_b_proj")) {
    layer.kv_b = linear;
  } else if (name.find(".mlp.experts.") != name.npos) {
    layer.expert.num_weights += linear.num_weights / num_experts;
    layer.expert.num_bytes += linear.num_bytes / num_experts;
    layer.expert.arithmetic = linear.arithmetic;
  } else {
    layer.linears.push_back(linear);
  }
}

StoredLinear look_up(const Checkpoint& checkpoint, const ModelTensor& tensor) {
  StoredLinear stored{.num_weights = static_cast<double>(tensor.rows) * static_cast<double>(tensor.cols)};
  if (const TensorRef* table = checkpoint.find(tensor.name)) {
    stored.num_bytes = static_cast<double>(table->spec.num_bytes());
    return stored;
  }
  const LinearParts parts = find_linear(checkpoint, tensor.name);
  for (const TensorRef* part : parts.all()) stored.num_bytes += static_cast<double>(part->spec.num_bytes());
  if (parts.has_four_bits(tensor.cols)) stored.arithmetic = Arithmetic::kInt8;
  return stored;
}

}  // namespace

StoredModel describe_stored_model(const ModelConfig& config,
                                  const std::function<StoredLinear(const ModelTensor&)>& look_up) {
  StoredModel model{.layers = std::vector<StoredLayer>(static_cast<size_t>(config.num_layers))};
  for (const ModelTensor& tensor : model_tensors(config)) {
    if (tensor.role == TensorRole::kEmbedding) {
      const StoredLinear table = look_up(tensor);
      model.embedding_row_bytes = table.num_bytes / static_cast<double>(tensor.rows);
      if (config.tie_word_embeddings) model.head = table;
    } else if (tensor.role == TensorRole::kHead) {
      model.head = look_up(tensor);
    } else if (tensor.is_linear()) {
      const std::string_view name = tensor.name;
      CHECK(name.starts_with(kLayerPrefix));
      const auto layer = leading_number<size_t>(name.substr(kLayerPrefix.size()));
      add_to_layer(model.layers.at(layer), name, look_up(tensor), config.num_experts);
    }
  }
  return model;
}

StoredModel describe_stored_model(const ModelConfig& config, const Checkpoint& checkpoint) {
  return describe_stored_model(config, [&](const ModelTensor& tensor) { return look_up(checkpoint, tensor); });
}

namespace {

Operation linear_operation(const StoredLinear& linear, double num_rows) {
  return {linear.num_bytes, 2 * linear.num_weights * num_rows, linear.arithmetic};
}

// Of consecutive rows of a prompt, the first of which sees first + 1 positions.
double num_seen(double num_rows, double first) {
  return num_rows * first + num_rows * (num_rows + 1) / 2;
}

// A prompt's rows that attend to all that they see: with an indexer, those up to index_topk.
int64_t num_dense_rows(const ModelConfig& config, const StepShape& shape) {
  if (!config.indexer) return shape.num_rows;
  return std::clamp<int64_t>(config.indexer->topk - shape.first_position, 0, shape.num_rows);
}

// Scores and weighted sums over the positions that each row attends to, and the latents that they are made from. Rows
// that choose their positions read the latents of these, each its own.
Operation attention_operation(const ModelConfig& config, const StepShape& shape) {
  const auto rows = static_cast<double>(shape.num_rows), first = static_cast<double>(shape.first_position);
  const double latent_bytes = static_cast<double>(config.kv_cache_dim() * shape.cache_element_bytes);
  const double heads = config.num_heads, topk = config.indexer ? config.indexer->topk : 0;
  const auto absorbed = [&](double pairs) {
    return Operation{pairs * latent_bytes, 2 * pairs * heads * (config.kv_cache_dim() + config.kv_lora_rank),
                     Arithmetic::kFloat};
  };
  if (shape.generated) return absorbed(rows * (config.indexer ? std::min(first + 1, topk) : first + 1));
  const auto dense = static_cast<double>(num_dense_rows(config, shape));
  Operation operation = absorbed((rows - dense) * topk);
  if (dense == 0) return operation;
  operation.num_bytes += (first + dense) * latent_bytes;
  operation.num_operations += 2 * num_seen(dense, first) * heads * (config.qk_head_dim() + config.v_head_dim);
  return operation;
}

// The scores of all positions that rows see which choose among them; a prompt's rows share one read of the keys.
Operation indexer_operation(const ModelConfig& config, const StepShape& shape) {
  const auto rows = static_cast<double>(shape.num_rows), first = static_cast<double>(shape.first_position);
  const auto dense = static_cast<double>(num_dense_rows(config, shape));
  const IndexerConfig& indexer = *config.indexer;
  const double key_bytes = static_cast<double>(indexer.head_dim * shape.cache_element_bytes);
  if (shape.generated ? first < indexer.topk : dense == rows) return {};
  const double seen = shape.generated ? rows * (first + 1) : num_seen(rows - dense, first + dense);
  return {(shape.generated ? seen : first + rows) * key_bytes, 2 * seen * indexer.num_heads * indexer.head_dim,
          Arithmetic::kFloat};
}

// kv_b's rows: the expanded form makes keys and values of all positions that its rows see, also of those that earlier
// steps stored; the absorbed one works on its rows.
double kv_b_rows(const ModelConfig& config, const StepShape& shape) {
  if (shape.generated) return static_cast<double>(shape.num_rows);
  const int64_t dense = num_dense_rows(config, shape);
  return static_cast<double>((dense > 0 ? shape.first_position + dense : 0) + shape.num_rows - dense);
}

}  // namespace

std::vector<Operation> step_operations(const ModelConfig& config, const StoredModel& model, const StepShape& shape,
                                       std::span<const int> distinct_experts) {
  const auto num_rows = static_cast<double>(shape.num_rows);
  std::vector<Operation> operations{{.num_bytes = model.embedding_row_bytes * num_rows}};
  size_t moe_layer = 0;
  for (int layer_idx = 0; const StoredLayer& layer : model.layers) {
    for (const StoredLinear& linear : layer.linears) operations.push_back(linear_operation(linear, num_rows));
    operations.push_back(linear_operation(layer.kv_b, kv_b_rows(config, shape)));
    operations.push_back(attention_operation(config, shape));
    if (config.has_indexer(layer_idx++)) operations.push_back(indexer_operation(config, shape));
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

namespace {

constexpr double kMostUneven = 0.05;

double speed(const Sample& sample) {
  return sample.num_tokens / sample.seconds;
}

boost::json::object to_json(const Figure& figure) {
  return {{"phase", figure.phase},
          {"batch", figure.batch},
          {"weights", figure.weights},
          {"isa", figure.isa},
          {"context", figure.context},
          {"tokens_per_s", figure.tokens_per_s},
          {"min", figure.min},
          {"max", figure.max},
          {"limit_tokens_per_s", figure.limit_tokens_per_s},
          {"step_bytes", figure.step_bytes},
          {"fraction_of_limit", figure.fraction_of_limit()},
          {"distinct_experts", figure.distinct_experts},
          {"uniform_distinct_experts", figure.uniform_distinct_experts},
          {"bandwidth_gb_s", figure.limits.bandwidth / 1e9},
          {"int8_tops", figure.limits.int8_peak / 1e12}};
}

}  // namespace

bool Figure::counts() const {
  return std::abs(distinct_experts - uniform_distinct_experts) <= kMostUneven * uniform_distinct_experts;
}

void summarize(std::span<const Sample> samples, Figure& figure) {
  CHECK(!samples.empty());
  std::vector<Sample> sorted(samples.begin(), samples.end());
  std::ranges::sort(sorted, {}, speed);
  const Sample& median = sorted[(sorted.size() - 1) / 2];
  figure.tokens_per_s = speed(median);
  figure.min = speed(sorted.front());
  figure.max = speed(sorted.back());
  figure.limit_tokens_per_s = median.num_tokens / median.least_seconds;
  figure.step_bytes = median.step_bytes;
  figure.limits = median.limits;
  figure.distinct_experts = 0;
  for (const Sample& sample : samples)
    figure.distinct_experts += sample.distinct_experts / static_cast<double>(samples.size());
}

std::string figures_table(std::span<const Figure> figures) {
  std::string text = fmt::format("{:<14}{:>6}{:>10}{:>10}{:>10}{:>10}{:>10}{:>11}{:>8}{:>11}{:>11}{:>17}\n", "phase",
                                 "batch", "tokens/s", "min", "max", "limit", "fraction", "MB a step", "GB/s",
                                 "int8 Tops", "fp32 Tops", "experts (even)");
  bool all_count = true;
  for (const Figure& figure : figures) {
    const std::string experts = fmt::format("{:.1f} ({:.1f}){}", figure.distinct_experts,
                                            figure.uniform_distinct_experts, figure.counts() ? " " : "!");
    text += fmt::format(
        "{:<14}{:>6}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.3f}{:>11.1f}{:>8.1f}{:>11.2f}{:>11.2f}{:>17}\n",
        figure.phase, figure.batch, figure.tokens_per_s, figure.min, figure.max, figure.limit_tokens_per_s,
        figure.fraction_of_limit(), figure.step_bytes / 1e6, figure.limits.bandwidth / 1e9,
        figure.limits.int8_peak / 1e12, figure.limits.float_peak / 1e12, experts);
    all_count = all_count && figure.counts();
  }
  if (!all_count) text += "! does not count: the distinct experts are more than 5% off what even routing gives\n";
  return text;
}

std::string figures_json(std::span<const Figure> figures) {
  std::string text = "{\"results\": [";
  for (const char* separator = "\n  "; const Figure& figure : figures) {
    text += separator + boost::json::serialize(to_json(figure));
    separator = ",\n  ";
  }
  return text + "\n]}\n";
}

}  // namespace cachalot
