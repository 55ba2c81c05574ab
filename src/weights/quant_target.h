#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "config/model_config.h"
#include "weights/model_tensors.h"
#include "weights/safetensors.h"

namespace cachalot {

// The weight format that a checkpoint is to be written in.
struct QuantTarget {
  WeightFormat format = WeightFormat::kPlain;
  int group_size = 64;         // kAwq: a multiple of 32
  bool quantize_head = false;  // kAwq, kFp8Block: the head as well, which other programs leave as it is
};
Status check_target(const QuantTarget& target);

// What the format is for: a layer's linears, and the head if asked for. Router, norms, embedding and MTP projection
// stay.
bool wants_quantization(const ModelTensor& tensor, const QuantTarget& target);
// Whether the shape allows it: AWQ needs whole groups of inputs and whole words of eight outputs.
bool fits_quantization(const ModelTensor& tensor, const QuantTarget& target);

// The tensors that hold `tensor` in the target format if it can be quantized, and plain (`plain`) otherwise.
std::vector<TensorSpec> quantized_specs(const ModelTensor& tensor, const QuantTarget& target);
TensorSpec plain_spec(const ModelTensor& tensor, DType plain);

// config.json's text with the target's quantization_config in the place of what it had; `kept` names linears that stay
// plain where the format wanted them. Everything else stays, in its order.
Result<std::string> config_for_target(const std::string& json, const std::string& path, const QuantTarget& target,
                                      const std::vector<std::string>& kept);

}  // namespace cachalot
