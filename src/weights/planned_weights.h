#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "config/model_config.h"
#include "weights/safetensors.h"
#include "weights/weight_catalog.h"

namespace cachalot {

inline constexpr int64_t kFp8Block = 128;  // rows and columns that share a scale

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

// The weights that a checkpoint of this config would have, stored as `target` says: every linear that the format is for
// and fits, unless config.quantization.modules_to_not_convert names it; all else in bf16. For planning: there is no
// data behind them.
class PlannedWeights : public WeightCatalog {
 public:
  // `name` is for errors: the config.json.
  PlannedWeights(ModelConfig config, QuantTarget target, std::string name)
      : config_(std::move(config)), target_(target), name_(std::move(name)) {}

  const ModelConfig& config() const { return config_; }
  const QuantTarget& target() const { return target_; }
  const std::string& name() const override { return name_; }
  Result<WeightSource> linear(std::string_view prefix, int64_t out_features, int64_t in_features) const override;
  Result<WeightSource> head() const override;
  Result<std::vector<float>> vector(std::string_view name, int64_t size) const override;
  Result<TensorRef> embedding() const override;
  Error not_finite(std::string_view, size_t) const override { return {}; }
  void drop_pages(const WeightSource&) const override {}

  // Of the tensors in the checkpoint's files, its multi-token-prediction layers included.
  uint64_t file_bytes() const;

 private:
  bool is_quantized(const ModelTensor& tensor) const;

  ModelConfig config_;
  QuantTarget target_;
  std::string name_;
};

// The target that gives the format that a config.json's quantization_config names.
QuantTarget target_of(const QuantizationConfig& quantization);

}  // namespace cachalot
