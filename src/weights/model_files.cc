#include "weights/model_files.h"

#include <fmt/ranges.h>

#include <optional>
#include <unordered_set>

#include "weights/linear_source.h"

namespace cachalot {
namespace {

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
      for (const TensorRef* part : parts.all()) claimed_.insert(part);
      return true;
    }
    const TensorRef* found = checkpoint_.find(tensor.name);
    if (!found) return false;
    const bool is_table = tensor.role == TensorRole::kEmbedding;
    RETURN_IF_ERROR(is_table ? check_shape(*found, std::array{tensor.rows, tensor.cols})
                             : check_shape(*found, std::array{tensor.rows}));
    RETURN_IF_ERROR(check_float(*found));
    claimed_.insert(found);
    return true;
  }

  // Tensors of a layer that is not served.
  size_t excuse(int layer) {
    const std::string prefix = layer_name(layer, "");
    const auto& tensors = checkpoint_.tensors();
    size_t num_excused = 0;  // also those that an attempt to claim the layer has claimed
    for (auto entry = tensors.lower_bound(prefix); entry != tensors.end() && entry->first.starts_with(prefix); ++entry)
      claimed_.insert(&entry->second), num_excused++;
    return num_excused;
  }

  // `tied`: a head that is the embedding may be in the file all the same. inv_freq are tables that old exports kept.
  std::vector<std::string> unclaimed(bool tied) const {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : checkpoint_.tensors())
      if (!claimed_.contains(&tensor) && !name.ends_with("rotary_emb.inv_freq") && !(tied && name == "lm_head.weight"))
        names.push_back(tensor.spec.name);
    return names;
  }

 private:
  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  std::unordered_set<const TensorRef*> claimed_;
};

// Whether the folder holds such a layer, whole or not, by the parts that no other layer has.
bool has_mtp_layer(const Checkpoint& checkpoint, int layer) {
  const std::string prefix = layer_name(layer, "");
  const auto& tensors = checkpoint.tensors();
  for (auto entry = tensors.lower_bound(prefix); entry != tensors.end() && entry->first.starts_with(prefix); ++entry) {
    const std::string_view part = std::string_view(entry->first).substr(prefix.size());
    for (const std::string_view own : {"eh_proj.", "enorm.", "hnorm.", "shared_head.", "embed_tokens."})
      if (part.starts_with(own)) return true;
  }
  return false;
}

// Why a multi-token-prediction layer cannot be used, or nothing if it is whole, and then claimed. Its embedding and
// head are copies of the model's own, and may be left out.
std::optional<std::string> claim_mtp_layer(const ModelConfig& config, int layer, TensorCensus& census) {
  for (const ModelTensor& tensor : mtp_tensors(config, layer)) {
    const bool may_be_absent = tensor.role == TensorRole::kEmbedding || tensor.role == TensorRole::kHead;
    const Result<bool> found = census.claim(tensor);
    if (!found) return found.error().message;
    if (!*found && !may_be_absent) return fmt::format("{} is missing", tensor.plain_name());
  }
  return std::nullopt;
}

// The tensor that a linear lacks: its companions say which it would be.
std::string missing_name(const Checkpoint& checkpoint, const ModelTensor& tensor) {
  if (!tensor.is_linear()) return tensor.name;
  const LinearParts parts = find_linear(checkpoint, tensor.name);
  if (parts.qzeros || parts.scales) return tensor.name + ".qweight";
  const bool is_packed = parts.shape || parts.zero_point || (parts.scale && parts.scale->spec.dtype == DType::kU8);
  return tensor.name + (is_packed ? ".weight_packed" : ".weight");
}

}  // namespace

Result<ModelFiles> ModelFiles::open(const std::string& folder) {
  ASSIGN_OR_RETURN(ModelConfig config, load_model_config(folder));
  ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::open(folder));
  RETURN_IF_ERROR(checkpoint.select_part(config.tensor_prefix, config.other_parts));
  ModelFiles files(std::move(config), std::move(checkpoint));
  files.notes_ = files.checkpoint_.notes();
  RETURN_IF_ERROR(files.check_tensors());
  return files;
}

Status ModelFiles::check_tensors() {
  TensorCensus census(checkpoint_, config_);
  std::vector<std::string> missing;
  for (const ModelTensor& tensor : model_tensors(config_)) {
    ASSIGN_OR_RETURN(const bool found, census.claim(tensor));
    if (!found) missing.push_back(config_.tensor_prefix + missing_name(checkpoint_, tensor));
  }
  // Answers do not need them, and many exports leave them out, or their number.
  size_t num_left_out = 0;
  std::string reason = fmt::format("config.json's num_nextn_predict_layers is {}", config_.num_nextn_predict_layers);
  for (int layer = config_.num_layers; has_mtp_layer(checkpoint_, layer); layer++) {
    if (layer - config_.num_layers == num_mtp_layers_ && num_mtp_layers_ < config_.num_nextn_predict_layers) {
      const std::optional<std::string> fault = claim_mtp_layer(config_, layer, census);
      if (!fault) {
        num_mtp_layers_++;
        continue;
      }
      reason = *fault;
    }
    num_left_out += census.excuse(layer);
  }
  if (num_left_out > 0)
    notes_.push_back(fmt::format("{}: the {} tensors of multi-token-prediction layers are left out: {}",
                                 checkpoint_.folder(), num_left_out, reason));
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
    return make_error(ErrorCode::kNotFound, "{}: tensor {}{}.weight is missing", checkpoint_.folder(),
                      config_.tensor_prefix, prefix);
  RETURN_IF_ERROR(check_scales(parts));
  return linear_source(parts, prefix, out_features, in_features, config_.quantization);
}

Result<WeightSource> ModelFiles::head() const {
  if (!config_.tie_word_embeddings) return linear("lm_head", config_.vocab_size, config_.hidden_size);
  ASSIGN_OR_RETURN(const TensorRef table, embedding());
  return plain_source(table);
}

Result<TensorRef> ModelFiles::floats(std::string_view name, std::span<const int64_t> shape) const {
  const TensorRef* tensor = checkpoint_.find(name);
  if (!tensor)
    return make_error(ErrorCode::kNotFound, "{}: tensor {}{} is missing", checkpoint_.folder(), config_.tensor_prefix,
                      name);
  RETURN_IF_ERROR(check_shape(*tensor, shape));
  RETURN_IF_ERROR(check_float(*tensor));
  return *tensor;
}

Result<std::vector<float>> ModelFiles::vector(std::string_view name, int64_t size) const {
  ASSIGN_OR_RETURN(const TensorRef tensor, floats(name, std::array{size}));
  if (const auto index = first_not_finite(tensor.data, tensor.spec.dtype))
    return tensor_error(tensor, "{}", not_finite_text(tensor, *index));
  return to_floats(tensor);
}

Error ModelFiles::not_finite(std::string_view name, size_t index) const {
  const LinearParts parts = find_linear(checkpoint_, name);
  const TensorRef* tensor = parts.weight ? parts.weight : checkpoint_.find(name);
  if (!tensor)
    return {ErrorCode::kCorrupt,
            fmt::format("{}: tensor {}: holds a number that is not finite", checkpoint_.folder(), name),
            {}};
  return tensor_error(*tensor, "{}", not_finite_text(*tensor, index)).error();
}

Result<TensorRef> ModelFiles::embedding() const {
  return floats("model.embed_tokens.weight", std::array{int64_t{config_.vocab_size}, int64_t{config_.hidden_size}});
}

void ModelFiles::prefetch(const WeightSource& source) const {
  for (const std::span<const std::byte> range : window_bytes(source)) checkpoint_.prefetch(range);
}

Status ModelFiles::fetch_pages(const WeightSource& source) const {
  for (const std::span<const std::byte> range : window_bytes(source)) RETURN_IF_ERROR(checkpoint_.fetch_pages(range));
  return {};
}

void ModelFiles::drop_pages(const WeightSource& source) const {
  for (const std::span<const std::byte> range : window_bytes(source)) checkpoint_.drop_pages(range);
}

Result<std::string> ModelFiles::fingerprint() const {
  return fingerprint_of(checkpoint_);
}

}  // namespace cachalot
