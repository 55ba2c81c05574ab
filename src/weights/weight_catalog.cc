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
    if (!config_.has_indexer(layer)) return;
    const int64_t index_heads = config_.indexer->num_heads, index_dim = config_.indexer->head_dim;
    add(layer_name(layer, "self_attn.indexer.wq_b"), TensorRole::kIndexer, index_heads * index_dim, q_rank);
    add(layer_name(layer, "self_attn.indexer.wk"), TensorRole::kIndexer, index_dim, hidden);
    norm("indexer.k_norm", index_dim);
    add(layer_name(layer, "self_attn.indexer.k_norm.bias"), TensorRole::kBias, index_dim);
    add(layer_name(layer, "self_attn.indexer.weights_proj"), TensorRole::kRouter, index_heads, hidden);
  }

  void add_mlp(const std::string& prefix, int64_t width) {
    add(prefix + ".gate_proj", TensorRole::kLinear, width, config_.hidden_size);
    add(prefix + ".up_proj", TensorRole::kLinear, width, config_.hidden_size);
    add(prefix + ".down_proj", TensorRole::kLinear, config_.hidden_size, width);
  }

  void add_experts(int layer) {
    add(layer_name(layer, "mlp.gate"), TensorRole::kRouter, config_.num_experts, config_.hidden_size);
    if (config_.topk_method == TopkMethod::kNoauxTc)
      add(layer_name(layer, "mlp.gate.e_score_correction_bias"), TensorRole::kBias, config_.num_experts);
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
constexpr int kMxfp4Group = 32;
constexpr std::string_view kLinearClass = "Linear";

// compressed-tensors' words for what the format is.
boost::json::object compressed_object(const QuantTarget& target, const std::vector<std::string>& kept) {
  const bool is_int = target.format == WeightFormat::kPackedInt;
  const boost::json::object weights{{"num_bits", target.bits},         {"type", is_int ? "int" : "float"},
                                    {"symmetric", !target.zero_point}, {"strategy", "group"},
                                    {"group_size", target.group_size}, {"dynamic", false}};
  const boost::json::object group{{"targets", {"Linear"}}, {"weights", weights}, {"input_activations", nullptr}};
  boost::json::array ignore{"re:.*mlp\\.gate$", "re:.*eh_proj$", "re:.*indexer"};
  if (!target.quantize_head) ignore.insert(ignore.begin(), {"lm_head", "re:.*shared_head\\.head$"});
  ignore.insert(ignore.end(), kept.begin(), kept.end());
  return {{"quant_method", "compressed-tensors"},
          {"format", is_int ? "pack-quantized" : "mxfp4-pack-quantized"},
          {"config_groups", {{"group_0", group}}},
          {"ignore", ignore},
          {"quantization_status", "compressed"}};
}

boost::json::object quantization_object(const QuantTarget& target, const std::vector<std::string>& kept) {
  if (target.format == WeightFormat::kPackedInt || target.format == WeightFormat::kMxfp4)
    return compressed_object(target, kept);
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

int usual_group_size(WeightFormat format) {
  return format == WeightFormat::kPackedInt || format == WeightFormat::kMxfp4 ? kMxfp4Group : QuantTarget{}.group_size;
}

Status check_target(const QuantTarget& target) {
  const bool has_groups = target.format == WeightFormat::kAwq || target.format == WeightFormat::kPackedInt;
  if (has_groups && (target.group_size < 32 || target.group_size % 32 != 0))
    return make_parameter_error("group_size", "group size {} is not possible; it must be a multiple of 32",
                                target.group_size);
  if (target.format == WeightFormat::kMxfp4 && target.group_size != kMxfp4Group)
    return make_parameter_error("group_size", "group size {} is not possible; that of MXFP4 is {}", target.group_size,
                                kMxfp4Group);
  return {};
}

bool wants_quantization(const ModelTensor& tensor, const QuantTarget& target) {
  switch (tensor.role) {
    case TensorRole::kLinear:
      return target.format != WeightFormat::kPlain;
    case TensorRole::kIndexer:
      return target.format == WeightFormat::kFp8Block;
    case TensorRole::kHead:
      return target.format != WeightFormat::kPlain && target.quantize_head;
    default:
      return false;
  }
}

bool fits_quantization(const ModelTensor& tensor, const QuantTarget& target) {
  if (target.format == WeightFormat::kFp8Block || target.group_size == 0) return true;
  return tensor.cols % target.group_size == 0 &&
         (target.format != WeightFormat::kAwq || tensor.rows % kValuesPerWord == 0);
}

std::vector<TensorSpec> quantized_specs(const ModelTensor& tensor, const QuantTarget& target) {
  CHECK(wants_quantization(tensor, target) && fits_quantization(tensor, target));
  const int64_t out = tensor.rows, in = tensor.cols, groups = target.group_size > 0 ? in / target.group_size : 1;
  const auto words = [&](int64_t count) { return ceil_div(count * target.bits, 32); };
  switch (target.format) {
    case WeightFormat::kFp8Block:
      return {{tensor.name + ".weight", DType::kF8E4M3, {out, in}},
              {tensor.name + ".weight_scale_inv", DType::kF32, {ceil_div(out, kFp8Block), ceil_div(in, kFp8Block)}}};
    case WeightFormat::kPackedInt: {
      std::vector<TensorSpec> specs{{tensor.name + ".weight_packed", DType::kI32, {out, words(in)}},
                                    {tensor.name + ".weight_scale", DType::kBF16, {out, groups}},
                                    {tensor.name + ".weight_shape", DType::kI64, {2}}};
      if (target.zero_point) specs.push_back({tensor.name + ".weight_zero_point", DType::kI32, {words(out), groups}});
      return specs;
    }
    case WeightFormat::kMxfp4:
      return {{tensor.name + ".weight_packed", DType::kU8, {out, in / 2}},
              {tensor.name + ".weight_scale", DType::kU8, {out, groups}}};
    default:
      return {{tensor.name + ".qweight", DType::kI32, {in, out / kValuesPerWord}},
              {tensor.name + ".qzeros", DType::kI32, {groups, out / kValuesPerWord}},
              {tensor.name + ".scales", DType::kF16, {groups, out}}};
  }
}

TensorSpec plain_spec(const ModelTensor& tensor, DType plain) {
  const bool is_matrix = tensor.is_linear() || tensor.role == TensorRole::kEmbedding;
  return {tensor.plain_name(), plain,
          is_matrix ? std::vector<int64_t>{tensor.rows, tensor.cols} : std::vector<int64_t>{tensor.rows}};
}

Result<std::string> config_for_target(const std::string& json, const std::string& path, const QuantTarget& target,
                                      const std::vector<std::string>& kept) {
  ASSIGN_OR_RETURN(boost::json::object object, parse_json_object(json, path));
  boost::json::value* part = object.if_contains("text_config");
  boost::json::object& inner = part && part->is_object() && !part->get_object().empty() ? part->get_object() : object;
  object.erase("quantization_config");
  inner.erase("quantization_config");
  if (target.format != WeightFormat::kPlain) inner["quantization_config"] = quantization_object(target, kept);
  std::string text;
  print_pretty(object, 0, text);
  return text + "\n";
}

namespace {

// How the names of linears end that are more than kLinear.
constexpr std::pair<std::string_view, TensorRole> kRoles[] = {
    {"lm_head", TensorRole::kHead},           {".shared_head.head", TensorRole::kHead},
    {".mlp.gate", TensorRole::kRouter},       {".indexer.weights_proj", TensorRole::kRouter},
    {".indexer.wq_b", TensorRole::kIndexer},  {".indexer.wk", TensorRole::kIndexer},
    {".eh_proj", TensorRole::kMtpProjection},
};

TensorRole role_of(std::string_view prefix) {
  for (const auto& [ending, role] : kRoles)
    if (prefix.ends_with(ending)) return role;
  return TensorRole::kLinear;
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

PlannedWeights::PlannedWeights(ModelConfig config, QuantTarget target, std::string name)
    : config_(std::move(config)), target_(target), name_(std::move(name)) {
  const auto compile = [](const std::vector<std::string>& patterns) {
    return ModulePatterns::compile(patterns).value_or(ModulePatterns{});  // parse_model_config has checked them
  };
  ignored_ = compile(config_.quantization.ignore);
  for (const QuantizationConfig::Group& group : config_.quantization.groups) groups_.push_back(compile(group.targets));
}

QuantTarget PlannedWeights::target_for(const ModelTensor& tensor) const {
  const QuantTarget plain{.format = WeightFormat::kPlain};
  if (!wants_quantization(tensor, target_)) return plain;
  const QuantizationConfig& quantization = config_.quantization;
  QuantTarget target = target_;
  if (!groups_.empty()) {
    const std::string module = config_.tensor_prefix + tensor.name;
    const auto is_named = [&](const ModulePatterns& patterns) {
      return patterns.match(module, kLinearClass) || patterns.match(tensor.name, kLinearClass);
    };
    const auto group = std::ranges::find_if(groups_, is_named);
    if (group == groups_.end() || is_named(ignored_)) return plain;
    QuantTarget said = target_of(quantization);
    said.quantize_head = target.quantize_head;
    if (target == said) target = target_of(quantization.groups[static_cast<size_t>(group - groups_.begin())].scheme);
    target.quantize_head = said.quantize_head;
  }
  const bool is_kept = std::ranges::any_of(quantization.modules_to_not_convert,
                                           [&](const std::string& entry) { return names_module(entry, tensor.name); });
  return is_kept || !fits_quantization(tensor, target) ? plain : target;
}

Result<WeightSource> PlannedWeights::linear(std::string_view prefix, int64_t out_features, int64_t in_features) const {
  static constexpr uint32_t kSomeZeros = 0;  // that there are any is all that is asked
  const QuantTarget target = target_for({std::string(prefix), role_of(prefix), out_features, in_features});
  const int group_size = target.group_size > 0 ? target.group_size : static_cast<int>(in_features);
  WeightSource source{.out_features = out_features, .in_features = in_features};
  switch (target.format) {
    case WeightFormat::kPlain:
      break;
    case WeightFormat::kFp8Block:
      source.format = SourceFormat::kFp8Block;
      source.dtype = DType::kF8E4M3;
      break;
    case WeightFormat::kAwq:
      source.format = SourceFormat::kAwq;
      source.dtype = DType::kI32;
      source.scale_dtype = DType::kF16;
      source.group_size = group_size;
      break;
    case WeightFormat::kPackedInt:
      source.format = SourceFormat::kPackedInt;
      source.dtype = DType::kI32;
      source.scale_dtype = DType::kBF16;
      source.bits = target.bits;
      source.group_size = group_size;
      if (target.zero_point) source.zeros = &kSomeZeros;
      break;
    case WeightFormat::kMxfp4:
      source.format = SourceFormat::kMxfp4;
      source.dtype = DType::kU8;
      source.scale_dtype = DType::kF8E8M0;
      source.group_size = group_size;
      break;
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

bool PlannedWeights::is_quantized() const {
  return std::ranges::any_of(model_tensors(config_), [&](const ModelTensor& tensor) {
    return target_for(tensor).format != WeightFormat::kPlain;
  });
}

uint64_t PlannedWeights::file_bytes() const {
  uint64_t bytes = 0;
  for (const ModelTensor& tensor : model_tensors(config_, config_.num_nextn_predict_layers)) {
    const QuantTarget target = target_for(tensor);
    if (target.format == WeightFormat::kPlain) {
      bytes += plain_spec(tensor, DType::kBF16).num_bytes();
      continue;
    }
    for (const TensorSpec& part : quantized_specs(tensor, target)) bytes += part.num_bytes();
  }
  return bytes;
}

QuantTarget target_of(const QuantizationScheme& scheme) {
  QuantTarget target{.format = scheme.format};
  if (scheme.format == WeightFormat::kPlain || scheme.format == WeightFormat::kFp8Block) return target;
  target.group_size = scheme.group_size;
  target.bits = scheme.bits;
  target.zero_point = scheme.format == WeightFormat::kPackedInt && scheme.zero_point;
  return target;
}

}  // namespace cachalot
