#include "weights/planned_weights.h"

#include <algorithm>
#include <boost/json.hpp>

#include "base/error.h"
#include "base/math.h"
#include "config/json.h"

namespace cachalot {
namespace {

constexpr int64_t kValuesPerWord = 8;

boost::json::object quantization_object(const QuantTarget& target, const std::vector<std::string>& kept) {
  boost::json::object object;
  if (target.format == WeightFormat::kAwq) {
    object = {{"quant_method", "awq"},
              {"bits", 4},
              {"group_size", target.group_size},
              {"zero_point", true},
              {"version", "gemm"}};
  } else {
    object = {{"quant_method", "fp8"},
              {"fmt", "e4m3"},
              {"activation_scheme", "dynamic"},
              {"weight_block_size", {kFp8Block, kFp8Block}}};
  }
  if (!kept.empty()) object["modules_to_not_convert"] = boost::json::array(kept.begin(), kept.end());
  return object;
}

// Two spaces a level, as HuggingFace writes its files; lists stay on one line.
void print_pretty(const boost::json::value& value, int level, std::string& text) {
  const boost::json::object* object = value.if_object();
  if (!object || object->empty()) {
    text += boost::json::serialize(value);
    return;
  }
  const std::string indent(static_cast<size_t>(level + 1) * 2, ' ');
  text += "{";
  const char* separator = "\n";
  for (const auto& [key, member] : *object) {
    text += separator + indent + boost::json::serialize(boost::json::string(key)) + ": ";
    print_pretty(member, level + 1, text);
    separator = ",\n";
  }
  text += "\n" + std::string(static_cast<size_t>(level) * 2, ' ') + "}";
}

}  // namespace

Status check_target(const QuantTarget& target) {
  if (target.format == WeightFormat::kAwq && (target.group_size < 32 || target.group_size % 32 != 0))
    return make_parameter_error("group_size", "group size {} is not possible; it must be a multiple of 32",
                                target.group_size);
  return {};
}

bool wants_quantization(const ModelTensor& tensor, const QuantTarget& target) {
  return target.format != WeightFormat::kPlain &&
         (tensor.role == TensorRole::kLinear || (tensor.role == TensorRole::kHead && target.quantize_head));
}

bool fits_quantization(const ModelTensor& tensor, const QuantTarget& target) {
  return target.format == WeightFormat::kFp8Block ||
         (tensor.cols % target.group_size == 0 && tensor.rows % kValuesPerWord == 0);
}

std::vector<TensorSpec> quantized_specs(const ModelTensor& tensor, const QuantTarget& target) {
  CHECK(wants_quantization(tensor, target) && fits_quantization(tensor, target));
  const int64_t out = tensor.rows, in = tensor.cols;
  if (target.format == WeightFormat::kFp8Block)
    return {{tensor.name + ".weight", DType::kF8E4M3, {out, in}},
            {tensor.name + ".weight_scale_inv", DType::kF32, {ceil_div(out, kFp8Block), ceil_div(in, kFp8Block)}}};
  const int64_t groups = in / target.group_size, words = out / kValuesPerWord;
  return {{tensor.name + ".qweight", DType::kI32, {in, words}},
          {tensor.name + ".qzeros", DType::kI32, {groups, words}},
          {tensor.name + ".scales", DType::kF16, {groups, out}}};
}

TensorSpec plain_spec(const ModelTensor& tensor, DType plain) {
  const bool is_matrix = tensor.is_linear() || tensor.role == TensorRole::kEmbedding;
  return {tensor.is_linear() ? tensor.name + ".weight" : tensor.name, plain,
          is_matrix ? std::vector<int64_t>{tensor.rows, tensor.cols} : std::vector<int64_t>{tensor.rows}};
}

Result<std::string> config_for_target(const std::string& json, const std::string& path, const QuantTarget& target,
                                      const std::vector<std::string>& kept) {
  ASSIGN_OR_RETURN(boost::json::object object, parse_json_object(json, path));
  if (target.format == WeightFormat::kPlain) {
    object.erase("quantization_config");
  } else {
    object["quantization_config"] = quantization_object(target, kept);
  }
  std::string text;
  print_pretty(object, 0, text);
  return text + "\n";
}

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
