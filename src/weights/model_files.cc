#include "weights/model_files.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <unordered_set>

#include "weights/fingerprint.h"
#include "weights/linear_source.h"
#include "weights/model_tensors.h"

namespace cachalot {
namespace {

constexpr size_t kMaxListed = 5;  // tensors named in one error

std::string listed(const std::vector<std::string>& names) {
  const size_t shown = std::min(names.size(), kMaxListed);
  std::string text =
      fmt::format("{}", fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown), ", "));
  if (names.size() > shown) text += fmt::format(" and {} more", names.size() - shown);
  return text;
}

// Checks tensors by name, dtype and shape, and remembers which have a place in the model.
class TensorCensus {
 public:
  TensorCensus(const Checkpoint& checkpoint, const ModelConfig& config) : checkpoint_(checkpoint), config_(config) {}

  // False, if it is not there.
  Result<bool> claim(const ModelTensor& tensor) {
    if (tensor.is_linear()) {
      const LinearParts parts = find_linear(checkpoint_, tensor.name);
      if (!parts.found()) return false;
      RETURN_IF_ERROR(linear_source(parts, tensor.name, tensor.rows, tensor.cols, config_.quantization));
      for (const TensorRef* part : parts.all()) claimed_.insert(part->spec.name);
      return true;
    }
    const TensorRef* found = checkpoint_.find(tensor.name);
    if (!found) return false;
    const bool is_table = tensor.role == TensorRole::kEmbedding;
    RETURN_IF_ERROR(is_table ? check_shape(*found, std::array{tensor.rows, tensor.cols})
                             : check_shape(*found, std::array{tensor.rows}));
    if (!is_float_dtype(found->spec.dtype))
      return tensor_error(*found, "its dtype is {}; it must be F32, BF16 or F16", dtype_name(found->spec.dtype));
    claimed_.insert(found->spec.name);
    return true;
  }

  // `tied`: a head that is the embedding may be in the file all the same. inv_freq are tables that old exports kept.
  std::vector<std::string> unclaimed(bool tied) const {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : checkpoint_.tensors())
      if (!claimed_.contains(name) && !name.ends_with("rotary_emb.inv_freq") && !(tied && name == "lm_head.weight"))
        names.push_back(name);
    return names;
  }

 private:
  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  std::unordered_set<std::string_view> claimed_;
};

bool has_layer(const Checkpoint& checkpoint, int layer) {
  const std::string prefix = layer_name(layer, "");
  const auto first = checkpoint.tensors().lower_bound(prefix);
  return first != checkpoint.tensors().end() && first->first.starts_with(prefix);
}

}  // namespace

Result<ModelFiles> ModelFiles::open(const std::string& folder) {
  ASSIGN_OR_RETURN(ModelConfig config, load_model_config(folder));
  ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::open(folder));
  ModelFiles files(std::move(config), std::move(checkpoint));
  RETURN_IF_ERROR(files.check_tensors());
  return files;
}

Status ModelFiles::check_tensors() {
  TensorCensus census(checkpoint_, config_);
  std::vector<std::string> missing;
  const auto claim = [&](const ModelTensor& tensor, bool optional) -> Status {
    ASSIGN_OR_RETURN(const bool found, census.claim(tensor));
    if (!found && !optional) missing.push_back(tensor.is_linear() ? tensor.name + ".weight" : tensor.name);
    return {};
  };
  for (const ModelTensor& tensor : model_tensors(config_)) RETURN_IF_ERROR(claim(tensor, false));
  for (int idx = 0; idx < config_.num_nextn_predict_layers; idx++) {
    const int layer = config_.num_layers + idx;
    if (!has_layer(checkpoint_, layer)) break;  // many quantized exports leave the MTP layers out
    // Its embedding and head are copies of the model's own, and may be left out too.
    for (const ModelTensor& tensor : mtp_tensors(config_, layer))
      RETURN_IF_ERROR(claim(tensor, tensor.role == TensorRole::kEmbedding || tensor.role == TensorRole::kHead));
    num_mtp_layers_++;
  }
  if (!missing.empty())
    return make_error(ErrorCode::kNotFound, "{}: {} tensors that config.json asks for are missing: {}",
                      checkpoint_.folder(), missing.size(), listed(missing));
  const std::vector<std::string> unexpected = census.unclaimed(config_.tie_word_embeddings);
  if (!unexpected.empty())
    return make_error(ErrorCode::kUnsupported,
                      "{}: {} tensors have no place in the model that config.json describes: {}", checkpoint_.folder(),
                      unexpected.size(), listed(unexpected));
  return {};
}

Result<WeightSource> ModelFiles::linear(std::string_view prefix, int64_t out_features, int64_t in_features) const {
  const LinearParts parts = find_linear(checkpoint_, prefix);
  if (!parts.found())
    return make_error(ErrorCode::kNotFound, "{}: tensor {}.weight is missing", checkpoint_.folder(), prefix);
  RETURN_IF_ERROR(check_scales(parts));
  return linear_source(parts, prefix, out_features, in_features, config_.quantization);
}

Result<WeightSource> ModelFiles::head() const {
  if (!config_.tie_word_embeddings) return linear("lm_head", config_.vocab_size, config_.hidden_size);
  ASSIGN_OR_RETURN(const TensorRef table, embedding());
  return plain_source(table);
}

Result<std::vector<float>> ModelFiles::vector(std::string_view name, int64_t size) const {
  const TensorRef* tensor = checkpoint_.find(name);
  if (!tensor) return make_error(ErrorCode::kNotFound, "{}: tensor {} is missing", checkpoint_.folder(), name);
  RETURN_IF_ERROR(check_shape(*tensor, std::array{size}));
  if (!is_float_dtype(tensor->spec.dtype))
    return tensor_error(*tensor, "its dtype is {}; it must be F32, BF16 or F16", dtype_name(tensor->spec.dtype));
  std::vector<float> values = to_floats(*tensor);
  if (!std::ranges::all_of(values, [](float value) { return std::isfinite(value); }))
    return tensor_error(*tensor, "holds a number that is not finite");
  return values;
}

Result<TensorRef> ModelFiles::table(std::string_view name, int64_t rows, int64_t cols) const {
  const TensorRef* tensor = checkpoint_.find(name);
  if (!tensor) return make_error(ErrorCode::kNotFound, "{}: tensor {} is missing", checkpoint_.folder(), name);
  RETURN_IF_ERROR(check_shape(*tensor, std::array{rows, cols}));
  if (!is_float_dtype(tensor->spec.dtype))
    return tensor_error(*tensor, "its dtype is {}; it must be F32, BF16 or F16", dtype_name(tensor->spec.dtype));
  return *tensor;
}

Result<TensorRef> ModelFiles::embedding() const {
  return table("model.embed_tokens.weight", config_.vocab_size, config_.hidden_size);
}

void ModelFiles::prefetch(const WeightSource& source) const {
  for (const std::span<const std::byte> range : window_bytes(source)) checkpoint_.prefetch(range);
}

void ModelFiles::drop_pages(const WeightSource& source) const {
  for (const std::span<const std::byte> range : window_bytes(source)) checkpoint_.drop_pages(range);
}

Result<std::string> ModelFiles::fingerprint() const {
  return fingerprint_of(checkpoint_);
}

}  // namespace cachalot
