#include "weights/weight_catalog.h"

#include <fmt/format.h>

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

}  // namespace cachalot
