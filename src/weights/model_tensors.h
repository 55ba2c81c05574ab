#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/model_config.h"

namespace cachalot {

// What a tensor is for. It decides what quantization may touch and how random weights are drawn.
enum class TensorRole {
  kLinear,         // any projection of a layer; may be quantized
  kRouter,         // mlp.gate: stays as stored
  kRouterBias,     // e_score_correction_bias
  kMtpProjection,  // eh_proj: stays as stored
  kHead,           // lm_head: stays as stored, unless asked for
  kEmbedding,
  kNorm,
};

// One entry of a checkpoint. Linears (kLinear, kRouter, kMtpProjection, kHead) may lie in several tensors (".weight",
// or
// ".qweight" and its companions), so theirs is the name without that ending; of the others it is the tensor's own.
struct ModelTensor {
  std::string name;
  TensorRole role = TensorRole::kLinear;
  int64_t rows = 0, cols = 1;  // outputs x inputs; vocabulary x hidden; size x 1

  bool is_linear() const {
    return role == TensorRole::kLinear || role == TensorRole::kRouter || role == TensorRole::kMtpProjection ||
           role == TensorRole::kHead;
  }
};

// HuggingFace's name of a layer's part: "model.layers.3.mlp.gate".
std::string layer_name(int layer, std::string_view part);
std::string expert_name(int layer, int expert, std::string_view projection);

// What the model needs, in the order of its computation.
std::vector<ModelTensor> model_tensors(const ModelConfig& config);
// One multi-token-prediction layer, `layer` >= num_layers: a layer like the others, and its own projections and tables.
std::vector<ModelTensor> mtp_tensors(const ModelConfig& config, int layer);

}  // namespace cachalot
