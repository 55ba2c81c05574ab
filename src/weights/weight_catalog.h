#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "config/model_config.h"
#include "config/module_patterns.h"
#include "kernels/matrix.h"
#include "weights/safetensors.h"

namespace cachalot {

// What a tensor is for. It decides what quantization may touch and how random weights are drawn.
enum class TensorRole {
  kLinear,         // any projection of a layer; may be quantized
  kIndexer,        // the indexer's wq_b and wk: not to four bits, which would change what rows attend to
  kRouter,         // mlp.gate, and the indexer's weights_proj: stay as stored
  kBias,           // e_score_correction_bias, and of the indexer's norm
  kMtpProjection,  // eh_proj: stays as stored
  kHead,           // lm_head: stays as stored, unless asked for
  kEmbedding,
  kNorm,
};

// One entry of a checkpoint. Linears (kLinear, kIndexer, kRouter, kMtpProjection, kHead) may lie in several tensors
// (".weight", or ".qweight" and its companions), so theirs is the name without that ending; of the others it is the
// tensor's own.
struct ModelTensor {
  std::string name;
  TensorRole role = TensorRole::kLinear;
  int64_t rows = 0, cols = 1;  // outputs x inputs; vocabulary x hidden; size x 1

  bool is_linear() const {
    return role == TensorRole::kLinear || role == TensorRole::kIndexer || role == TensorRole::kRouter ||
           role == TensorRole::kMtpProjection || role == TensorRole::kHead;
  }
  std::string plain_name() const { return is_linear() ? name + ".weight" : name; }  // where nothing is quantized
};

// HuggingFace's name of a layer's part: "model.layers.3.mlp.gate".
std::string layer_name(int layer, std::string_view part);

// What the model needs, in the order of its computation; then its first multi-token-prediction layers.
std::vector<ModelTensor> model_tensors(const ModelConfig& config, int num_mtp_layers = 0);
// One multi-token-prediction layer, `layer` >= num_layers: a layer like the others, and its own projections and tables.
std::vector<ModelTensor> mtp_tensors(const ModelConfig& config, int layer);

// A model's weights as a loader asks for them: a folder's (ModelFiles), or, to plan with, those that a config.json
// implies (PlannedWeights), which have shapes and no data.
class WeightCatalog {
 public:
  virtual ~WeightCatalog() = default;

  virtual const std::string& name() const = 0;  // for errors: the folder or file

  // A linear layer by its name without ".weight", e.g. "model.layers.0.self_attn.o_proj". The window is the whole
  // weight; the caller narrows it.
  virtual Result<WeightSource> linear(std::string_view prefix, int64_t out_features, int64_t in_features) const = 0;
  // The output head; the embedding where they are tied.
  virtual Result<WeightSource> head() const = 0;
  // A norm's weight or a bias, e.g. "model.norm.weight", as floats.
  virtual Result<std::vector<float>> vector(std::string_view name, int64_t size) const = 0;
  virtual Result<TensorRef> embedding() const = 0;

  // An error that names file, tensor and element, after one of a linear's or table's numbers was found not to be
  // finite: element `index` of the tensor `name` (".weight" may be left out).
  virtual Error not_finite(std::string_view name, size_t index) const = 0;

  // Reads the pages of a source's window in. The error: they cannot be read (any more), which the process would not
  // outlive if it found that out by touching them.
  virtual Status fetch_pages(const WeightSource&) const { return {}; }
  // Advice: the pages of a source's window are not needed again.
  virtual void drop_pages(const WeightSource& source) const = 0;
};

inline constexpr int64_t kFp8Block = 128;  // rows and columns that share a scale

// The weight format that a checkpoint is to be written in.
struct QuantTarget {
  WeightFormat format = WeightFormat::kPlain;
  int group_size = 64;         // kAwq, kPackedInt: a multiple of 32; kPackedInt: 0 is all of a row
  bool quantize_head = false;  // the head as well, which other programs leave as it is
  int bits = 4;                // kPackedInt: 4 or 8
  bool zero_point = false;     // kPackedInt

  bool operator==(const QuantTarget&) const = default;
};
Status check_target(const QuantTarget& target);
int usual_group_size(WeightFormat format);  // as published models have it

// What the format is for: a layer's linears, and the head if asked for. Router, norms, embedding and MTP projection
// stay.
bool wants_quantization(const ModelTensor& tensor, const QuantTarget& target);
// Whether the shape allows it: int4 and MXFP4 need whole groups of inputs, AWQ also whole words of eight outputs.
bool fits_quantization(const ModelTensor& tensor, const QuantTarget& target);

// The tensors that hold `tensor` in the target format if it can be quantized, and plain (`plain`) otherwise.
std::vector<TensorSpec> quantized_specs(const ModelTensor& tensor, const QuantTarget& target);
TensorSpec plain_spec(const ModelTensor& tensor, DType plain);

// config.json's text with the target's quantization_config in the place of what it had; `kept` names linears that stay
// plain where the format wanted them. Everything else stays, in its order.
Result<std::string> config_for_target(const std::string& json, const std::string& path, const QuantTarget& target,
                                      const std::vector<std::string>& kept);

// The weights that a checkpoint of this config would have, stored as `target` says: every linear that the format is for
// and fits, unless config.quantization leaves it out; all else in bf16. Where `target` is what the config says, each
// linear has the scheme of its own group. For planning: there is no data behind them.
class PlannedWeights : public WeightCatalog {
 public:
  // `name` is for errors: the config.json.
  PlannedWeights(ModelConfig config, QuantTarget target, std::string name);

  const ModelConfig& config() const { return config_; }
  const QuantTarget& target() const { return target_; }
  const std::string& name() const override { return name_; }
  Result<WeightSource> linear(std::string_view prefix, int64_t out_features, int64_t in_features) const override;
  Result<WeightSource> head() const override;
  Result<std::vector<float>> vector(std::string_view name, int64_t size) const override;
  Result<TensorRef> embedding() const override;
  Error not_finite(std::string_view, size_t) const override { return {}; }
  void drop_pages(const WeightSource&) const override {}

  // Whether the target, and the lists of the config, have some linear quantized.
  bool is_quantized() const;

  // Of the tensors in the checkpoint's files, its multi-token-prediction layers included.
  uint64_t file_bytes() const;

 private:
  // kPlain: not quantized.
  QuantTarget target_for(const ModelTensor& tensor) const;

  ModelConfig config_;
  QuantTarget target_;
  std::string name_;
  ModulePatterns ignored_;
  std::vector<ModulePatterns> groups_;  // of config_.quantization.groups
};

// The target that gives the format that a config.json's quantization_config names.
QuantTarget target_of(const QuantizationScheme& scheme);

}  // namespace cachalot
