#include "weights/quantize.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/file.h"
#include "weights/linear_source.h"
#include "weights/quantized_weight.h"

namespace cachalot {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kRowsAtOnce = 64;

// One entry of the model: the tensors that hold it now, and those that will. Equal names: copied as they are.
struct Conversion {
  ModelTensor tensor = {};
  std::vector<const TensorRef*> from;
  std::vector<TensorSpec> to;
  bool is_quantized = false;
  Folding folding;

  uint64_t num_bytes_read() const {
    uint64_t bytes = 0;
    for (const TensorRef* part : from) bytes += part->data.size();
    return bytes;
  }
};

class ModelQuantizer {
 public:
  ModelQuantizer(const ModelFiles& files, const QuantizeOptions& options, const Foldings& foldings)
      : files_(files), options_(options), foldings_(foldings) {}

  Status plan() {
    for (ModelTensor& tensor : model_tensors(files_.config(), files_.num_mtp_layers()))
      RETURN_IF_ERROR(plan_tensor(std::move(tensor)));
    for (const TensorRef& tensor : files_.checkpoint().set_aside()) add({.from = {&tensor}, .to = {tensor.spec}});
    if (summary_.num_quantized == 0 && options_.target.format != WeightFormat::kPlain)
      return make_error(ErrorCode::kInvalidArgument,
                        "{}: nothing to quantize: no linear is plain or fp8 and fits the format",
                        files_.checkpoint().folder());
    return {};
  }

  Status write(const std::string& folder) {
    std::vector<TensorSpec> specs;
    for (const Conversion& conversion : conversions_)
      specs.insert(specs.end(), conversion.to.begin(), conversion.to.end());
    ASSIGN_OR_RETURN(CheckpointWriter writer, CheckpointWriter::create(folder, specs, options_.shard_bytes));
    RETURN_IF_ERROR(check_disk_space(folder, writer.num_bytes()));
    summary_.num_bytes_written = writer.num_bytes();
    uint64_t num_done = 0;
    for (size_t idx = 0; idx < conversions_.size(); idx++) {
      if (idx + 1 < conversions_.size())  // the disk reads while this one is computed
        for (const TensorRef* part : conversions_[idx + 1].from) files_.checkpoint().prefetch(part->data);
      RETURN_IF_ERROR(convert(conversions_[idx], writer));
      for (const TensorRef* part : conversions_[idx].from) files_.checkpoint().drop_pages(part->data);
      num_done += conversions_[idx].num_bytes_read();
      if (options_.on_progress) options_.on_progress(num_done, summary_.num_bytes_read);
    }
    return writer.finish();
  }

  QuantizeSummary summary() const {
    QuantizeSummary summary = summary_;
    if (squared_norm_ > 0) summary.relative_error = std::sqrt(squared_error_ / squared_norm_);
    return summary;
  }

 private:
  Status plan_tensor(ModelTensor tensor) {
    Conversion conversion{.tensor = std::move(tensor)};
    const ModelTensor& entry = conversion.tensor;
    if (entry.is_linear()) {
      const LinearParts parts = find_linear(files_.checkpoint(), entry.name);
      if (parts.found() && !(parts.weight && parts.weight->spec.dtype != DType::kI8))
        return make_error(ErrorCode::kUnsupported,
                          "{}: {} is int4 or MXFP4 already; quantize from the bf16 or fp8 model",
                          files_.checkpoint().folder(), entry.name);
      conversion.from = parts.all();
      const bool has_format = options_.target.format == WeightFormat::kFp8Block && parts.scale;
      conversion.is_quantized = parts.found() && !has_format && wants_quantization(entry, options_.target);
    } else if (const TensorRef* part = files_.checkpoint().find(entry.name)) {
      conversion.from = {part};
    }
    if (conversion.from.empty()) return {};  // an MTP layer's copy of the embedding or head may be absent
    if (conversion.is_quantized && !fits_quantization(entry, options_.target)) {
      conversion.is_quantized = false;
      summary_.kept.push_back(files_.config().tensor_prefix + entry.name);
    }
    if (const auto found = foldings_.find(entry.name); found != foldings_.end()) conversion.folding = found->second;
    if (conversion.is_quantized) {
      conversion.to = quantized_specs(entry, options_.target);
      for (TensorSpec& spec : conversion.to) spec.name.insert(0, files_.config().tensor_prefix);
      summary_.num_quantized++;
    } else if (conversion.folding.changes()) {
      conversion.to = {plain_spec(entry, folded_dtype(conversion))};
      conversion.to[0].name.insert(0, files_.config().tensor_prefix);
    } else {
      for (const TensorRef* part : conversion.from) conversion.to.push_back(part->spec);
    }
    add(std::move(conversion));
    return {};
  }

  // Of what is plain afterwards: a norm's factors are such that its own type holds the product; fp8 has no exponents to
  // spare.
  static DType folded_dtype(const Conversion& conversion) {
    const DType dtype = conversion.from.front()->spec.dtype;
    if (!conversion.tensor.is_linear()) return dtype;
    if (!conversion.folding.has_powers_of_two()) return DType::kF32;
    return is_float_dtype(dtype) ? dtype : DType::kBF16;
  }

  void add(Conversion conversion) {
    summary_.num_bytes_read += conversion.num_bytes_read();
    conversions_.push_back(std::move(conversion));
  }

  Status convert(const Conversion& conversion, CheckpointWriter& writer) {
    if (!conversion.is_quantized && conversion.folding.changes()) return fold(conversion, writer);
    if (!conversion.is_quantized) {
      for (const TensorRef* part : conversion.from) RETURN_IF_ERROR(writer.write(part->spec.name, part->data));
      return {};
    }
    ASSIGN_OR_RETURN(const WeightSource source,
                     files_.linear(conversion.tensor.name, conversion.tensor.rows, conversion.tensor.cols));
    const QuantizedWeight weight = quantize_weight(source, conversion.folding, options_.target, threads_);
    if (!weight.finite) return tensor_error(*conversion.from.front(), "holds a number that is not finite");
    squared_error_ += weight.squared_error;
    squared_norm_ += weight.squared_norm;
    for (size_t idx = 0; idx < conversion.to.size(); idx++)
      RETURN_IF_ERROR(writer.write(conversion.to[idx].name, weight.tensors[idx]));
    return {};
  }

  // A linear or a norm that stays plain.
  Status fold(const Conversion& conversion, CheckpointWriter& writer) {
    const ModelTensor& tensor = conversion.tensor;
    std::vector<float> values;
    if (tensor.is_linear()) {
      ASSIGN_OR_RETURN(const WeightSource source, files_.linear(tensor.name, tensor.rows, tensor.cols));
      const FoldedWeight weight(source, conversion.folding);
      values.resize(static_cast<size_t>(tensor.rows * tensor.cols));
      threads_.parallel_for(tensor.rows, kRowsAtOnce, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; row++) weight.read_row(row, values.data() + row * tensor.cols);
      });
    } else {
      ASSIGN_OR_RETURN(values, files_.vector(tensor.name, tensor.rows));
      for (size_t idx = 0; idx < values.size(); idx++) values[idx] *= (*conversion.folding.outputs)[idx];
    }
    return writer.write(conversion.to[0].name, from_floats(values, conversion.to[0].dtype));
  }

  const ModelFiles& files_;
  const QuantizeOptions& options_;
  const Foldings& foldings_;
  ThreadPool threads_{{.num_threads = options_.num_threads}};
  std::vector<Conversion> conversions_;
  QuantizeSummary summary_;
  double squared_error_ = 0, squared_norm_ = 0;
};

// Tokenizer, chat template, licence, and whatever else lies beside the weights.
Status copy_other_files(const std::string& from, const std::string& to) {
  constexpr std::string_view kWeights[] = {
      ".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".gguf"};
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(from, error)) {
    const std::string name = entry.path().filename();
    const bool is_weights =
        std::ranges::any_of(kWeights, [&](std::string_view ending) { return name.ends_with(ending); });
    if (!entry.is_regular_file() || is_weights || name == "config.json") continue;
    fs::copy_file(entry.path(), fs::path(to) / name, fs::copy_options::overwrite_existing, error);
    if (error) return make_error(ErrorCode::kIo, "{}/{}: cannot copy to {}: {}", from, name, to, error.message());
  }
  if (error) return make_error(ErrorCode::kIo, "{}: cannot list: {}", from, error.message());
  return {};
}

}  // namespace

Result<QuantizeSummary> quantize_model(const std::string& model_folder, const std::string& folder,
                                       const QuantizeOptions& options) {
  RETURN_IF_ERROR(check_target(options.target));
  RETURN_IF_ERROR(check_output_folder(folder));
  ASSIGN_OR_RETURN(const ModelFiles files, ModelFiles::open(model_folder));
  Foldings foldings;
  if (options.calibrate) {
    RETURN_IF_ERROR(ModelQuantizer(files, options, foldings).plan());
    ASSIGN_OR_RETURN(foldings, options.calibrate(files));
  }
  ModelQuantizer quantizer(files, options, foldings);
  RETURN_IF_ERROR(quantizer.plan());
  RETURN_IF_ERROR(quantizer.write(folder));
  RETURN_IF_ERROR(copy_other_files(model_folder, folder));

  // config.json comes last: a folder that has one is whole.
  const std::string config_path = model_folder + "/config.json";
  ASSIGN_OR_RETURN(const std::string config, read_file(config_path));
  const QuantizeSummary summary = quantizer.summary();
  ASSIGN_OR_RETURN(const std::string config_text, config_for_target(config, config_path, options.target, summary.kept));
  RETURN_IF_ERROR(write_file(folder + "/config.json", config_text));
  return summary;
}

}  // namespace cachalot
