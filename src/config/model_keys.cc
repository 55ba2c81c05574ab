#include "config/model_keys.h"

#include <algorithm>
#include <cctype>
#include <span>

#include "base/error.h"
#include "base/text.h"
#include "core/types.h"

namespace cachalot {
namespace {

namespace json = boost::json;

enum class Use {
  kWhole,    // a whole number that is read, with its range
  kNumber,   // a number that is read, with its range
  kRead,     // anything else that is read
  kNoted,    // known, and of no consequence here: for training, for other programs, or said by another key
  kNeutral,  // changes the model; `neutral` is the value that does not. null, [], {} and "" change nothing either
};

struct ModelKey {
  std::string_view name;
  Use use;
  double min = 0, max = 0;
  std::string_view neutral = "null", meaning = "";
};

// Far above any model of the family, and low enough that no plan overflows (model_config.cc bounds their product).
constexpr double kMaxWidth = 1 << 20, kMaxHeads = 4096, kMaxHeadDim = 1 << 16, kMaxLayers = 4096, kMaxExperts = 1 << 16,
                 kMaxPosition = 1 << 26;

constexpr ModelKey whole(std::string_view name, double min, double max) {
  return {name, Use::kWhole, min, max};
}
constexpr ModelKey number(std::string_view name, double min, double max) {
  return {name, Use::kNumber, min, max};
}
constexpr ModelKey read(std::string_view name) {
  return {name, Use::kRead};
}
constexpr ModelKey noted(std::string_view name) {
  return {name, Use::kNoted};
}
// "it asks for MEANING"
constexpr ModelKey neutral(std::string_view name, std::string_view value, std::string_view meaning) {
  return {name, Use::kNeutral, 0, 0, value, meaning};
}

constexpr ModelKey kFileKeys[] = {
    // Shape.
    whole("vocab_size", 1, kMaxVocabSize),
    whole("hidden_size", 1, kMaxWidth),
    whole("num_hidden_layers", 1, kMaxLayers),
    whole("num_attention_heads", 1, kMaxHeads),
    whole("q_lora_rank", 0, kMaxWidth),
    whole("kv_lora_rank", 1, kMaxWidth),
    whole("qk_nope_head_dim", 1, kMaxHeadDim),
    whole("qk_rope_head_dim", 2, kMaxHeadDim),
    whole("v_head_dim", 1, kMaxHeadDim),
    whole("intermediate_size", 1, kMaxWidth),
    whole("max_position_embeddings", 1, kMaxPosition),
    whole("num_nextn_predict_layers", 0, 64),
    whole("num_mtp_layers", 0, 64),  // transformers' other name of it
    number("rms_norm_eps", 1e-12, 1e-1),
    // Experts.
    whole("n_routed_experts", 0, kMaxExperts),
    whole("num_experts", 0, kMaxExperts),        // transformers' other names of it
    whole("num_local_experts", 0, kMaxExperts),  //
    whole("num_experts_per_tok", 1, kMaxExperts),
    whole("moe_intermediate_size", 1, kMaxWidth),
    whole("n_shared_experts", 0, 1024),
    whole("first_k_dense_replace", 0, kMaxLayers),
    whole("moe_layer_freq", 1, kMaxLayers),
    whole("n_group", 1, kMaxExperts),
    whole("topk_group", 1, kMaxExperts),
    number("routed_scaling_factor", 1e-6, 1e6),
    // Positions; rope_scaling and rope_parameters are tables of their own.
    number("rope_theta", 2, 1e12),
    whole("original_max_position_embeddings", 1, kMaxPosition),
    // Words, lists, objects; model_config.cc says which.
    read("architectures"),
    read("model_type"),
    read("bos_token_id"),
    read("eos_token_id"),
    read("tie_word_embeddings"),
    read("norm_topk_prob"),
    read("scoring_func"),
    read("topk_method"),
    read("rope_scaling"),
    read("rope_parameters"),
    read("quantization_config"),
    read("mlp_layer_types"),
    read("layer_types"),
    read("sliding_window"),
    read("use_sliding_window"),
    read("hidden_act"),
    // Other mathematics.
    neutral("attention_bias", "false", "biases in attention"),
    neutral("mlp_bias", "false", "biases in the feed-forward layers"),
    neutral("use_bias", "false", "biases"),
    neutral("qkv_bias", "false", "biases in attention"),
    neutral("lm_head_bias", "false", "a bias of the output head"),
    neutral("attn_output_gate", "false", "a gate behind attention"),
    neutral("use_qk_norm", "false", "norms of queries and keys"),
    neutral("qk_norm", "false", "norms of queries and keys"),
    neutral("qk_layernorm", "false", "norms of queries and keys"),
    neutral("use_mla", "true", "attention without a latent"),
    neutral("rope_interleave", "true", "a rotation of halves"),
    neutral("partial_rotary_factor", "1", "a rotation of a part"),
    neutral("pretraining_tp", "1", "sums in another order"),
    neutral("index_topk", "null", "sparse attention (DeepSeek V3.2's indexer)"),
    neutral("index_n_heads", "null", "sparse attention (DeepSeek V3.2's indexer)"),
    neutral("index_head_dim", "null", "sparse attention (DeepSeek V3.2's indexer)"),
    neutral("index_topk_freq", "null", "sparse attention that layers share"),
    neutral("index_topk_pattern", "null", "sparse attention that layers share"),
    neutral("index_skip_topk_offset", "null", "sparse attention that layers share"),
    neutral("index_share_for_mtp_iteration", "null", "sparse attention that layers share"),
    neutral("indexer_types", "null", "sparse attention that layers share"),
    neutral("indexer_rope_interleave", "null", "sparse attention"),
    neutral("compress_ratios", "null", "compressed attention (DeepSeek V4)"),
    neutral("compress_rope_theta", "null", "compressed attention (DeepSeek V4)"),
    neutral("num_hash_layers", "0", "routing by hashes (DeepSeek V4)"),
    neutral("hc_mult", "null", "hyper-connections (DeepSeek V4)"),
    neutral("hc_eps", "null", "hyper-connections (DeepSeek V4)"),
    neutral("hc_sinkhorn_iters", "null", "hyper-connections (DeepSeek V4)"),
    neutral("o_lora_rank", "null", "a low-rank output projection (DeepSeek V4)"),
    neutral("o_groups", "null", "a grouped output projection (DeepSeek V4)"),
    neutral("expert_dtype", "null", "experts of another number format"),
    neutral("swiglu_limit", "null", "a bound of the activations"),
    neutral("swiglu_alpha", "null", "another activation"),
    neutral("attention_chunk_size", "null", "attention within chunks"),
    neutral("no_rope_layers", "null", "layers without positions"),
    neutral("no_rope_layer_interval", "null", "layers without positions"),
    neutral("linear_attn_config", "null", "linear attention"),
    neutral("full_attention_interval", "null", "linear attention"),
    neutral("attn_logit_softcapping", "null", "bounded attention scores"),
    neutral("final_logit_softcapping", "null", "bounded logits"),
    neutral("logit_scale", "1", "scaled logits"),
    neutral("logits_scaling", "1", "scaled logits"),
    neutral("embedding_multiplier", "1", "scaled embeddings"),
    neutral("scale_emb", "1", "scaled embeddings"),
    neutral("residual_multiplier", "1", "scaled layers"),
    neutral("scale_depth", "null", "scaled layers"),
    neutral("attention_multiplier", "null", "another scale of attention"),
    neutral("query_pre_attn_scalar", "null", "another scale of attention"),
    neutral("llama_4_scaling", "null", "queries scaled by position"),
    neutral("attn_temperature_tuning", "false", "queries scaled by position"),
    neutral("sinks", "null", "attention sinks"),
    neutral("add_swa_attention_sink_bias", "false", "attention sinks"),
    neutral("zero_expert_num", "0", "experts that do nothing (LongCat)"),
    neutral("zero_expert_type", "null", "experts that do nothing (LongCat)"),
    neutral("shared_expert_intermediate_size", "null", "shared experts of another width"),
    neutral("moe_shared_expert_intermediate_size", "null", "shared experts of another width"),
    neutral("latent_size", "null", "experts on a latent"),
    neutral("moe_latent_size", "null", "experts on a latent"),
    neutral("router_bias", "false", "a bias of the router"),
    neutral("decoder_sparse_step", "1", "experts in some layers only; moe_layer_freq says that here"),
    neutral("mlp_only_layers", "null", "layers without experts; first_k_dense_replace says that here"),
    neutral("per_layer_config", "null", "layers of different shapes"),
    neutral("block_configs", "null", "layers of different shapes"),
    neutral("text_config", "null", "a model of several parts"),
    neutral("vision_config", "null", "images"),
    neutral("audio_config", "null", "sound"),
    neutral("compression_config", "null", "a format of weights that is not read"),
    neutral("kv_cache_scheme", "null", "a quantized cache"),
    neutral("is_encoder_decoder", "false", "an encoder"),
    neutral("add_cross_attention", "false", "an encoder"),
    neutral("chunk_size_feed_forward", "0", "feed-forward layers in chunks"),
    neutral("num_labels", "null", "a classifier"),
    neutral("problem_type", "null", "a classifier"),
    // Of no consequence.
    noted("_name_or_path"),
    noted("_attn_implementation"),
    noted("_attn_implementation_autoset"),
    noted("attention_dropout"),
    noted("attn_implementation"),
    noted("auto_map"),
    noted("aux_loss_alpha"),
    noted("aux_loss_weight"),
    noted("dtype"),
    noted("embd_pdrop"),
    noted("ep_size"),
    noted("gradient_checkpointing"),
    noted("head_dim"),
    noted("hidden_dropout"),
    noted("id2label"),
    noted("initializer_range"),
    noted("is_decoder"),
    noted("label2id"),
    noted("max_window_layers"),
    noted("mtp_loss_scaling_factor"),
    noted("model_max_length"),
    noted("moe_router_dtype"),
    noted("n_embd"),
    noted("num_key_value_heads"),
    noted("output_attentions"),
    noted("output_hidden_states"),
    noted("output_router_logits"),
    noted("pad_token_id"),
    noted("q_head_dim"),
    noted("qk_head_dim"),
    noted("return_dict"),
    noted("router_aux_loss_coef"),
    noted("router_jitter_noise"),
    noted("router_z_loss_coef"),
    noted("seq_aux"),
    noted("sep_token_id"),
    noted("task_specific_params"),
    noted("torch_dtype"),
    noted("transformers.js_config"),
    noted("transformers_version"),
    noted("unk_token_id"),
    noted("unsloth_fixed"),
    noted("unsloth_version"),
    noted("use_cache"),
};

constexpr ModelKey kRopeKeys[] = {
    read("type"),
    read("rope_type"),
    number("rope_theta", 2, 1e12),
    number("factor", 1, 1e6),
    whole("original_max_position_embeddings", 1, kMaxPosition),
    number("beta_fast", 1e-3, 1e6),
    number("beta_slow", 1e-3, 1e6),
    number("mscale", 0, 100),
    number("mscale_all_dim", 0, 100),
    neutral("attention_factor", "null", "another scale of attention (mscale and mscale_all_dim say it)"),
    neutral("partial_rotary_factor", "1", "a rotation of a part"),
    neutral("truncate", "true", "a cut of the frequencies that is not rounded"),
    neutral("attn_factor", "1", "another scale of attention"),
    neutral("extrapolation_factor", "1", "other frequencies"),
    neutral("mrope_section", "null", "positions in several dimensions"),
    neutral("mrope_interleaved", "null", "positions in several dimensions"),
    neutral("short_factor", "null", "other frequencies"),
    neutral("long_factor", "null", "other frequencies"),
    neutral("low_freq_factor", "null", "other frequencies"),
    neutral("high_freq_factor", "null", "other frequencies"),
    neutral("alpha", "null", "other frequencies"),
    neutral("llama_4_scaling_beta", "null", "queries scaled by position"),
    noted("finetuned"),
};

constexpr ModelKey kQuantizationKeys[] = {
    read("quant_method"),
    // fp8
    read("fmt"),
    read("activation_scheme"),
    read("weight_block_size"),
    noted("scale_fmt"),  // "ue8m0": the scales are powers of two, in the same float32
    noted("is_checkpoint_fp8_serialized"),
    noted("ignored_layers"),
    // awq
    whole("w_bit", 1, 16),
    whole("bits", 1, 16),
    read("version"),
    whole("q_group_size", 1, kMaxWidth),
    whole("group_size", 1, kMaxWidth),
    read("zero_point"),
    read("modules_to_not_convert"),
    neutral("desc_act", "false", "inputs in another order"),
    neutral("kv_cache_scheme", "null", "a quantized cache"),
    neutral("sparsity_config", "null", "sparse weights"),
    noted("backend"),
    noted("do_fuse"),
    noted("exllama_config"),
    noted("fuse_max_seq_len"),
    noted("lm_head"),
    noted("modules_to_fuse"),
    noted("quantization_status"),
    noted("quantized_by"),
};

std::span<const ModelKey> table_of(std::string_view scope) {
  if (scope.starts_with("rope_")) return kRopeKeys;
  if (scope == "quantization_config") return kQuantizationKeys;
  CHECK(scope.empty());
  return kFileKeys;
}

const ModelKey* find_key(std::string_view scope, std::string_view name) {
  for (const ModelKey& key : table_of(scope))
    if (key.name == name) return &key;
  return nullptr;
}

const ModelKey& number_key(std::string_view scope, std::string_view name) {
  const ModelKey* key = find_key(scope, name);
  CHECK(key && (key->use == Use::kWhole || key->use == Use::kNumber), "{} is in no table of model keys", name);
  return *key;
}

bool is_empty(const json::value& value) {
  if (value.is_array()) return value.get_array().empty();
  if (value.is_object()) return value.get_object().empty();
  return value.is_null() || (value.is_string() && value.get_string().empty());
}

bool is_neutral(const json::value& value, std::string_view neutral) {
  if (is_empty(value)) return true;
  if (neutral == "null") return value.is_bool() && !value.get_bool();
  const json::value wanted = json::parse(neutral);
  if (value.is_number() && wanted.is_number()) return value.to_number<double>() == wanted.to_number<double>();
  return value == wanted;
}

}  // namespace

void ModelKeys::require(std::string_view name, int& field) {
  const ModelKey& key = number_key(scope_, name);
  keys_.require(name, field, static_cast<int64_t>(key.min), static_cast<int64_t>(key.max));
}
void ModelKeys::require(std::string_view name, double& field) {
  const ModelKey& key = number_key(scope_, name);
  keys_.require(name, field, key.min, key.max);
}
void ModelKeys::optional(std::string_view name, int& field) {
  const ModelKey& key = number_key(scope_, name);
  keys_.optional(name, field, static_cast<int64_t>(key.min), static_cast<int64_t>(key.max));
}
void ModelKeys::optional(std::string_view name, double& field) {
  const ModelKey& key = number_key(scope_, name);
  keys_.optional(name, field, key.min, key.max);
}

void check_model_keys(JsonKeys& keys, const json::object& object, std::string_view scope,
                      std::vector<std::string>& unknown) {
  for (const auto& [name, value] : object) {
    const ModelKey* key = find_key(scope, name);
    if (!key) {
      unknown.push_back(scope.empty() ? std::string(name) : fmt::format("{}.{}", scope, std::string_view(name)));
    } else if (key->use == Use::kNeutral && !is_neutral(value, key->neutral)) {
      keys.fault(name, fmt::format("is {}, which is not supported: it asks for {}", shown(value), key->meaning),
                 key->neutral == "null" ? "absent or null" : key->neutral, ErrorCode::kUnsupported);
    } else if (key->use == Use::kWhole || key->use == Use::kNumber) {
      double ignored = key->min;  // whether it is read or not, its range is checked
      int64_t min = static_cast<int64_t>(key->min), max = static_cast<int64_t>(key->max);
      int ignored_whole = static_cast<int>(min);
      if (key->use == Use::kWhole) keys.optional(name, ignored_whole, min, max);
      if (key->use == Use::kNumber) keys.optional(name, ignored, key->min, key->max);
    }
  }
}

}  // namespace cachalot
