#include "weights/synth.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/file.h"
#include "weights/random_pattern.h"

namespace cachalot {
namespace {

constexpr double kNormSpread = 0.1, kRouterBiasDeviation = 0.001;

struct RandomTensor {
  TensorSpec spec;
  PatternKind kind = PatternKind::kUniform;
  double scale = 1;
};

// Weights have the standard deviation 1/sqrt(inputs), so that outputs are as large as inputs. Scales of either sign and
// zero points around 7.5 keep the mean at zero: a common part of all rows would send every token to the same experts.
std::vector<RandomTensor> quantized_tensors(const ModelTensor& tensor, const QuantTarget& target) {
  const double deviation = 1 / std::sqrt(static_cast<double>(tensor.cols));
  const std::vector<TensorSpec> specs = quantized_specs(tensor, target);
  if (target.format == WeightFormat::kFp8Block)
    return {{specs[0], PatternKind::kFp8, 1}, {specs[1], PatternKind::kFloatScales, deviation / kFp8Rms}};
  return {{specs[0], PatternKind::kNibbles, 1},
          {specs[1], PatternKind::kZeroPoints, 1},
          {specs[2], PatternKind::kHalfScales, deviation / kNibbleRms}};
}

RandomTensor plain_tensor(const ModelTensor& tensor) {
  const TensorSpec spec = plain_spec(tensor, DType::kBF16);
  switch (tensor.role) {
    case TensorRole::kNorm:
      return {spec, PatternKind::kNorm, kNormSpread};
    case TensorRole::kRouterBias:
      return {spec, PatternKind::kUniform, kRouterBiasDeviation};
    case TensorRole::kEmbedding:
      return {spec, PatternKind::kUniform, 1};
    case TensorRole::kLinear:
    case TensorRole::kRouter:
    case TensorRole::kMtpProjection:
    case TensorRole::kHead:
      return {spec, PatternKind::kUniform, 1 / std::sqrt(static_cast<double>(tensor.cols))};
  }
  check_failed(__FILE__, __LINE__, "role", "unknown value");
}

Status write_random(CheckpointWriter& writer, RandomPatterns& patterns, const RandomTensor& tensor) {
  const std::span<const std::byte> pattern = patterns.get(tensor.kind, tensor.scale);
  size_t position = patterns.start(tensor.spec.name) * pattern_element_bytes(tensor.kind);
  for (uint64_t remaining = tensor.spec.num_bytes(); remaining > 0;) {
    const size_t size = std::min<uint64_t>(remaining, pattern.size() - position);
    RETURN_IF_ERROR(writer.write(tensor.spec.name, pattern.subspan(position, size)));
    remaining -= size;
    position = 0;
  }
  return {};
}

}  // namespace

Result<SynthSummary> synthesize(const std::string& config_json, const std::string& config_path,
                                const std::string& folder, const SynthOptions& options) {
  RETURN_IF_ERROR(check_target(options.target));
  RETURN_IF_ERROR(check_output_folder(folder));
  // What the given file says of quantization does not matter: it may be a format that is not read here.
  ASSIGN_OR_RETURN(const std::string plain_json, config_for_target(config_json, config_path, {}, {}));
  ASSIGN_OR_RETURN(const ModelConfig config, parse_model_config(plain_json, config_path));

  std::vector<ModelTensor> model = model_tensors(config);
  for (int idx = 0; idx < config.num_nextn_predict_layers; idx++)
    std::ranges::move(mtp_tensors(config, config.num_layers + idx), std::back_inserter(model));
  std::vector<RandomTensor> tensors;
  std::vector<std::string> kept;
  for (const ModelTensor& tensor : model) {
    const bool wanted = wants_quantization(tensor, options.target);
    if (wanted && fits_quantization(tensor, options.target)) {
      std::ranges::move(quantized_tensors(tensor, options.target), std::back_inserter(tensors));
    } else {
      tensors.push_back(plain_tensor(tensor));
      if (wanted) kept.push_back(tensor.name);
    }
  }
  std::vector<TensorSpec> specs;
  for (const RandomTensor& tensor : tensors) specs.push_back(tensor.spec);

  ASSIGN_OR_RETURN(CheckpointWriter writer, CheckpointWriter::create(folder, specs, options.shard_bytes));
  RETURN_IF_ERROR(check_disk_space(folder, writer.num_bytes()));
  RandomPatterns patterns(options.seed);
  uint64_t num_done = 0;
  for (const RandomTensor& tensor : tensors) {
    RETURN_IF_ERROR(write_random(writer, patterns, tensor));
    num_done += tensor.spec.num_bytes();
    if (options.on_progress) options.on_progress(num_done, writer.num_bytes());
  }
  RETURN_IF_ERROR(writer.finish());
  ASSIGN_OR_RETURN(const std::string config_text, config_for_target(config_json, config_path, options.target, kept));
  RETURN_IF_ERROR(write_file(folder + "/config.json", config_text));
  return SynthSummary{writer.num_bytes(), writer.num_shards(), static_cast<int64_t>(kept.size())};
}

}  // namespace cachalot
