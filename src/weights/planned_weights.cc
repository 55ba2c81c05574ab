#include "weights/planned_weights.h"

#include <algorithm>

namespace cachalot {
namespace {

// A checkpoint's linear by its name; only what a name tells: experts, attention and dense layers are all kLinear.
TensorRole role_of(std::string_view prefix) {
  if (prefix == "lm_head") return TensorRole::kHead;
  return prefix.ends_with(".mlp.gate") ? TensorRole::kRouter : TensorRole::kLinear;
}

// Whether `entry`, of modules_to_not_convert, names this module or one that it is part of: "mlp.gate" names
// "model.layers.3.mlp.gate", and not "...mlp.gate_proj".
bool names_module(std::string_view entry, std::string_view module) {
  while (entry.ends_with('.')) entry.remove_suffix(1);
  if (entry.empty()) return false;
  for (size_t at = module.find(entry); at != std::string_view::npos; at = module.find(entry, at + 1)) {
    const size_t end = at + entry.size();
    if ((at == 0 || module[at - 1] == '.') && (end == module.size() || module[end] == '.')) return true;
  }
  return false;
}

}  // namespace

bool PlannedWeights::is_quantized(const ModelTensor& tensor) const {
  if (!wants_quantization(tensor, target_) || !fits_quantization(tensor, target_)) return false;
  return std::ranges::none_of(config_.quantization.modules_to_not_convert,
                              [&](const std::string& entry) { return names_module(entry, tensor.name); });
}

Result<WeightSource> PlannedWeights::linear(std::string_view prefix, int64_t out_features, int64_t in_features) const {
  const ModelTensor tensor{std::string(prefix), role_of(prefix), out_features, in_features};
  WeightSource source{.dtype = DType::kBF16, .out_features = out_features, .in_features = in_features};
  if (is_quantized(tensor)) {
    const bool awq = target_.format == WeightFormat::kAwq;
    source.format = awq ? SourceFormat::kAwq : SourceFormat::kFp8Block;
    source.dtype = awq ? DType::kI32 : DType::kF8E4M3;
    source.scale_dtype = awq ? DType::kF16 : DType::kF32;
    source.group_size = awq ? target_.group_size : 0;
  }
  return whole(source);
}

Result<WeightSource> PlannedWeights::head() const {
  if (!config_.tie_word_embeddings) return linear("lm_head", config_.vocab_size, config_.hidden_size);
  return whole({.dtype = DType::kBF16, .out_features = config_.vocab_size, .in_features = config_.hidden_size});
}

Result<std::vector<float>> PlannedWeights::vector(std::string_view, int64_t size) const {
  return std::vector<float>(static_cast<size_t>(size));
}

Result<TensorRef> PlannedWeights::embedding() const {
  return TensorRef{.spec = {"model.embed_tokens.weight", DType::kBF16, {config_.vocab_size, config_.hidden_size}},
                   .data = {},
                   .file = &name_};
}

uint64_t PlannedWeights::file_bytes() const {
  std::vector<ModelTensor> tensors = model_tensors(config_);
  for (int idx = 0; idx < config_.num_nextn_predict_layers; idx++)
    std::ranges::move(mtp_tensors(config_, config_.num_layers + idx), std::back_inserter(tensors));
  uint64_t bytes = 0;
  for (const ModelTensor& tensor : tensors) {
    if (!is_quantized(tensor)) {
      bytes += plain_spec(tensor, DType::kBF16).num_bytes();
      continue;
    }
    for (const TensorSpec& part : quantized_specs(tensor, target_)) bytes += part.num_bytes();
  }
  return bytes;
}

QuantTarget target_of(const QuantizationConfig& quantization) {
  QuantTarget target{.format = quantization.format};
  if (quantization.format == WeightFormat::kAwq) target.group_size = quantization.group_size;
  return target;
}

}  // namespace cachalot
