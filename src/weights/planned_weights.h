#pragma once

#include <string>

#include "config/model_config.h"
#include "weights/quant_target.h"
#include "weights/weight_catalog.h"

namespace cachalot {

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
