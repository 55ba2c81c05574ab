#include "weights/weight_catalog.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>

#include "base/math.h"
#include "config/json.h"

namespace cachalot {
namespace {

class TensorList {
 public:
  explicit TensorList(const ModelConfig& config) : config_(config) {}

  void add(std::string name, TensorRole role, int64_t rows, int64_t cols = 1) {
    tensors_.push_back({std::move(name), role, rows, cols});
  }

  void add_layer(int layer) {
    add(layer_name(layer, "input_layernorm.weight"), TensorRole::kNorm, config_.hidden_size);
    add_attention(layer);
    add(layer_name(layer, "post_attention_layernorm.weight"), TensorRole::kNorm, config_.hidden_size);
    if (config_.is_moe_layer(layer)) {
      add_experts(layer);
    } else {
      add_mlp(layer_name(layer, "mlp"), config_.intermediate_size);
    }
  }

  void add_mtp_layer(int layer) {
    const int64_t hidden = config_.hidden_size;
    add(layer_name(layer, "embed_tokens.weight"), TensorRole::kEmbedding, config_.vocab_size, hidden);
    add(layer_name(layer, "enorm.weight"), TensorRole::kNorm, hidden);
    add(layer_name(layer, "hnorm.weight"), TensorRole::kNorm, hidden);
    add(layer_name(layer, "eh_proj"), TensorRole::kMtpProjection, hidden, 2 * hidden);
    add_layer(layer);
    add(layer_name(layer, "shared_head.norm.weight"), TensorRole::kNorm, hidden);
    add(layer_name(layer, "shared_head.head"), TensorRole::kHead, config_.vocab_size, hidden);
  }

  std::vector<ModelTensor> take() { return std::move(tensors_); }

 private:
  void add_attention(int layer) {
    const int64_t hidden = config_.hidden_size, heads = config_.num_heads, q_rank = config_.q_lora_rank,
                  kv_rank = config_.kv_lora_rank;
    const auto linear = [&](std::string_view part, int64_t out, int64_t in) {
      add(layer_name(layer, fmt::format("self_attn.{}", part)), TensorRole::kLinear, out, in);
    };
    const auto norm = [&](std::string_view part, int64_t size) {
      add(layer_name(layer, fmt::format("self_attn.{}.weight", part)), TensorRole::kNorm, size);
    };
    if (q_rank > 0) {
      linear("q_a_proj", q_rank, hidden);
      norm("q_a_layernorm", q_rank);
      linear("q_b_proj", heads * config_.qk_head_dim(), q_rank);
    } else {
      linear("q_proj", heads * config_.qk_head_dim(), hidden);
    }
    linear("kv_a_proj_with_mqa", config_.kv_cache_dim(), hidden);
    norm("kv_a_layernorm", kv_rank);
    linear("kv_b_proj", heads * (config_.qk_nope_head_dim + config_.v_head_dim), kv_rank);
    linear("o_proj", hidden, heads * config_.v_head_dim);
  }

  void add_mlp(const std::string& prefix, int64_t width) {
    add(prefix + ".gate_proj", TensorRole::kLinear, width, config_.hidden_size);
    add(prefix + ".up_proj", TensorRole::kLinear, width, config_.hidden_size);
    add(prefix + ".down_proj", TensorRole::kLinear, config_.hidden_size, width);
  }

  void add_experts(int layer) {
    add(layer_name(layer, "mlp.gate"), TensorRole::kRouter, config_.num_experts, config_.hidden_size);
    if (config_.topk_method == TopkMethod::kNoauxTc)
      add(layer_name(layer, "mlp.gate.e_score_correction_bias"), TensorRole::kRouterBias, config_.num_experts);
    for (int expert = 0; expert < config_.num_experts; expert++)
      add_mlp(layer_name(layer, fmt::format("mlp.experts.{}", expert)), config_.moe_intermediate_size);
    if (config_.num_shared_experts > 0)
      add_mlp(layer_name(layer, "mlp.shared_experts"),
              int64_t{config_.num_shared_experts} * config_.moe_intermediate_size);
  }

  const ModelConfig& config_;
  std::vector<ModelTensor> tensors_;
};

}  // namespace

std::string layer_name(int layer, std::string_view part) {
  return fmt::format("model.layers.{}.{}", layer, part);
}

std::vector<ModelTensor> model_tensors(const ModelConfig& config, int num_mtp_layers) {
  TensorList list(config);
  list.add("model.embed_tokens.weight", TensorRole::kEmbedding, config.vocab_size, config.hidden_size);
  for (int layer = 0; layer < config.num_layers; layer++) list.add_layer(layer);
  list.add("model.norm.weight", TensorRole::kNorm, config.hidden_size);
  if (!config.tie_word_embeddings) list.add("lm_head", TensorRole::kHead, config.vocab_size, config.hidden_size);
  for (int idx = 0; idx < num_mtp_layers; idx++) list.add_mtp_layer(config.num_layers + idx);
  return list.take();
}

std::vector<ModelTensor> mtp_tensors(const ModelConfig& config, int layer) {
  TensorList list(config);
  list.add_mtp_layer(layer);
  return list.take();
}

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
  return {tensor.plain_name(), plain,
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
  uint64_t bytes = 0;
  for (const ModelTensor& tensor : model_tensors(config_, config_.num_nextn_predict_layers)) {
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
