#include "weights/linear_source.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/math.h"

namespace cachalot {
namespace {

constexpr int kNibblesPerWord = 8;

Status check_dtype(const TensorRef& tensor, DType wanted) {
  if (tensor.spec.dtype == wanted) return {};
  return tensor_error(tensor, "its dtype is {}; it must be {}", dtype_name(tensor.spec.dtype), dtype_name(wanted));
}

Status check_float(const TensorRef& tensor) {
  if (is_float_dtype(tensor.spec.dtype)) return {};
  return tensor_error(tensor, "its dtype is {}; it must be F32, BF16 or F16", dtype_name(tensor.spec.dtype));
}

Result<WeightSource> fp8_source(const LinearParts& parts, WeightSource source, const QuantizationConfig& quantization) {
  if (!parts.scale_inv)
    return tensor_error(*parts.weight, "{}_scale_inv, the scales of its blocks, is missing", parts.weight->spec.name);
  source.format = SourceFormat::kFp8Block;
  source.block_rows = quantization.block_rows;
  source.block_cols = quantization.block_cols;
  RETURN_IF_ERROR(check_dtype(*parts.scale_inv, DType::kF32));
  RETURN_IF_ERROR(check_shape(*parts.scale_inv, std::array{ceil_div(source.out_features, source.block_rows),
                                                           ceil_div(source.in_features, source.block_cols)}));
  source.scales = parts.scale_inv->data.data();
  return whole(source);
}

// The group size is what the shapes say; a configuration that speaks of AWQ must agree.
Result<WeightSource> awq_source(const LinearParts& parts, std::string_view prefix, WeightSource source,
                                const QuantizationConfig& quantization) {
  const int64_t out = source.out_features, in = source.in_features;
  if (!parts.scales) return tensor_error(*parts.qweight, "{}.scales is missing", prefix);
  if (out % kNibblesPerWord != 0) return tensor_error(*parts.qweight, "{} outputs are no multiple of 8", out);
  RETURN_IF_ERROR(check_dtype(*parts.qweight, DType::kI32));
  RETURN_IF_ERROR(check_shape(*parts.qweight, std::array{in, out / kNibblesPerWord}));
  RETURN_IF_ERROR(check_float(*parts.scales));
  const int64_t groups = parts.scales->spec.shape.empty() ? 0 : parts.scales->spec.shape[0];
  RETURN_IF_ERROR(check_shape(*parts.scales, std::array{groups, out}));
  if (groups < 1 || in % groups != 0 || in / groups % 32 != 0)
    return tensor_error(*parts.scales, "{} inputs in {} groups; a group must hold a multiple of 32 inputs", in, groups);
  const int64_t group_size = in / groups;
  if (quantization.format == WeightFormat::kAwq && quantization.group_size != group_size)
    return tensor_error(*parts.scales, "its groups hold {} inputs; config.json says {}", group_size,
                        quantization.group_size);
  if (parts.qzeros) {
    RETURN_IF_ERROR(check_dtype(*parts.qzeros, DType::kI32));
    RETURN_IF_ERROR(check_shape(*parts.qzeros, std::array{groups, out / kNibblesPerWord}));
    source.zeros = parts.qzeros->data.data();
  } else if (quantization.zero_point) {
    return tensor_error(*parts.qweight, "{}.qzeros is missing", prefix);
  }
  source.format = SourceFormat::kAwq;
  source.dtype = DType::kI32;
  source.data = parts.qweight->data.data();
  source.scales = parts.scales->data.data();
  source.scale_dtype = parts.scales->spec.dtype;
  source.group_size = static_cast<int>(group_size);
  return whole(source);
}

template <class T>
bool all_finite(std::span<const std::byte> data) {
  const auto* values = reinterpret_cast<const T*>(data.data());
  return std::all_of(values, values + data.size() / sizeof(T),
                     [](T value) { return std::isfinite(static_cast<float>(value)); });
}

// Half precision by its bits: the plain conversion is slow on gigabytes.
bool all_finite_fp16(std::span<const std::byte> data) {
  const auto* values = reinterpret_cast<const uint16_t*>(data.data());
  return std::all_of(values, values + data.size() / 2, [](uint16_t bits) { return (bits & 0x7c00) != 0x7c00; });
}

template <class T>
std::vector<float> converted(std::span<const std::byte> data) {
  const auto* values = reinterpret_cast<const T*>(data.data());
  std::vector<float> floats(data.size() / sizeof(T));
  std::transform(values, values + floats.size(), floats.begin(), [](T value) { return static_cast<float>(value); });
  return floats;
}

// Rows [begin, begin + count) of a table that begins at `data`.
std::span<const std::byte> row_bytes(const void* data, int64_t begin, int64_t count, int64_t bytes_per_row) {
  if (!data) return {};
  return {static_cast<const std::byte*>(data) + begin * bytes_per_row, static_cast<size_t>(count * bytes_per_row)};
}

}  // namespace

std::vector<const TensorRef*> LinearParts::all() const {
  std::vector<const TensorRef*> parts;
  for (const TensorRef* part : {weight, scale_inv, qweight, qzeros, scales})
    if (part) parts.push_back(part);
  return parts;
}

LinearParts find_linear(const Checkpoint& checkpoint, std::string_view prefix) {
  const auto find = [&](std::string_view ending) { return checkpoint.find(std::string(prefix).append(ending)); };
  return {.weight = find(".weight"),
          .scale_inv = find(".weight_scale_inv"),
          .qweight = find(".qweight"),
          .qzeros = find(".qzeros"),
          .scales = find(".scales")};
}

Result<WeightSource> linear_source(const LinearParts& parts, std::string_view prefix, int64_t out_features,
                                   int64_t in_features, const QuantizationConfig& quantization) {
  CHECK(parts.found());
  WeightSource source{.out_features = out_features, .in_features = in_features};
  if (parts.weight && parts.qweight)
    return tensor_error(*parts.qweight, "{}.weight is there as well; a layer must have one of them", prefix);
  if (parts.qweight) return awq_source(parts, prefix, source, quantization);

  RETURN_IF_ERROR(check_shape(*parts.weight, std::array{out_features, in_features}));
  source.dtype = parts.weight->spec.dtype;
  source.data = parts.weight->data.data();
  if (source.dtype == DType::kF8E4M3) return fp8_source(parts, source, quantization);
  if (!is_float_dtype(source.dtype))
    return tensor_error(*parts.weight, "its dtype is {}; a weight must be F32, BF16, F16 or F8_E4M3",
                        dtype_name(source.dtype));
  return whole(source);
}

Status check_scales(const LinearParts& parts) {
  for (const TensorRef* scales : {parts.scale_inv, parts.scales}) {
    if (!scales) continue;
    const DType dtype = scales->spec.dtype;
    const bool finite = dtype == DType::kF16    ? all_finite_fp16(scales->data)
                        : dtype == DType::kBF16 ? all_finite<bf16>(scales->data)
                                                : all_finite<float>(scales->data);
    if (!finite) return tensor_error(*scales, "holds a scale that is not finite");
  }
  return {};
}

WeightSource plain_source(const TensorRef& tensor) {
  CHECK(is_float_dtype(tensor.spec.dtype) && tensor.spec.shape.size() == 2);
  return whole({.dtype = tensor.spec.dtype,
                .data = tensor.data.data(),
                .out_features = tensor.spec.shape[0],
                .in_features = tensor.spec.shape[1]});
}

std::array<std::span<const std::byte>, 3> window_bytes(const WeightSource& source) {
  const int64_t out = source.out_features, in = source.in_features;
  if (source.format == SourceFormat::kAwq) {  // its rows are inputs
    const int64_t first_group = source.in_begin / source.group_size;
    const int64_t groups = ceil_div(source.in_begin + source.in_count, source.group_size) - first_group;
    return {row_bytes(source.data, source.in_begin, source.in_count, out / 2),
            row_bytes(source.scales, first_group, groups, out * static_cast<int64_t>(dtype_size(source.scale_dtype))),
            row_bytes(source.zeros, first_group, groups, out / 2)};
  }
  const auto data =
      row_bytes(source.data, source.out_begin, source.out_count, in * static_cast<int64_t>(dtype_size(source.dtype)));
  if (source.format == SourceFormat::kPlain) return {data, {}, {}};
  const int64_t first_block = source.out_begin / source.block_rows;
  const int64_t blocks = ceil_div(source.out_begin + source.out_count, source.block_rows) - first_block;
  const auto bytes_per_row = ceil_div(in, source.block_cols) * static_cast<int64_t>(sizeof(float));
  return {data, row_bytes(source.scales, first_block, blocks, bytes_per_row), {}};
}

bool is_float_dtype(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16;
}

std::vector<float> to_floats(const TensorRef& tensor) {
  switch (tensor.spec.dtype) {
    case DType::kF32:
      return converted<float>(tensor.data);
    case DType::kBF16:
      return converted<bf16>(tensor.data);
    case DType::kF16:
      return converted<fp16>(tensor.data);
    default:
      CHECK(false, "{} is {}", tensor.spec.name, dtype_name(tensor.spec.dtype));
  }
}

Status check_shape(const TensorRef& tensor, std::span<const int64_t> wanted) {
  if (std::ranges::equal(tensor.spec.shape, wanted)) return {};
  return tensor_error(tensor, "its shape is {}; by config.json it must be {}", shape_text(tensor.spec.shape),
                      shape_text(wanted));
}

}  // namespace cachalot
