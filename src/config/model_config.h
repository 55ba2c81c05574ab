#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"

namespace cachalot {

enum class ModelFamily { kDeepseekV2, kDeepseekV3 };
enum class ScoringFunction { kSoftmax, kSigmoid };
enum class TopkMethod {
  kGreedy,              // V2-Lite: the top k of all
  kGroupLimitedGreedy,  // V2: first the groups with the largest maximum
  kNoauxTc,             // V3, R1: bias for the choice only; groups by the sum of their top 2
};
enum class WeightFormat {
  kPlain,  // bf16, fp16 or fp32 as the file says
  kFp8Block,
  kAwq,
  kPackedInt,  // compressed-tensors' pack-quantized
  kMxfp4,      // compressed-tensors' mxfp4-pack-quantized
};

struct YarnConfig {
  double factor = 1, beta_fast = 32, beta_slow = 1, mscale = 1, mscale_all_dim = 0;
  int original_max_position_embeddings = 4096;

  bool operator==(const YarnConfig&) const = default;
};

// How linears are stored.
struct QuantizationScheme {
  WeightFormat format = WeightFormat::kPlain;
  int bits = 4;            // kPackedInt: 4 or 8
  int group_size = 0;      // kAwq, kPackedInt, kMxfp4: inputs that share a scale; 0: all of a row
  bool zero_point = true;  // kAwq, kPackedInt
};

// What a config.json says of it. The tensors decide: lists are for plans of what is not there yet.
struct QuantizationConfig : QuantizationScheme {    // the scheme that most have
  std::vector<std::string> modules_to_not_convert;  // fp8, awq: parts of names
  // compressed-tensors: the first group whose targets name a linear is how it is stored, unless `ignore` names it.
  struct Group {
    QuantizationScheme scheme;
    std::vector<std::string> targets;  // see config/module_patterns.h
  };
  std::vector<Group> groups;
  std::vector<std::string> ignore;
};

// Sparse attention's lightning indexer (DeepSeek V3.2): it chooses the positions that a row attends to.
struct IndexerConfig {
  int num_heads = 64, head_dim = 128;
  int topk = 2048;                // positions a row attends to, at most
  bool interleaved_rope = false;  // rotated are pairs (2i, 2i + 1); else halves (i, i + qk_rope_head_dim / 2)
  // [num_layers]: whether the layer has an indexer; else it attends to what the last one before it has chosen. Layers
  // beyond, of multi-token prediction, have one.
  std::vector<bool> is_full;
};

// A checkpoint's config.json, with every variant an enum. Loading refuses by name what this program does not do.
struct ModelConfig {
  ModelFamily family = ModelFamily::kDeepseekV3;
  int vocab_size = 0, hidden_size = 0, num_layers = 0;
  int num_heads = 0;
  int q_lora_rank = 0;  // 0: one q_proj, no low rank
  int kv_lora_rank = 0, qk_nope_head_dim = 0, qk_rope_head_dim = 0, v_head_dim = 0;
  int intermediate_size = 0;      // dense layers
  int first_k_dense_replace = 0;  // the first so many layers are dense
  int moe_layer_freq = 1;
  std::vector<bool> sparse_layers;  // if not empty, in place of these two: whether a layer has experts
  int num_experts = 0;              // routed; 0: every layer is dense
  int num_shared_experts = 0, num_experts_per_token = 0, moe_intermediate_size = 0;
  int num_groups = 1, topk_groups = 1;
  ScoringFunction scoring = ScoringFunction::kSigmoid;
  TopkMethod topk_method = TopkMethod::kNoauxTc;
  bool norm_topk_prob = true;
  double routed_scaling_factor = 1;
  double rms_norm_eps = 1e-6, rope_theta = 10000;
  std::optional<YarnConfig> yarn;
  std::optional<IndexerConfig> indexer;  // none: attention is dense
  int max_position_embeddings = 0;
  int num_nextn_predict_layers = 0;  // MTP layers that the file may hold, after the num_layers
  bool tie_word_embeddings = false;
  int bos_token_id = -1;
  std::vector<int> eos_token_ids;
  std::string tensor_prefix;             // before the names of the file's tensors that are the language model's
  std::vector<std::string> other_parts;  // how the names of tensors begin that are another part's, which is not served
  QuantizationConfig quantization;
  std::vector<std::string> notes;  // lines to tell whoever starts it: keys that nothing here knows, and the like

  int qk_head_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }
  // What the cache holds of a token and layer: the latent and the rotated key.
  int kv_cache_dim() const { return kv_lora_rank + qk_rope_head_dim; }
  bool is_moe_layer(int layer) const {
    if (num_experts == 0) return false;
    if (!sparse_layers.empty()) return layer >= num_layers || sparse_layers[static_cast<size_t>(layer)];
    return layer >= first_k_dense_replace && layer % moe_layer_freq == 0;
  }
  bool has_indexer(int layer) const {
    return indexer && (layer >= num_layers || indexer->is_full[static_cast<size_t>(layer)]);
  }
};

// `path` is named in errors: of a config.json's text, and of a folder's file.
Result<ModelConfig> parse_model_config(const std::string& json, const std::string& path);
Result<ModelConfig> load_model_config(const std::string& model_folder);

}  // namespace cachalot
