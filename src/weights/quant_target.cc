#include "weights/quant_target.h"

#include <boost/json.hpp>

#include "base/check.h"
#include "base/math.h"
#include "config/json_keys.h"

namespace cachalot {
namespace {

constexpr int64_t kFp8Block = 128, kValuesPerWord = 8;

boost::json::object quantization_object(const QuantTarget& target, const std::vector<std::string>& kept) {
  boost::json::object object;
  if (target.format == WeightFormat::kAwq) {
    object = {{"quant_method", "awq"},
              {"bits", 4},
              {"group_size", target.group_size},
              {"zero_point", true},
              {"version", "gemm"}};
  } else {
    object = {{"quant_method", "fp8"},
              {"fmt", "e4m3"},
              {"activation_scheme", "dynamic"},
              {"weight_block_size", {kFp8Block, kFp8Block}}};
  }
  if (!kept.empty()) object["modules_to_not_convert"] = boost::json::array(kept.begin(), kept.end());
  return object;
}

// Two spaces a level, as HuggingFace writes its files; lists stay on one line.
void print_pretty(const boost::json::value& value, int level, std::string& text) {
  const boost::json::object* object = value.if_object();
  if (!object || object->empty()) {
    text += boost::json::serialize(value);
    return;
  }
  const std::string indent(static_cast<size_t>(level + 1) * 2, ' ');
  text += "{";
  const char* separator = "\n";
  for (const auto& [key, member] : *object) {
    text += separator + indent + boost::json::serialize(boost::json::string(key)) + ": ";
    print_pretty(member, level + 1, text);
    separator = ",\n";
  }
  text += "\n" + std::string(static_cast<size_t>(level) * 2, ' ') + "}";
}

}  // namespace

Status check_target(const QuantTarget& target) {
  if (target.format == WeightFormat::kAwq && (target.group_size < 32 || target.group_size % 32 != 0))
    return make_parameter_error("group_size", "group size {} is not possible; it must be a multiple of 32",
                                target.group_size);
  return {};
}

bool wants_quantization(const ModelTensor& tensor, const QuantTarget& target) {
  return target.format != WeightFormat::kPlain &&
         (tensor.role == TensorRole::kLinear || (tensor.role == TensorRole::kHead && target.quantize_head));
}

bool fits_quantization(const ModelTensor& tensor, const QuantTarget& target) {
  return target.format == WeightFormat::kFp8Block ||
         (tensor.cols % target.group_size == 0 && tensor.rows % kValuesPerWord == 0);
}

std::vector<TensorSpec> quantized_specs(const ModelTensor& tensor, const QuantTarget& target) {
  CHECK(wants_quantization(tensor, target) && fits_quantization(tensor, target));
  const int64_t out = tensor.rows, in = tensor.cols;
  if (target.format == WeightFormat::kFp8Block)
    return {{tensor.name + ".weight", DType::kF8E4M3, {out, in}},
            {tensor.name + ".weight_scale_inv", DType::kF32, {ceil_div(out, kFp8Block), ceil_div(in, kFp8Block)}}};
  const int64_t groups = in / target.group_size, words = out / kValuesPerWord;
  return {{tensor.name + ".qweight", DType::kI32, {in, words}},
          {tensor.name + ".qzeros", DType::kI32, {groups, words}},
          {tensor.name + ".scales", DType::kF16, {groups, out}}};
}

TensorSpec plain_spec(const ModelTensor& tensor, DType plain) {
  const bool is_matrix = tensor.is_linear() || tensor.role == TensorRole::kEmbedding;
  return {tensor.is_linear() ? tensor.name + ".weight" : tensor.name, plain,
          is_matrix ? std::vector<int64_t>{tensor.rows, tensor.cols} : std::vector<int64_t>{tensor.rows}};
}

Result<std::string> config_for_target(const std::string& json, const std::string& path, const QuantTarget& target,
                                      const std::vector<std::string>& kept) {
  ASSIGN_OR_RETURN(boost::json::object object, parse_json_object(json, path));
  if (target.format == WeightFormat::kPlain) {
    object.erase("quantization_config");
  } else {
    object["quantization_config"] = quantization_object(target, kept);
  }
  std::string text;
  print_pretty(object, 0, text);
  return text + "\n";
}

}  // namespace cachalot
