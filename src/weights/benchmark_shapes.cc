#include "weights/synth.h"

namespace cachalot {
namespace {

constexpr const char* kLite = R"({
  "architectures": ["DeepseekV3ForCausalLM"],
  "model_type": "deepseek_v3",
  "vocab_size": 32768,
  "hidden_size": 2048,
  "num_hidden_layers": 27,
  "num_attention_heads": 16,
  "num_key_value_heads": 16,
  "q_lora_rank": null,
  "kv_lora_rank": 512,
  "qk_nope_head_dim": 128,
  "qk_rope_head_dim": 64,
  "v_head_dim": 128,
  "intermediate_size": 11264,
  "moe_intermediate_size": 1408,
  "first_k_dense_replace": 1,
  "moe_layer_freq": 1,
  "n_routed_experts": 64,
  "n_shared_experts": 2,
  "num_experts_per_tok": 6,
  "n_group": 1,
  "topk_group": 1,
  "scoring_func": "sigmoid",
  "topk_method": "noaux_tc",
  "norm_topk_prob": true,
  "routed_scaling_factor": 2.446,
  "max_position_embeddings": 8192,
  "rms_norm_eps": 1e-05,
  "rope_theta": 50000.0,
  "hidden_act": "silu",
  "bos_token_id": 0,
  "eos_token_id": 1,
  "tie_word_embeddings": false,
  "torch_dtype": "bfloat16"
})";

constexpr const char* kR1Slice = R"({
  "architectures": ["DeepseekV3ForCausalLM"],
  "model_type": "deepseek_v3",
  "vocab_size": 4096,
  "hidden_size": 7168,
  "num_hidden_layers": 2,
  "num_attention_heads": 128,
  "num_key_value_heads": 128,
  "q_lora_rank": 1536,
  "kv_lora_rank": 512,
  "qk_nope_head_dim": 128,
  "qk_rope_head_dim": 64,
  "v_head_dim": 128,
  "intermediate_size": 18432,
  "moe_intermediate_size": 2048,
  "first_k_dense_replace": 1,
  "moe_layer_freq": 1,
  "n_routed_experts": 256,
  "n_shared_experts": 1,
  "num_experts_per_tok": 8,
  "n_group": 8,
  "topk_group": 4,
  "scoring_func": "sigmoid",
  "topk_method": "noaux_tc",
  "norm_topk_prob": true,
  "routed_scaling_factor": 2.5,
  "max_position_embeddings": 163840,
  "rope_scaling": {
    "type": "yarn",
    "factor": 40,
    "original_max_position_embeddings": 4096,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 1.0,
    "mscale_all_dim": 1.0
  },
  "rms_norm_eps": 1e-06,
  "rope_theta": 10000,
  "hidden_act": "silu",
  "bos_token_id": 0,
  "eos_token_id": 1,
  "tie_word_embeddings": false,
  "torch_dtype": "bfloat16"
})";

}  // namespace

const char* benchmark_config(std::string_view shape) {
  return shape == "lite" ? kLite : shape == "r1slice" ? kR1Slice : nullptr;
}

}  // namespace cachalot
