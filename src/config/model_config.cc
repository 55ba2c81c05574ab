#include "config/model_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>

#include "base/file.h"
#include "base/text.h"
#include "config/json.h"
#include "config/model_families.h"
#include "config/model_folder.h"
#include "config/model_keys.h"
#include "config/quantization_keys.h"
#include "config/rope_keys.h"

namespace cachalot {
namespace {

namespace json = boost::json;

// One value of an enumeration by its name in the file.
template <class Enum>
void read_enum(JsonKeys& keys, std::string_view key, std::initializer_list<std::pair<const char*, Enum>> spellings,
               Enum& field) {
  std::string name, names;
  keys.optional(key, name);
  if (name.empty()) return;
  for (const auto& [spelling, value] : spellings) {
    if (name == spelling) {
      field = value;
      return;
    }
    names += (names.empty() ? "" : " or ") + std::string(spelling);
  }
  keys.refuse(key, in_double_quotes(name), names);
}

// One thing that has several names in different files: the first that is there; others must agree with it.
void read_alias(ModelKeys& keys, std::string_view name, std::string_view alias, int& field) {
  const json::value *said = keys.find(name), *other = keys.find(alias);
  if (!other) return;
  int value = field;
  keys.optional(alias, value);
  if (said && value != field)
    return keys.fault(alias, fmt::format("is {}", value), fmt::format("what {} says ({})", name, field));
  field = value;
}

void read_shape(ModelKeys& keys, ModelConfig& config) {
  keys.require("vocab_size", config.vocab_size);
  keys.require("hidden_size", config.hidden_size);
  keys.require("num_hidden_layers", config.num_layers);
  keys.require("num_attention_heads", config.num_heads);
  if (keys.is_null("q_lora_rank")) config.q_lora_rank = 0;
  keys.optional("q_lora_rank", config.q_lora_rank);
  keys.require("kv_lora_rank", config.kv_lora_rank);
  keys.require("qk_nope_head_dim", config.qk_nope_head_dim);
  keys.require("qk_rope_head_dim", config.qk_rope_head_dim);
  keys.require("v_head_dim", config.v_head_dim);
  keys.require("intermediate_size", config.intermediate_size);
  keys.require("max_position_embeddings", config.max_position_embeddings);
  keys.optional("num_nextn_predict_layers", config.num_nextn_predict_layers);
  read_alias(keys, "num_nextn_predict_layers", "num_mtp_layers", config.num_nextn_predict_layers);
  keys.optional("rms_norm_eps", config.rms_norm_eps);
  keys.optional("tie_word_embeddings", config.tie_word_embeddings);
  if (config.qk_rope_head_dim % 2 != 0)
    keys.fault("qk_rope_head_dim", fmt::format("is {}", config.qk_rope_head_dim), "even, since pairs are rotated");
}

// transformers' newer list goes before the older keys.
void read_sparse_layers(ModelKeys& keys, ModelConfig& config) {
  std::vector<std::string> types;
  keys.optional("mlp_layer_types", types);
  if (types.size() != static_cast<size_t>(config.num_layers)) return;  // check_layer_types tells
  std::vector<bool> sparse_layers;
  bool differs = false;
  for (int layer = 0; layer < config.num_layers; layer++) {
    sparse_layers.push_back(types[static_cast<size_t>(layer)] == "sparse");
    differs |= sparse_layers.back() != config.is_moe_layer(layer);
  }
  config.sparse_layers = std::move(sparse_layers);
  if (differs && keys.find("first_k_dense_replace"))
    config.notes.emplace_back("mlp_layer_types goes before first_k_dense_replace, which says otherwise");
}

void read_experts(ModelKeys& keys, ModelConfig& config) {
  if (keys.is_null("n_routed_experts")) config.num_experts = 0;
  keys.optional("n_routed_experts", config.num_experts);
  read_alias(keys, "n_routed_experts", "num_experts", config.num_experts);
  read_alias(keys, "n_routed_experts", "num_local_experts", config.num_experts);
  if (config.num_experts == 0) return;
  if (config.num_experts_per_token == 0 && !keys.find("num_experts_per_tok")) keys.miss("num_experts_per_tok");
  keys.optional("num_experts_per_tok", config.num_experts_per_token);
  keys.optional("moe_intermediate_size", config.moe_intermediate_size);
  keys.optional("n_shared_experts", config.num_shared_experts);
  keys.optional("first_k_dense_replace", config.first_k_dense_replace);
  keys.optional("moe_layer_freq", config.moe_layer_freq);
  read_sparse_layers(keys, config);
  keys.optional("n_group", config.num_groups);
  keys.optional("topk_group", config.topk_groups);
  keys.optional("norm_topk_prob", config.norm_topk_prob);
  keys.optional("routed_scaling_factor", config.routed_scaling_factor);
  read_enum(keys, "scoring_func", {{"softmax", ScoringFunction::kSoftmax}, {"sigmoid", ScoringFunction::kSigmoid}},
            config.scoring);
  read_enum(keys, "topk_method",
            {{"greedy", TopkMethod::kGreedy},
             {"gready", TopkMethod::kGreedy},  // DeepSeek's own spelling
             {"group_limited_greedy", TopkMethod::kGroupLimitedGreedy},
             {"noaux_tc", TopkMethod::kNoauxTc}},
            config.topk_method);
  if (config.topk_method == TopkMethod::kGroupLimitedGreedy && config.family == ModelFamily::kDeepseekV2) {
    int ignored = 1;  // the class has no number of groups for it
    keys.require("n_group", ignored);
    keys.require("topk_group", ignored);
  }
}

// Which layers have an indexer, by the first of three ways to say it. Each lists all layers.
std::vector<bool> read_full_layers(ModelKeys& keys, const ModelConfig& config) {
  const auto num_layers = static_cast<size_t>(config.num_layers);
  std::vector<std::string> types;
  std::string_view key = "indexer_types";
  keys.optional(key, types);
  if (const json::value* pattern = keys.find("index_topk_pattern"); pattern && types.empty()) {
    key = "index_topk_pattern";
    if (const json::string* letters = pattern->if_string()) {
      for (const char letter : *letters) types.emplace_back(1, letter);
    } else {
      keys.optional(key, types);
    }
  }
  std::vector<bool> is_full;
  for (const std::string& type : types) {
    const bool full = type == "full" || type == "F";
    if (!full && type != "shared" && type != "S") keys.refuse(key, in_double_quotes(type), "full or shared (F or S)");
    is_full.push_back(full);
  }
  if (types.empty()) {
    int frequency = 1, offset = 2;
    keys.optional("index_topk_freq", frequency);
    keys.optional("index_skip_topk_offset", offset);
    key = "index_skip_topk_offset";
    for (int layer = 0; layer < config.num_layers; layer++)
      is_full.push_back(std::max(layer - offset + 1, 0) % std::max(frequency, 1) == 0);
  }
  if (is_full.size() != num_layers)
    keys.fault(key, fmt::format("has {} entries", is_full.size()),
               fmt::format("one for each of num_hidden_layers ({})", num_layers));
  else if (!is_full.empty() && !is_full[0])
    keys.fault(key, "gives layer 0 no indexer", "such that it has one: there is none before it");
  is_full.resize(num_layers, true);
  return is_full;
}

void read_indexer(ModelKeys& keys, ModelConfig& config) {
  if (!config.indexer) {
    for (const std::string_view key : {"index_topk", "index_n_heads", "index_head_dim", "indexer_types"})
      if (const json::value* value = keys.find(key); value && !(value->is_array() && value->get_array().empty()))
        keys.fault(key, "is there, which asks for sparse attention", "absent or null in models of these architectures",
                   ErrorCode::kUnsupported);
    return;
  }
  IndexerConfig& indexer = *config.indexer;
  keys.optional("index_n_heads", indexer.num_heads);
  keys.optional("index_head_dim", indexer.head_dim);
  keys.optional("index_topk", indexer.topk);
  keys.optional("indexer_rope_interleave", indexer.interleaved_rope);
  indexer.is_full = read_full_layers(keys, config);
  if (config.q_lora_rank == 0)
    keys.fault("q_lora_rank", "is 0", "positive: the indexer's queries come from the query's latent");
  if (indexer.head_dim < config.qk_rope_head_dim)
    keys.fault("index_head_dim", fmt::format("is {}", indexer.head_dim),
               fmt::format("at least qk_rope_head_dim ({}), which is rotated of it", config.qk_rope_head_dim));
}

void check_routing(JsonKeys& keys, const ModelConfig& config) {
  if (config.num_experts == 0) return;
  const auto is = [&](std::string_view key, int value) {
    return keys.find(key) ? fmt::format("is {}", value) : fmt::format("is absent, which stands for {}", value);
  };
  if (config.num_experts_per_token > config.num_experts)
    keys.fault("num_experts_per_tok", is("num_experts_per_tok", config.num_experts_per_token),
               fmt::format("at most n_routed_experts ({})", config.num_experts));
  if (config.first_k_dense_replace > config.num_layers)
    keys.fault("first_k_dense_replace", is("first_k_dense_replace", config.first_k_dense_replace),
               fmt::format("at most num_hidden_layers ({})", config.num_layers));
  if (config.topk_method == TopkMethod::kGreedy) return;  // groups play no part
  if (config.num_experts % config.num_groups != 0)
    return keys.fault("n_group", is("n_group", config.num_groups),
                      fmt::format("a divisor of n_routed_experts ({})", config.num_experts));
  if (config.topk_groups > config.num_groups)
    keys.fault("topk_group", is("topk_group", config.topk_groups),
               fmt::format("at most n_group ({})", config.num_groups));
  const int group_size = config.num_experts / config.num_groups;
  if (config.num_experts_per_token > config.topk_groups * group_size)
    keys.fault("num_experts_per_tok", is("num_experts_per_tok", config.num_experts_per_token),
               fmt::format("at most the {} experts of topk_group ({}) groups", config.topk_groups * group_size,
                           config.topk_groups));
  if (config.topk_method == TopkMethod::kNoauxTc && config.num_groups > 1 && group_size < 2)
    keys.fault("n_group", is("n_group", config.num_groups),
               fmt::format("at most {}: noaux_tc scores a group by its two best experts", config.num_experts / 2));
}

double indexer_parameters(const ModelConfig& config) {
  if (!config.indexer) return 0;
  const double heads = config.indexer->num_heads, dim = config.indexer->head_dim, hidden = config.hidden_size;
  return heads * dim * config.q_lora_rank + (heads + dim) * hidden;
}

// Bounds of single numbers leave room for products that no machine holds, and that would overflow or fill the memory of
// a planner.
void check_size(JsonKeys& keys, const ModelConfig& config) {
  const double hidden = config.hidden_size, layers = config.num_layers, heads = config.num_heads;
  const double num_experts = layers * (config.num_experts + config.num_shared_experts);
  constexpr double kMaxExperts = 1 << 18, kMaxParameters = 1e15;
  if (num_experts > kMaxExperts)
    keys.fault("n_routed_experts", fmt::format("is {} in {} layers", config.num_experts, config.num_layers),
               fmt::format("at most {} experts in all layers together", kMaxExperts));
  const double q_rank = config.q_lora_rank > 0 ? config.q_lora_rank : hidden;
  const double attention = heads * (config.qk_head_dim() * q_rank + config.v_head_dim * hidden +
                                    (config.qk_nope_head_dim + config.v_head_dim) * double{1} * config.kv_lora_rank) +
                           hidden * (q_rank + config.kv_cache_dim()) + indexer_parameters(config);
  const double feed_forward =
      3 * hidden * (num_experts * config.moe_intermediate_size + layers * config.intermediate_size);
  const double num_parameters = layers * attention + feed_forward + 2 * hidden * config.vocab_size;
  if (num_parameters > kMaxParameters)
    keys.fault("hidden_size",
               fmt::format("is {}, which with num_hidden_layers {}, num_attention_heads {}, intermediate_size {} and "
                           "n_routed_experts {} makes {:.1e} parameters",
                           config.hidden_size, config.num_layers, config.num_heads, config.intermediate_size,
                           config.num_experts, num_parameters),
               fmt::format("such that all sizes together make at most {:.0e}", kMaxParameters));
}

// transformers' newer lists, which say again what other keys say.
void check_layer_types(JsonKeys& keys, const ModelConfig& config) {
  const auto check = [&](std::string_view key, auto is_right, std::string_view wanted) {
    std::vector<std::string> types;
    keys.optional(key, types);
    if (types.empty()) return;
    if (types.size() != static_cast<size_t>(config.num_layers))
      return keys.fault(key, fmt::format("has {} entries", types.size()),
                        fmt::format("one for each of num_hidden_layers ({})", config.num_layers));
    for (size_t layer = 0; layer < types.size(); layer++)
      if (!is_right(static_cast<int>(layer), types[layer]))
        return keys.fault(
            key, fmt::format("is {} for layer {}, which is not supported", cachalot::quoted(types[layer]), layer),
            wanted, ErrorCode::kUnsupported);
  };
  check(
      "layer_types",
      [&](int, const std::string& type) {
        return config.indexer ? type == "deepseek_sparse_attention" : type == "full_attention" || type == "attention";
      },
      config.indexer ? "deepseek_sparse_attention in every layer" : "full_attention in every layer");
  check(
      "mlp_layer_types",
      [&](int layer, const std::string& type) { return type == (config.is_moe_layer(layer) ? "sparse" : "dense"); },
      config.num_experts == 0 ? "dense, since there are no experts" : "dense or sparse");
}

// A number or a list of numbers; -1 stands for "none" in some files. Of a model of several parts, the whole may say it.
void read_token_ids(JsonKeys& keys, JsonKeys& outer, ModelConfig& config) {
  std::vector<int> bos;
  const auto read = [&](std::string_view key, std::vector<int>& ids) {
    (keys.find(key) ? keys : outer).optional_ids(key, ids, config.vocab_size);
  };
  read("bos_token_id", bos);
  if (!bos.empty()) config.bos_token_id = bos.front();
  read("eos_token_id", config.eos_token_ids);
}

void refuse_variants(ModelKeys& keys) {
  keys.require_word("hidden_act", "silu", "silu");
  bool uses_window = true;  // as Qwen's files say that theirs is off
  keys.optional("use_sliding_window", uses_window);
  if (const json::value* window = keys.find("sliding_window"); window && uses_window)
    keys.fault("sliding_window",
               fmt::format("is {}, which is not supported: it asks for attention within a window", shown(*window)),
               "absent or null", ErrorCode::kUnsupported);
}

// The object of the language model's keys.
Result<const json::object*> model_part(ModelKeys& outer, const json::object& root, const Family& family) {
  if (!family.is_part) return &root;
  const json::object* part = outer.object("text_config");
  if (!outer.find("text_config")) outer.miss("text_config");
  RETURN_IF_ERROR(outer.status());
  return part;
}

// Whose quantization_config counts. The part's own goes first.
ModelKeys& quantized_part(ModelKeys& keys, ModelKeys& outer, ModelConfig& config) {
  constexpr const char* kKey = "quantization_config";
  if (!keys.says(kKey)) return outer;
  if (outer.says(kKey) && *outer.find(kKey) != *keys.find(kKey))
    config.notes.push_back(fmt::format("{} goes before {}, which says otherwise", keys.full_name(kKey), kKey));
  return keys;
}

// Of a part, what else it says it is must be a DeepSeek V3.
void check_part(JsonKeys& keys) {
  std::vector<std::string> names;
  keys.optional("architectures", names);
  if (!names.empty() && names != std::vector<std::string>{"DeepseekV3ForCausalLM"})
    keys.refuse("architectures", in_double_quotes(names[0]), "DeepseekV3ForCausalLM");
}

}  // namespace

Result<ModelConfig> parse_model_config(const std::string& text, const std::string& path) {
  ASSIGN_OR_RETURN(const json::object root, parse_json_object(text, path));
  ModelKeys outer(root, path, {}, "parts");
  ASSIGN_OR_RETURN(const Family* family, read_family(outer));
  ASSIGN_OR_RETURN(const json::object* part, model_part(outer, root, *family));
  ModelKeys keys = family->is_part ? outer.nested("text_config", *part, "") : ModelKeys(root, path);
  ModelConfig config = family->defaults;
  std::vector<std::string> unknown, unknown_of_rope;
  if (family->is_part) {
    outer.check(unknown);
    check_part(keys);
  }
  keys.check(unknown);
  RETURN_IF_ERROR(keys.status());  // before what is missing: a key of another kind of model explains that
  refuse_variants(keys);
  read_shape(keys, config);
  read_experts(keys, config);
  read_indexer(keys, config);
  RETURN_IF_ERROR(keys.status());
  check_routing(keys, config);
  check_size(keys, config);
  check_layer_types(keys, config);
  check_model_type(outer, *family, config);
  read_token_ids(keys, outer, config);
  RETURN_IF_ERROR(keys.status());
  RETURN_IF_ERROR(read_rope(keys, config, unknown_of_rope));
  RETURN_IF_ERROR(read_quantization(quantized_part(keys, outer, config), config.quantization, unknown));
  RETURN_IF_ERROR(keys.status());
  RETURN_IF_ERROR(outer.status());
  std::ranges::copy(unknown_of_rope, std::back_inserter(unknown));
  if (!unknown.empty())
    config.notes.push_back(fmt::format("{} of its keys {} not known here and {} left out of account: {}",
                                       unknown.size(), unknown.size() == 1 ? "is" : "are",
                                       unknown.size() == 1 ? "is" : "are", listed(unknown, 12)));
  for (std::string& note : config.notes) note.insert(0, path + ": ");
  return config;
}

Result<ModelConfig> load_model_config(const std::string& model_folder) {
  RETURN_IF_ERROR(check_model_folder(model_folder));
  const std::string path = model_folder + "/config.json";
  ASSIGN_OR_RETURN(const std::string text, read_file(path));
  return parse_model_config(text, path);
}

}  // namespace cachalot
