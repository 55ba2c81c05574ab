#include "bench/stored_model.h"

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
  if (parts.qweight) stored.arithmetic = Arithmetic::kInt8;
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

}  // namespace cachalot
