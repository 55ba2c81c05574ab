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
  std::string_view names;  // between spaces
  Use use;
  double min = 0, max = 0;
  std::string_view neutral = "null", meaning = "";
};

// Far above any model of the family, and low enough that no plan overflows (model_config.cc bounds their product).
constexpr double kMaxWidth = 1 << 20, kMaxHeads = 4096, kMaxHeadDim = 1 << 16, kMaxLayers = 4096,
                 kMaxExperts = (1 << 16) - 1, kMaxPosition = 1 << 26;

constexpr ModelKey whole(std::string_view names, double min, double max) {
  return {names, Use::kWhole, min, max};
}
constexpr ModelKey number(std::string_view names, double min, double max) {
  return {names, Use::kNumber, min, max};
}
constexpr ModelKey read(std::string_view names) {
  return {names, Use::kRead};
}
constexpr ModelKey noted(std::string_view names) {
  return {names, Use::kNoted};
}
// "it asks for MEANING"
constexpr ModelKey neutral(std::string_view names, std::string_view value, std::string_view meaning) {
  return {names, Use::kNeutral, 0, 0, value, meaning};
}

constexpr ModelKey kFileKeys[] = {
    // Shape.
    whole("vocab_size", 1, kMaxVocabSize),
    whole("hidden_size kv_lora_rank intermediate_size", 1, kMaxWidth),
    whole("q_lora_rank", 0, kMaxWidth),
    whole("num_hidden_layers", 1, kMaxLayers),
    whole("num_attention_heads", 1, kMaxHeads),
    whole("qk_nope_head_dim v_head_dim", 1, kMaxHeadDim),
    whole("qk_rope_head_dim", 2, kMaxHeadDim),
    whole("max_position_embeddings original_max_position_embeddings", 1, kMaxPosition),
    whole("num_nextn_predict_layers num_mtp_layers", 0, 64),  // transformers' other name of it
    number("rms_norm_eps", 1e-12, 1e-1),
    // Experts.
    whole("n_routed_experts num_experts num_local_experts", 0, kMaxExperts),  // transformers' other names of it
    whole("num_experts_per_tok n_group topk_group", 1, kMaxExperts),
    whole("moe_intermediate_size", 1, kMaxWidth),
    whole("n_shared_experts", 0, 1024),
    whole("first_k_dense_replace", 0, kMaxLayers),
    whole("moe_layer_freq", 1, kMaxLayers),
    number("routed_scaling_factor", 1e-6, 1e6),
    // The indexer of sparse attention.
    whole("index_n_heads", 1, kMaxHeads),
    whole("index_head_dim", 2, kMaxHeadDim),
    whole("index_topk", 1, kMaxPosition),
    whole("index_topk_freq index_skip_topk_offset", 0, kMaxLayers),
    // Positions; rope_scaling and rope_parameters are tables of their own.
    number("rope_theta", 2, 1e12),
    // Words, lists, objects; model_config.cc says which.
    read("architectures model_type bos_token_id eos_token_id tie_word_embeddings norm_topk_prob scoring_func "
         "topk_method rope_scaling rope_parameters quantization_config mlp_layer_types layer_types sliding_window "
         "use_sliding_window hidden_act indexer_types index_topk_pattern indexer_rope_interleave"),
    // Other mathematics.
    neutral("attention_bias", "false", "biases in attention"),
    neutral("mlp_bias", "false", "biases in the feed-forward layers"),
    neutral("use_bias", "false", "biases"),
    neutral("qkv_bias", "false", "biases in attention"),
    neutral("lm_head_bias", "false", "a bias of the output head"),
    neutral("attn_output_gate", "false", "a gate behind attention"),
    neutral("use_qk_norm qk_norm qk_layernorm", "false", "norms of queries and keys"),
    neutral("use_mla", "true", "attention without a latent"),
    neutral("rope_interleave", "true", "a rotation of halves"),
    neutral("partial_rotary_factor", "1", "a rotation of a part"),
    neutral("pretraining_tp", "1", "sums in another order"),
    neutral("compress_ratios compress_rope_theta", "null", "compressed attention (DeepSeek V4)"),
    neutral("num_hash_layers", "0", "routing by hashes (DeepSeek V4)"),
    neutral("hc_mult hc_eps hc_sinkhorn_iters", "null", "hyper-connections (DeepSeek V4)"),
    neutral("o_lora_rank", "null", "a low-rank output projection (DeepSeek V4)"),
    neutral("o_groups", "null", "a grouped output projection (DeepSeek V4)"),
    neutral("expert_dtype", "null", "experts of another number format"),
    neutral("swiglu_limit", "null", "a bound of the activations"),
    neutral("swiglu_alpha", "null", "another activation"),
    neutral("attention_chunk_size", "null", "attention within chunks"),
    neutral("no_rope_layers no_rope_layer_interval", "null", "layers without positions"),
    neutral("linear_attn_config full_attention_interval", "null", "linear attention"),
    neutral("attn_logit_softcapping", "null", "bounded attention scores"),
    neutral("final_logit_softcapping", "null", "bounded logits"),
    neutral("logit_scale logits_scaling", "1", "scaled logits"),
    neutral("embedding_multiplier scale_emb", "1", "scaled embeddings"),
    neutral("residual_multiplier", "1", "scaled layers"),
    neutral("scale_depth", "null", "scaled layers"),
    neutral("attention_multiplier query_pre_attn_scalar", "null", "another scale of attention"),
    neutral("llama_4_scaling", "null", "queries scaled by position"),
    neutral("attn_temperature_tuning", "false", "queries scaled by position"),
    neutral("sinks", "null", "attention sinks"),
    neutral("add_swa_attention_sink_bias", "false", "attention sinks"),
    neutral("zero_expert_num", "0", "experts that do nothing (LongCat)"),
    neutral("zero_expert_type", "null", "experts that do nothing (LongCat)"),
    neutral("shared_expert_intermediate_size moe_shared_expert_intermediate_size", "null",
            "shared experts of another width"),
    neutral("latent_size moe_latent_size", "null", "experts on a latent"),
    neutral("router_bias", "false", "a bias of the router"),
    neutral("decoder_sparse_step", "1", "experts in some layers only; moe_layer_freq says that here"),
    neutral("mlp_only_layers", "null", "layers without experts; first_k_dense_replace says that here"),
    neutral("per_layer_config block_configs", "null", "layers of different shapes"),
    neutral("text_config", "null", "a model of several parts"),
    neutral("vision_config", "null", "images"),
    neutral("audio_config", "null", "sound"),
    neutral("compression_config", "null", "a format of weights that is not read"),
    neutral("kv_cache_scheme", "null", "a quantized cache"),
    neutral("is_encoder_decoder add_cross_attention", "false", "an encoder"),
    neutral("chunk_size_feed_forward", "0", "feed-forward layers in chunks"),
    neutral("num_labels problem_type", "null", "a classifier"),
    // Of no consequence.
    noted("index_share_for_mtp_iteration _name_or_path _attn_implementation _attn_implementation_autoset "
          "attention_dropout attn_implementation "
          "auto_map aux_loss_alpha aux_loss_weight dtype embd_pdrop ep_size gradient_checkpointing head_dim "
          "hidden_dropout id2label initializer_range is_decoder label2id max_window_layers mtp_loss_scaling_factor "
          "model_max_length moe_router_dtype n_embd num_key_value_heads output_attentions output_hidden_states "
          "output_router_logits pad_token_id q_head_dim qk_head_dim return_dict router_aux_loss_coef "
          "router_jitter_noise router_z_loss_coef seq_aux sep_token_id task_specific_params torch_dtype "
          "transformers.js_config transformers_version unk_token_id unsloth_fixed unsloth_version use_cache"),
    // Of generation, which older files of transformers write into every part's configuration.
    noted("bad_words_ids begin_suppress_tokens cross_attention_hidden_size decoder_start_token_id diversity_penalty "
          "do_sample early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty finetuning_task "
          "forced_bos_token_id forced_eos_token_id length_penalty max_length min_length no_repeat_ngram_size "
          "num_beam_groups num_beams num_return_sequences output_scores prefix pruned_heads remove_invalid_values "
          "repetition_penalty return_dict_in_generate suppress_tokens temperature tf_legacy_loss "
          "tie_encoder_decoder tokenizer_class top_k top_p torchscript typical_p use_bfloat16"),
};

// Of the whole, where the language model is a part of it.
constexpr ModelKey kPartsKeys[] = {
    read("architectures model_type text_config bos_token_id eos_token_id quantization_config"),
    neutral("tie_word_embeddings", "false", "one table for embedding and head"),
    noted("auto_map dtype ignore_index media_placeholder_token_id pad_token_id torch_dtype transformers_version "
          "use_unified_vision_chunk video_placeholder vision_config"),
};

constexpr ModelKey kRopeKeys[] = {
    read("type rope_type"),
    number("rope_theta", 2, 1e12),
    number("factor", 1, 1e6),
    whole("original_max_position_embeddings", 1, kMaxPosition),
    number("beta_fast beta_slow", 1e-3, 1e6),
    number("mscale mscale_all_dim", 0, 100),
    neutral("attention_factor", "null", "another scale of attention (mscale and mscale_all_dim say it)"),
    neutral("partial_rotary_factor", "1", "a rotation of a part"),
    neutral("truncate", "true", "a cut of the frequencies that is not rounded"),
    neutral("attn_factor", "1", "another scale of attention"),
    neutral("extrapolation_factor", "1", "other frequencies"),
    neutral("mrope_section mrope_interleaved", "null", "positions in several dimensions"),
    neutral("short_factor long_factor low_freq_factor high_freq_factor alpha", "null", "other frequencies"),
    neutral("llama_4_scaling_beta", "null", "queries scaled by position"),
    noted("finetuned"),
};

constexpr ModelKey kQuantizationKeys[] = {
    read("quant_method"),
    // fp8
    read("fmt activation_scheme weight_block_size"),
    noted("scale_fmt"),  // "ue8m0": the scales are powers of two, in the same float32
    noted("is_checkpoint_fp8_serialized ignored_layers"),
    // awq
    whole("w_bit bits", 1, 16),
    whole("q_group_size group_size", 1, kMaxWidth),
    read("version zero_point modules_to_not_convert"),
    neutral("desc_act", "false", "inputs in another order"),
    // compressed-tensors
    read("config_groups format ignore sparsity_config"),
    neutral("transform_config", "null", "transformed weights"),
    neutral("kv_cache_scheme", "null", "a quantized cache"),
    noted("backend do_fuse exllama_config fuse_max_seq_len global_compression_ratio lm_head modules_to_fuse "
          "quantization_status quantized_by run_compressed"),
};

// compressed-tensors: a group, and what it says of its weights or rows.
constexpr ModelKey kGroupKeys[] = {
    read("targets weights input_activations format"),
    neutral("output_activations", "null", "rounded results"),
};
constexpr ModelKey kNumbersKeys[] = {
    whole("num_bits", 1, 32),
    whole("group_size", -1, kMaxWidth),
    read("type symmetric strategy block_structure dynamic actorder"),
    noted("observer observer_kwargs scale_dtype zp_dtype"),
};
constexpr ModelKey kSparsityKeys[] = {read("format")};

struct Scope {
  std::string_view name;
  std::span<const ModelKey> keys;
};
constexpr Scope kScopes[] = {
    {"", kFileKeys},
    {"parts", kPartsKeys},
    {"rope_scaling", kRopeKeys},
    {"quantization_config", kQuantizationKeys},
    {"config_groups", {}},
    {"config_group", kGroupKeys},
    {"weights", kNumbersKeys},
    {"sparsity_config", kSparsityKeys},
};

const ModelKey* find_key(std::string_view scope, std::string_view name) {
  for (const Scope& known : kScopes) {
    if (known.name != scope) continue;
    for (const ModelKey& key : known.keys)
      if (has_word(key.names, name)) return &key;
  }
  return nullptr;
}

bool is_empty(const json::value& value) {
  if (value.is_array()) return value.get_array().empty();
  if (value.is_object())  // as what writes all of a class's members writes it
    return std::ranges::all_of(value.get_object(), [](const auto& member) { return is_empty(member.value()); });
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

std::string in_double_quotes(const std::string& word) {
  return '"' + escaped(word, 60) + '"';
}

void ModelKeys::require_word(std::string_view key, std::string word, std::string_view wanted) {
  optional(key, word);
  std::ranges::transform(word, word.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (word != wanted) refuse(key, in_double_quotes(word), wanted);
}

bool ModelKeys::says(std::string_view key) const {
  const json::value* value = find(key);
  return value && !is_empty(*value);
}

ModelKeys::Range ModelKeys::range(std::string_view name) const {
  const ModelKey* key = find_key(scope_, name);
  CHECK(key && (key->use == Use::kWhole || key->use == Use::kNumber), "{} is in no table of model keys", name);
  return {key->min, key->max};
}

void ModelKeys::check(std::vector<std::string>& unknown) {
  for (const auto& [name, value] : object()) {
    const ModelKey* key = find_key(scope_, name);
    int whole = 0;  // whether it is read or not, its range is checked
    double number = 0;
    if (!key)
      unknown.push_back(full_name(name));
    else if (key->use == Use::kNeutral && !is_neutral(value, key->neutral))
      fault(name, fmt::format("is {}, which is not supported: it asks for {}", shown(value), key->meaning),
            key->neutral == "null" ? "absent or null" : key->neutral, ErrorCode::kUnsupported);
    else if (key->use == Use::kWhole)
      optional(name, whole);
    else if (key->use == Use::kNumber)
      optional(name, number);
  }
}

}  // namespace cachalot
