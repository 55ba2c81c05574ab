#include "config/model_config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cctype>
#include <limits>

#include "base/file.h"
#include "config/json_keys.h"

namespace cachalot {
namespace {

// Bounds far above any model of the family, low enough that products of a few sizes stay inside int64.
constexpr int64_t kMaxWidth = 1 << 20, kMaxCount = 1 << 16, kMaxPosition = 1 << 26;

struct Architecture {
  std::string_view name;
  ModelFamily family;
};
constexpr std::array kArchitectures{Architecture{"DeepseekV2ForCausalLM", ModelFamily::kDeepseekV2},
                                    Architecture{"DeepseekV3ForCausalLM", ModelFamily::kDeepseekV3}};

Result<ModelFamily> read_family(JsonKeys& keys, const std::string& path) {
  std::vector<std::string> names;
  keys.optional("architectures", names);
  RETURN_IF_ERROR(keys.status());
  for (const Architecture& architecture : kArchitectures)
    if (names.size() == 1 && names.front() == architecture.name) return architecture.family;
  std::vector<std::string_view> supported;
  for (const Architecture& architecture : kArchitectures) supported.push_back(architecture.name);
  return std::unexpected(Error{ErrorCode::kUnsupported,
                               fmt::format("{}: architectures is [{}], which is not supported; supported are: {}", path,
                                           fmt::join(names, ", "), fmt::join(supported, ", ")),
                               "architectures"});
}

// What an absent key means is what the family's own configuration class says.
ModelConfig family_defaults(ModelFamily family) {
  ModelConfig config;
  config.family = family;
  if (family == ModelFamily::kDeepseekV2) {
    config.scoring = ScoringFunction::kSoftmax;
    config.topk_method = TopkMethod::kGreedy;
    config.norm_topk_prob = false;
  } else {
    config.routed_scaling_factor = 2.5;
  }
  return config;
}

// One value of an enumeration by its name in the file.
template <class Enum>
struct Spelling {
  std::string_view name;
  Enum value;
};
template <class Enum, size_t Count>
void read_enum(JsonKeys& keys, std::string_view key, const std::array<Spelling<Enum>, Count>& spellings, Enum& field) {
  std::string name;
  keys.optional(key, name);
  if (name.empty()) return;
  std::vector<std::string_view> names;
  for (const Spelling<Enum>& spelling : spellings) {
    if (spelling.name == name) field = spelling.value;
    names.push_back(spelling.name);
  }
  if (std::ranges::find(names, name) == names.end())
    keys.fault(key, fmt::format("is \"{}\", which is not supported", name), fmt::format("{}", fmt::join(names, " or ")),
               ErrorCode::kUnsupported);
}

void read_shape(JsonKeys& keys, ModelConfig& config) {
  keys.require("vocab_size", config.vocab_size, 1, 1 << 24);
  keys.require("hidden_size", config.hidden_size, 1, kMaxWidth);
  keys.require("num_hidden_layers", config.num_layers, 1, 4096);
  keys.require("num_attention_heads", config.num_heads, 1, 4096);
  keys.optional("q_lora_rank", config.q_lora_rank, 0, kMaxWidth);
  keys.require("kv_lora_rank", config.kv_lora_rank, 1, kMaxWidth);
  keys.require("qk_nope_head_dim", config.qk_nope_head_dim, 1, kMaxCount);
  keys.require("qk_rope_head_dim", config.qk_rope_head_dim, 2, kMaxCount);
  keys.require("v_head_dim", config.v_head_dim, 1, kMaxCount);
  keys.require("intermediate_size", config.intermediate_size, 1, kMaxWidth);
  keys.require("max_position_embeddings", config.max_position_embeddings, 1, kMaxPosition);
  keys.optional("num_nextn_predict_layers", config.num_nextn_predict_layers, 0, 64);
  keys.optional("rms_norm_eps", config.rms_norm_eps, 1e-12, 1e-1);
  keys.optional("tie_word_embeddings", config.tie_word_embeddings);
  if (config.qk_rope_head_dim % 2 != 0)
    keys.fault("qk_rope_head_dim", fmt::format("is {}", config.qk_rope_head_dim), "even, since pairs are rotated");
}

void read_experts(JsonKeys& keys, ModelConfig& config) {
  keys.optional("n_routed_experts", config.num_experts, 0, kMaxCount);
  if (config.num_experts == 0) return;
  keys.require("num_experts_per_tok", config.num_experts_per_token, 1, kMaxCount);
  keys.require("moe_intermediate_size", config.moe_intermediate_size, 1, kMaxWidth);
  keys.optional("n_shared_experts", config.num_shared_experts, 0, 1024);
  keys.optional("first_k_dense_replace", config.first_k_dense_replace, 0, 4096);
  keys.optional("moe_layer_freq", config.moe_layer_freq, 1, 4096);
  keys.optional("n_group", config.num_groups, 1, kMaxCount);
  keys.optional("topk_group", config.topk_groups, 1, kMaxCount);
  keys.optional("norm_topk_prob", config.norm_topk_prob);
  keys.optional("routed_scaling_factor", config.routed_scaling_factor, 1e-6, 1e6);
  constexpr std::array kScorings{Spelling<ScoringFunction>{"softmax", ScoringFunction::kSoftmax},
                                 Spelling<ScoringFunction>{"sigmoid", ScoringFunction::kSigmoid}};
  read_enum(keys, "scoring_func", kScorings, config.scoring);
  constexpr std::array kMethods{Spelling<TopkMethod>{"greedy", TopkMethod::kGreedy},
                                Spelling<TopkMethod>{"gready", TopkMethod::kGreedy},  // DeepSeek's own spelling
                                Spelling<TopkMethod>{"group_limited_greedy", TopkMethod::kGroupLimitedGreedy},
                                Spelling<TopkMethod>{"noaux_tc", TopkMethod::kNoauxTc}};
  read_enum(keys, "topk_method", kMethods, config.topk_method);
}

void check_routing(JsonKeys& keys, const ModelConfig& config) {
  if (config.num_experts == 0) return;
  if (config.num_experts_per_token > config.num_experts)
    keys.fault("num_experts_per_tok", fmt::format("is {}", config.num_experts_per_token),
               fmt::format("at most n_routed_experts ({})", config.num_experts));
  if (config.first_k_dense_replace > config.num_layers)
    keys.fault("first_k_dense_replace", fmt::format("is {}", config.first_k_dense_replace),
               fmt::format("at most num_hidden_layers ({})", config.num_layers));
  if (config.topk_method == TopkMethod::kGreedy) return;  // groups play no part
  if (config.num_experts % config.num_groups != 0)
    return keys.fault("n_group", fmt::format("is {}", config.num_groups),
                      fmt::format("a divisor of n_routed_experts ({})", config.num_experts));
  if (config.topk_groups > config.num_groups)
    keys.fault("topk_group", fmt::format("is {}", config.topk_groups),
               fmt::format("at most n_group ({})", config.num_groups));
  const int group_size = config.num_experts / config.num_groups;
  if (config.num_experts_per_token > config.topk_groups * group_size)
    keys.fault("num_experts_per_tok", fmt::format("is {}", config.num_experts_per_token),
               fmt::format("at most the {} experts of topk_group ({}) groups", config.topk_groups * group_size,
                           config.topk_groups));
  if (config.topk_method == TopkMethod::kNoauxTc && config.num_groups > 1 && group_size < 2)
    keys.fault("n_group", fmt::format("is {}", config.num_groups),
               fmt::format("at most {}: noaux_tc scores a group by its two best experts", config.num_experts / 2));
}

// "rope_scaling", or transformers' newer "rope_parameters", which also holds rope_theta and says "default" where there
// is none.
Status read_rope(JsonKeys& keys, ModelConfig& config) {
  const bool newer = !keys.find("rope_scaling") && keys.find("rope_parameters");
  const std::string_view name = newer ? "rope_parameters" : "rope_scaling";
  keys.optional("rope_theta", config.rope_theta, 1, 1e12);
  const boost::json::object* object = keys.object(name);
  if (!object) return {};
  JsonKeys rope = keys.nested(name, *object);
  if (newer) rope.optional("rope_theta", config.rope_theta, 1, 1e12);
  std::string type = newer ? "default" : "";
  rope.optional("type", type);
  rope.optional("rope_type", type);
  if (type == "default") return rope.status();
  if (type != "yarn") {
    rope.fault(object->contains("rope_type") ? "rope_type" : "type",
               fmt::format("is \"{}\", which is not supported", type), "yarn", ErrorCode::kUnsupported);
    return rope.status();
  }
  YarnConfig yarn;
  rope.require("factor", yarn.factor, 1, 1e6);
  rope.require("original_max_position_embeddings", yarn.original_max_position_embeddings, 1, kMaxPosition);
  rope.optional("beta_fast", yarn.beta_fast, 1e-3, 1e6);
  rope.optional("beta_slow", yarn.beta_slow, 1e-3, 1e6);
  rope.optional("mscale", yarn.mscale, 0, 100);
  rope.optional("mscale_all_dim", yarn.mscale_all_dim, 0, 100);
  if (rope.find("attention_factor"))
    rope.fault("attention_factor", "is set, which is not supported", "absent (mscale and mscale_all_dim say it)",
               ErrorCode::kUnsupported);
  if (yarn.beta_fast <= yarn.beta_slow)
    rope.fault("beta_fast", fmt::format("is {}", yarn.beta_fast), "above beta_slow");
  config.yarn = yarn;
  return rope.status();
}

// A number or a list of numbers; -1 stands for "none" in some files.
void read_token_ids(JsonKeys& keys, ModelConfig& config) {
  keys.optional("bos_token_id", config.bos_token_id, -1, config.vocab_size - 1);
  const boost::json::value* eos = keys.find("eos_token_id");
  if (!eos) return;
  const boost::json::array ids = eos->is_array() ? eos->get_array() : boost::json::array{*eos};
  for (const boost::json::value& id : ids) {
    if (!id.is_int64() || id.get_int64() < -1 || id.get_int64() >= config.vocab_size)
      return keys.fault("eos_token_id", "holds " + boost::json::serialize(id),
                        fmt::format("token ids below vocab_size ({})", config.vocab_size));
    if (id.get_int64() >= 0) config.eos_token_ids.push_back(static_cast<int>(id.get_int64()));
  }
}

void require_word(JsonKeys& keys, std::string_view key, std::string word, std::string_view wanted) {
  keys.optional(key, word);
  std::ranges::transform(word, word.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (word != wanted)
    keys.fault(key, fmt::format("is \"{}\", which is not supported", word), wanted, ErrorCode::kUnsupported);
}

void read_awq(JsonKeys& keys, QuantizationConfig& quantization) {
  quantization.format = WeightFormat::kAwq;
  int bits = 4;
  keys.optional("w_bit", bits, 1, 16);
  keys.optional("bits", bits, 1, 16);
  if (bits != 4) keys.fault("bits", fmt::format("is {}, which is not supported", bits), "4", ErrorCode::kUnsupported);
  require_word(keys, "version", "gemm", "gemm");
  const std::string_view group_key = keys.find("q_group_size") ? "q_group_size" : "group_size";
  keys.require(group_key, quantization.group_size, 1, kMaxWidth);
  if (quantization.group_size % 32 != 0)
    keys.fault(group_key, fmt::format("is {}, which is not supported", quantization.group_size), "a multiple of 32",
               ErrorCode::kUnsupported);
  keys.optional("zero_point", quantization.zero_point);
}

void read_fp8(JsonKeys& keys, QuantizationConfig& quantization) {
  quantization.format = WeightFormat::kFp8Block;
  require_word(keys, "fmt", "e4m3", "e4m3");
  require_word(keys, "activation_scheme", "dynamic", "dynamic");
  const boost::json::value* block = keys.find("weight_block_size");
  const boost::json::array wanted{quantization.block_rows, quantization.block_cols};
  if (!block || *block != boost::json::value(wanted))
    keys.fault("weight_block_size",
               block ? "is " + boost::json::serialize(*block) + ", which is not supported" : "is missing", "[128, 128]",
               ErrorCode::kUnsupported);
}

Status read_quantization(JsonKeys& outer, ModelConfig& config) {
  const boost::json::object* object = outer.object("quantization_config");
  if (!object) return {};
  JsonKeys keys = outer.nested("quantization_config", *object);
  std::string method;
  keys.optional("quant_method", method);
  if (method == "awq") {
    read_awq(keys, config.quantization);
  } else if (method == "fp8") {
    read_fp8(keys, config.quantization);
  } else {
    keys.fault("quant_method", fmt::format("is \"{}\", which is not supported", method), "awq or fp8",
               ErrorCode::kUnsupported);
  }
  keys.optional("modules_to_not_convert", config.quantization.modules_to_not_convert);
  return keys.status();
}

// Keys whose other values change the mathematics in ways that are not done here.
void refuse_variants(JsonKeys& keys) {
  require_word(keys, "hidden_act", "silu", "silu");
  bool attention_bias = false, rope_interleave = true;
  keys.optional("attention_bias", attention_bias);
  if (attention_bias) keys.fault("attention_bias", "is true, which is not supported", "false", ErrorCode::kUnsupported);
  keys.optional("rope_interleave", rope_interleave);
  if (!rope_interleave)
    keys.fault("rope_interleave", "is false, which is not supported", "true", ErrorCode::kUnsupported);
}

}  // namespace

Result<ModelConfig> parse_model_config(const std::string& json, const std::string& path) {
  boost::system::error_code parse_error;
  const boost::json::value root = boost::json::parse(json, parse_error);
  if (parse_error) return make_error(ErrorCode::kInvalidArgument, "{}: no valid JSON: {}", path, parse_error.message());
  if (!root.is_object()) return make_error(ErrorCode::kInvalidArgument, "{}: must be a JSON object", path);

  JsonKeys keys(root.get_object(), path);
  ASSIGN_OR_RETURN(const ModelFamily family, read_family(keys, path));
  ModelConfig config = family_defaults(family);
  refuse_variants(keys);
  read_shape(keys, config);
  read_experts(keys, config);
  RETURN_IF_ERROR(keys.status());
  check_routing(keys, config);
  read_token_ids(keys, config);
  RETURN_IF_ERROR(read_rope(keys, config));
  RETURN_IF_ERROR(read_quantization(keys, config));
  RETURN_IF_ERROR(keys.status());
  return config;
}

Result<ModelConfig> load_model_config(const std::string& model_folder) {
  const std::string path = model_folder + "/config.json";
  Result<std::string> json = read_file(path);
  if (!json)
    return make_error(json.error().code, "{}; a model is a folder with a HuggingFace checkpoint", json.error().message);
  return parse_model_config(*json, path);
}

}  // namespace cachalot
