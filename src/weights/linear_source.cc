#include "weights/linear_source.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/math.h"

namespace cachalot {
namespace {

constexpr int kNibblesPerWord = 8;

Status check_tensor(const TensorRef& tensor, DType dtype, std::span<const int64_t> shape) {
  if (tensor.spec.dtype == dtype) return check_shape(tensor, shape);
  return tensor_error(tensor, "its dtype is {}; it must be {}", dtype_name(tensor.spec.dtype), dtype_name(dtype));
}

Result<WeightSource> fp8_source(const LinearParts& parts, WeightSource source, const QuantizationConfig& quantization) {
  if (!parts.scale_inv)
    return tensor_error(*parts.weight, "{}_scale_inv, the scales of its blocks, is missing", parts.weight->spec.name);
  source.format = SourceFormat::kFp8Block;
  source.block_rows = quantization.block_rows;
  source.block_cols = quantization.block_cols;
  RETURN_IF_ERROR(check_tensor(
      *parts.scale_inv, DType::kF32,
      std::array{ceil_div(source.out_features, source.block_rows), ceil_div(source.in_features, source.block_cols)}));
  source.scales = parts.scale_inv->data.data();
  return whole(source);
}

// The group size is what the shapes say; a configuration that speaks of AWQ must agree.
Result<WeightSource> awq_source(const LinearParts& parts, std::string_view prefix, WeightSource source,
                                const QuantizationConfig& quantization) {
  const int64_t out = source.out_features, in = source.in_features;
  if (!parts.scales) return tensor_error(*parts.qweight, "{}.scales is missing", prefix);
  if (out % kNibblesPerWord != 0) return tensor_error(*parts.qweight, "{} outputs are no multiple of 8", out);
  RETURN_IF_ERROR(check_tensor(*parts.qweight, DType::kI32, std::array{in, out / kNibblesPerWord}));
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
    RETURN_IF_ERROR(check_tensor(*parts.qzeros, DType::kI32, std::array{groups, out / kNibblesPerWord}));
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

// NaN and infinity are the bit patterns whose exponent (and, in e4m3, mantissa too) is all ones: adding a one at its
// lowest bit, with nothing else there, carries into the sign bit and no further. So eight bytes are looked at at once.
template <class Bits, Bits kOnes, Bits kLowest>
std::optional<size_t> first_all_ones(std::span<const std::byte> data) {
  constexpr uint64_t kLanes = ~uint64_t{0} / std::numeric_limits<Bits>::max();  // a one in each
  constexpr uint64_t kAllOnes = kLanes * kOnes, kAllLowest = kLanes * kLowest, kSigns = kAllOnes + kAllLowest;
  constexpr size_t kChunk = size_t{1} << 15;
  for (size_t begin = 0; begin < data.size(); begin += kChunk) {
    const std::span<const std::byte> chunk = data.subspan(begin, std::min(kChunk, data.size() - begin));
    const size_t whole = chunk.size() / sizeof(uint64_t) * sizeof(uint64_t);
    uint64_t seen = 0;
    for (size_t idx = 0; idx < whole; idx += sizeof(uint64_t)) {
      uint64_t word;
      std::memcpy(&word, chunk.data() + idx, sizeof word);
      seen |= (word & kAllOnes) + kAllLowest;
    }
    if (!(seen & kSigns) && whole == chunk.size()) continue;
    const auto* bits = reinterpret_cast<const Bits*>(chunk.data());
    for (size_t idx = seen & kSigns ? 0 : whole / sizeof(Bits); idx < chunk.size() / sizeof(Bits); idx++)
      if ((bits[idx] & kOnes) == kOnes) return begin / sizeof(Bits) + idx;
  }
  return std::nullopt;
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

std::optional<size_t> first_not_finite(std::span<const std::byte> data, DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return first_all_ones<uint32_t, 0x7f800000, 0x00800000>(data);
    case DType::kBF16:
      return first_all_ones<uint16_t, 0x7f80, 0x0080>(data);
    case DType::kF16:
      return first_all_ones<uint16_t, 0x7c00, 0x0400>(data);
    case DType::kF8E4M3:
      return first_all_ones<uint8_t, 0x7f, 0x01>(data);
    default:
      return std::nullopt;
  }
}

std::string not_finite_text(const TensorRef& tensor, size_t index) {
  const std::vector<int64_t>& shape = tensor.spec.shape;
  const std::string place =
      shape.size() == 2 && shape[1] > 0
          ? fmt::format("[{}, {}]", index / static_cast<size_t>(shape[1]), index % static_cast<size_t>(shape[1]))
          : std::to_string(index);
  return fmt::format("element {} is not finite", place);
}

Status check_scales(const LinearParts& parts) {
  for (const TensorRef* scales : {parts.scale_inv, parts.scales}) {
    if (!scales) continue;
    if (const auto index = first_not_finite(scales->data, scales->spec.dtype))
      return tensor_error(*scales, "holds a scale that is not finite: {}", not_finite_text(*scales, *index));
    if (scales->spec.dtype == DType::kF16 || !is_float_dtype(scales->spec.dtype)) continue;
    const float largest_step = scales == parts.scale_inv ? 448 : 15;
    const std::vector<float> values = to_floats(*scales);
    for (size_t index = 0; index < values.size(); index++)
      if (!std::isfinite(values[index] * largest_step))
        return tensor_error(*scales, "element {} is {}, and what it scales is not finite", index, values[index]);
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

Status check_float(const TensorRef& tensor) {
  if (is_float_dtype(tensor.spec.dtype)) return {};
  return tensor_error(tensor, "its dtype is {}; it must be F32, BF16 or F16", dtype_name(tensor.spec.dtype));
}

std::vector<float> to_floats(const TensorRef& tensor) {
  CHECK(is_float_dtype(tensor.spec.dtype), "{} is {}", tensor.spec.name, dtype_name(tensor.spec.dtype));
  const auto count = static_cast<int64_t>(tensor.data.size() / dtype_size(tensor.spec.dtype));
  std::vector<float> floats(static_cast<size_t>(count));
  const WeightSource row{
      .dtype = tensor.spec.dtype, .data = tensor.data.data(), .out_features = 1, .in_features = count};
  read_values(whole(row), 0, 0, count, floats.data());
  return floats;
}

Status check_shape(const TensorRef& tensor, std::span<const int64_t> wanted) {
  if (std::ranges::equal(tensor.spec.shape, wanted)) return {};
  return tensor_error(tensor, "its shape is {}; by config.json it must be {}", shape_text(tensor.spec.shape),
                      shape_text(wanted));
}

}  // namespace cachalot
