#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "config/model_config.h"
#include "kernels/matrix.h"
#include "weights/checkpoint.h"
#include "weights/weight_catalog.h"

namespace cachalot {

// A model's folder: config.json and the mapped tensors that follow from it. Opening checks that every tensor is there,
// with the right dtype and shape, and that none is there that has no place in the model; numbers are checked when they
// are asked for. Sources and references borrow from this object. Reading is thread-safe.
class ModelFiles : public WeightCatalog {
 public:
  static Result<ModelFiles> open(const std::string& folder);

  const ModelConfig& config() const { return config_; }
  const Checkpoint& checkpoint() const { return checkpoint_; }
  const std::string& name() const override { return checkpoint_.folder(); }
  // MTP layers of which the folder has every tensor (0..config().num_nextn_predict_layers).
  int num_mtp_layers() const { return num_mtp_layers_; }
  // Lines to tell whoever starts it: what the folder holds and is left out.
  const std::vector<std::string>& notes() const { return notes_; }

  Result<WeightSource> linear(std::string_view prefix, int64_t out_features, int64_t in_features) const override;
  Result<WeightSource> head() const override;
  Result<std::vector<float>> vector(std::string_view name, int64_t size) const override;
  Result<TensorRef> embedding() const override;

  Error not_finite(std::string_view name, size_t index) const override;

  // Advice: read the pages of a source's window ahead.
  void prefetch(const WeightSource& source) const;
  Status fetch_pages(const WeightSource& source) const override;
  void drop_pages(const WeightSource& source) const override;

  // Hash (32 hex digits) over config.json, the files' sizes and headers, and samples of their data: ranks compare it,
  // so that a group never runs on different models. Reads a few MB however large the model is.
  Result<std::string> fingerprint() const;

 private:
  ModelFiles(ModelConfig config, Checkpoint checkpoint)
      : config_(std::move(config)), checkpoint_(std::move(checkpoint)) {}
  Status check_tensors();
  Result<TensorRef> floats(std::string_view name, std::span<const int64_t> shape) const;

  ModelConfig config_;
  Checkpoint checkpoint_;
  int num_mtp_layers_ = 0;
  std::vector<std::string> notes_;
};

}  // namespace cachalot
