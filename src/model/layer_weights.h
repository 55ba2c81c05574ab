#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/matrix.h"
#include "tensor/view.h"

// One rank's share of the weights, as views into the memory that the model owns.
namespace cachalot {

// A linear layer and what it wants to be fed: int8 rows of this group, or floats (0).
struct Linear {
  PackedMatrix matrix;
  int input_group = 0;
};

struct AttentionWeights {
  View<const float, 1> input_norm;
  Linear q;  // models without q_lora_rank: [heads * qk_head_dim, hidden]
  Linear q_a;
  View<const float, 1> q_a_norm;
  Linear q_b;   // [heads * qk_head_dim, q_lora_rank]
  Linear kv_a;  // [kv_lora_rank + rope, hidden], on every TP rank
  View<const float, 1> kv_a_norm;
  Linear kv_b;                             // [heads * (nope + v), kv_lora_rank]: the expanded form
  std::vector<PackedMatrix> query_absorb;  // a head: [kv_lora_rank, nope], kv_b's keys transposed: the absorbed form
  std::vector<PackedMatrix> value_absorb;  // a head: [v, kv_lora_rank], as stored
  Linear o;                                // [hidden, heads * v]
};

struct FeedForwardWeights {
  Linear gate_up, down;
  int64_t width = 0;
};

struct MoeWeights {
  PackedMatrix router;                      // [num_experts, hidden]
  View<const float, 1> choice_bias;         // [num_experts], or empty
  std::vector<PackedMatrix> gate_up, down;  // this rank's experts
  int input_group = 0;                      // of the experts' gate_up
  int64_t width = 0;
  std::optional<FeedForwardWeights> shared;
};

struct LayerWeights {
  AttentionWeights attention;
  View<const float, 1> post_attention_norm;
  std::optional<FeedForwardWeights> dense;
  std::optional<MoeWeights> moe;
};

struct ModelWeights {
  const void* embedding = nullptr;  // [vocab_count, hidden] as the file holds it
  DType embedding_dtype = DType::kBF16;
  int64_t vocab_begin = 0, vocab_count = 0;  // this rank's slice
  std::vector<LayerWeights> layers;
  View<const float, 1> final_norm;
  Linear head;  // [vocab_count, hidden]
};

}  // namespace cachalot
