#include "weights/linear_source.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/math.h"
#include "weights/weight_catalog.h"

namespace cachalot {
namespace {

constexpr int kNibblesPerWord = 8;
constexpr int kMxGroup = 32;  // inputs that share a scale of MXFP4

// What stands behind a linear's name.
struct Part {
  std::string_view ending;
  const TensorRef* LinearParts::* member;
  std::string_view reason = {};  // of a part that is not read: what it asks for
};
constexpr Part kParts[] = {
    {"weight", &LinearParts::weight},
    {"weight_packed", &LinearParts::packed},
    {"weight_scale", &LinearParts::scale},
    {"weight_scale_inv", &LinearParts::scale},
    {"scale", &LinearParts::scale},
    {"weight_zero_point", &LinearParts::zero_point},
    {"weight_shape", &LinearParts::shape},
    {"qweight", &LinearParts::qweight},
    {"qzeros", &LinearParts::qzeros},
    {"scales", &LinearParts::scales},
    {"weight_g_idx", &LinearParts::refused, "inputs in an order of their own (activation order)"},
    {"g_idx", &LinearParts::refused, "inputs in an order of their own (GPTQ)"},
    {"weight_global_scale", &LinearParts::refused, "a scale of scales (NVFP4)"},
    {"weight_scale_2", &LinearParts::refused, "a scale of scales (NVFP4)"},
    {"input_scale", &LinearParts::refused, "static activations"},
    {"input_global_scale", &LinearParts::refused, "static activations"},
    {"input_zero_point", &LinearParts::refused, "static activations"},
    {"bitmask", &LinearParts::refused, "sparse weights"},
    {"compressed", &LinearParts::refused, "sparse weights"},
};

Status check_tensor(const TensorRef& tensor, DType dtype, std::span<const int64_t> shape) {
  if (tensor.spec.dtype == dtype) return check_shape(tensor, shape);
  return tensor_error(tensor, "its dtype is {}; it must be {}", dtype_name(tensor.spec.dtype), dtype_name(dtype));
}

bool is_scale_dtype(DType dtype) {
  return is_float_dtype(dtype) || dtype == DType::kF8E8M0;
}

// Scales of blocks, of rows, or of the whole: by their shape.
Result<WeightSource> fp8_source(const LinearParts& parts, WeightSource source) {
  if (!parts.scale)
    return tensor_error(*parts.weight, "{}_scale_inv, the scales of its blocks, is missing", parts.weight->spec.name);
  const TensorSpec& scale = parts.scale->spec;
  if (!is_scale_dtype(scale.dtype))
    return tensor_error(*parts.scale, "its dtype is {}; it must be F32, BF16, F16 or F8_E8M0", dtype_name(scale.dtype));
  const int64_t out = source.out_features, in = source.in_features,
                count = static_cast<int64_t>(scale.num_bytes() / dtype_size(scale.dtype));
  source.format = SourceFormat::kFp8Block;
  if (count == out && (scale.shape.size() == 1 || (scale.shape.size() == 2 && scale.shape[0] == out))) {
    source.block_rows = 1;
    source.block_cols = static_cast<int>(round_up(in, kFp8Block));
  } else if (count == 1) {
    source.block_rows = static_cast<int>(out);
    source.block_cols = static_cast<int>(round_up(in, kFp8Block));
  } else {
    source.block_rows = source.block_cols = kFp8Block;
    RETURN_IF_ERROR(check_shape(*parts.scale, std::array{ceil_div(out, kFp8Block), ceil_div(in, kFp8Block)}));
  }
  source.scales = parts.scale->data.data();
  source.scale_dtype = scale.dtype;
  return whole(source);
}

// MXFP4, of `data` [out, in/2].
Result<WeightSource> mxfp4_source(const LinearParts& parts, const TensorRef& data, WeightSource source) {
  const int64_t out = source.out_features, in = source.in_features;
  if (!parts.scale) return tensor_error(data, "its scales are missing");
  if (in % kMxGroup != 0) return tensor_error(data, "{} inputs are no multiple of {}", in, kMxGroup);
  if (parts.scale->spec.dtype != DType::kU8 && parts.scale->spec.dtype != DType::kF8E8M0)
    return tensor_error(*parts.scale, "its dtype is {}; with four bits of floats it must be U8 or F8_E8M0",
                        dtype_name(parts.scale->spec.dtype));
  RETURN_IF_ERROR(check_shape(data, std::array{out, in / 2}));
  RETURN_IF_ERROR(check_shape(*parts.scale, std::array{out, in / kMxGroup}));
  source.format = SourceFormat::kMxfp4;
  source.dtype = DType::kU8;
  source.data = data.data.data();
  source.scales = parts.scale->data.data();
  source.scale_dtype = DType::kF8E8M0;
  source.group_size = kMxGroup;
  return whole(source);
}

// What weight_shape says must be what config.json asks for.
Status check_stored_shape(const TensorRef& tensor, std::array<int64_t, 2> wanted) {
  RETURN_IF_ERROR(check_shape(tensor, std::array<int64_t, 1>{2}));
  std::array<int64_t, 2> stored;
  if (tensor.spec.dtype == DType::kI64) {
    std::memcpy(stored.data(), tensor.data.data(), sizeof stored);
  } else if (tensor.spec.dtype == DType::kI32) {
    std::array<int32_t, 2> narrow;
    std::memcpy(narrow.data(), tensor.data.data(), sizeof narrow);
    std::ranges::copy(narrow, stored.begin());
  } else {
    return tensor_error(tensor, "its dtype is {}; it must be I32 or I64", dtype_name(tensor.spec.dtype));
  }
  if (stored == wanted) return {};
  return tensor_error(tensor, "says {}; by config.json the weight is {}", shape_text(stored), shape_text(wanted));
}

// Bits and group size are what the shapes say.
Result<WeightSource> packed_source(const LinearParts& parts, WeightSource source,
                                   const QuantizationConfig& quantization) {
  const TensorRef& packed = *parts.packed;
  const int64_t out = source.out_features, in = source.in_features;
  if (parts.shape) RETURN_IF_ERROR(check_stored_shape(*parts.shape, {out, in}));
  if (packed.spec.dtype == DType::kU8) return mxfp4_source(parts, packed, source);
  if (!parts.scale) return tensor_error(packed, "its scales, weight_scale, are missing");
  const auto words = [](int64_t count, int bits) { return ceil_div(count * bits, 32); };
  source.bits = packed.spec.shape.size() == 2 && packed.spec.shape[1] == words(in, 8) && in > 4 ? 8 : 4;
  RETURN_IF_ERROR(check_tensor(packed, DType::kI32, std::array{out, words(in, source.bits)}));
  RETURN_IF_ERROR(check_float(*parts.scale));
  const std::vector<int64_t>& shape = parts.scale->spec.shape;
  const int64_t groups = shape.size() == 2 ? shape[1] : 0;
  if (groups < 1 || in % groups != 0 || (groups > 1 && in / groups % 32 != 0))
    return tensor_error(*parts.scale, "its shape is {}; it must be [{}, groups], each of a multiple of 32 inputs of {}",
                        shape_text(shape), out, in);
  RETURN_IF_ERROR(check_shape(*parts.scale, std::array{out, groups}));
  if (parts.zero_point) {
    RETURN_IF_ERROR(check_tensor(*parts.zero_point, DType::kI32, std::array{words(out, source.bits), groups}));
    source.zeros = parts.zero_point->data.data();
  } else if (quantization.format == WeightFormat::kPackedInt && quantization.groups.size() == 1 &&
             quantization.zero_point) {
    return tensor_error(packed, "weight_zero_point is missing, which config.json (symmetric is false) asks for");
  }
  source.format = SourceFormat::kPackedInt;
  source.dtype = DType::kI32;
  source.data = packed.data.data();
  source.scales = parts.scale->data.data();
  source.scale_dtype = parts.scale->spec.dtype;
  source.group_size = static_cast<int>(in / groups);
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

// Scales that are powers of two, of numbers to 448 or to 6.
Status check_powers(const TensorRef& scales, bool of_fp8) {
  const uint8_t largest = of_fp8 ? 246 : 252;  // 448 = 1.75 * 2^8, 6 = 1.5 * 2^2
  const auto* bytes = reinterpret_cast<const uint8_t*>(scales.data.data());
  const auto* const end = bytes + scales.data.size();
  const auto* const found = std::find_if(bytes, end, [&](uint8_t byte) { return byte > largest; });
  if (found == end) return {};
  const auto index = static_cast<size_t>(found - bytes);
  if (*found == 255)
    return tensor_error(scales, "holds a scale that is not finite: {}", not_finite_text(scales, index));
  return tensor_error(scales, "element {} is 2^{}, and what it scales is not finite", index, int{*found} - 127);
}

// Rows [begin, begin + count) of a table that begins at `data`.
std::span<const std::byte> row_bytes(const void* data, int64_t begin, int64_t count, int64_t bytes_per_row) {
  if (!data) return {};
  return {static_cast<const std::byte*>(data) + begin * bytes_per_row, static_cast<size_t>(count * bytes_per_row)};
}

}  // namespace

std::vector<const TensorRef*> LinearParts::all() const {
  std::vector<const TensorRef*> parts;
  for (const TensorRef* part : {weight, packed, scale, zero_point, shape, qweight, qzeros, scales})
    if (part) parts.push_back(part);
  return parts;
}

bool LinearParts::has_four_bits(int64_t in_features) const {
  if (qweight || (weight && weight->spec.dtype == DType::kI8)) return true;
  return packed && packed->data.size() * 2 <= static_cast<size_t>(packed->spec.shape[0] * round_up(in_features, 8));
}

LinearParts find_linear(const Checkpoint& checkpoint, std::string_view prefix) {
  const std::string begin = std::string(prefix) + ".";
  const auto& tensors = checkpoint.tensors();
  LinearParts parts;
  for (auto entry = tensors.lower_bound(begin); entry != tensors.end() && entry->first.starts_with(begin); ++entry) {
    const std::string_view ending = std::string_view(entry->first).substr(begin.size());
    const auto* const part = std::ranges::find(kParts, ending, &Part::ending);
    if (part == std::end(kParts)) continue;
    const bool is_second = parts.*part->member && part->member == &LinearParts::scale;
    const TensorRef*& place = is_second ? parts.refused : parts.*part->member;
    place = &entry->second;
    if (place == parts.refused) parts.reason = is_second ? "two tensors of scales" : part->reason;
  }
  return parts;
}

Result<WeightSource> linear_source(const LinearParts& parts, std::string_view prefix, int64_t out_features,
                                   int64_t in_features, const QuantizationConfig& quantization) {
  CHECK(parts.found());
  WeightSource source{.out_features = out_features, .in_features = in_features};
  if (parts.refused) {
    Error error = tensor_error(*parts.refused, "asks for {}, which is not supported", parts.reason).error();
    error.code = ErrorCode::kUnsupported;
    return std::unexpected(std::move(error));
  }
  const TensorRef* const other = parts.qweight ? parts.qweight : parts.packed;
  if (other && (parts.weight || (parts.qweight && parts.packed)))
    return tensor_error(*other, "{}.{} is there as well; a layer must have one of them", prefix,
                        parts.weight ? "weight" : "weight_packed");
  if (parts.qweight) return awq_source(parts, prefix, source, quantization);
  if (parts.packed) return packed_source(parts, source, quantization);

  source.dtype = parts.weight->spec.dtype;
  if (source.dtype == DType::kI8 && parts.scale) return mxfp4_source(parts, *parts.weight, source);
  RETURN_IF_ERROR(check_shape(*parts.weight, std::array{out_features, in_features}));
  source.data = parts.weight->data.data();
  if (source.dtype == DType::kF8E4M3) return fp8_source(parts, source);
  if (!is_float_dtype(source.dtype))
    return tensor_error(*parts.weight, "its dtype is {}; a weight must be F32, BF16, F16 or F8_E4M3",
                        dtype_name(source.dtype));
  if (parts.scale) return tensor_error(*parts.scale, "has no place beside a weight of {}", dtype_name(source.dtype));
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
  for (const TensorRef* scales : {parts.scale, parts.scales}) {
    if (!scales) continue;
    if (const auto index = first_not_finite(scales->data, scales->spec.dtype))
      return tensor_error(*scales, "holds a scale that is not finite: {}", not_finite_text(*scales, *index));
    if (scales->spec.dtype == DType::kU8 || scales->spec.dtype == DType::kF8E8M0) {
      RETURN_IF_ERROR(check_powers(*scales, parts.weight && parts.weight->spec.dtype == DType::kF8E4M3));
      continue;
    }
    if (scales->spec.dtype == DType::kF16 || !is_float_dtype(scales->spec.dtype)) continue;
    const bool of_fp8 = parts.weight != nullptr;
    const float largest_step = of_fp8 ? 448 : parts.packed ? 255 : 15;
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
  const auto scale_bytes = static_cast<int64_t>(dtype_size(source.scale_dtype));
  const auto own_rows = [&](const void* data, int64_t bytes_per_row) {
    return row_bytes(data, source.out_begin, source.out_count, bytes_per_row);
  };
  switch (source.format) {
    case SourceFormat::kAwq: {  // its rows are inputs
      const int64_t first_group = source.in_begin / source.group_size;
      const int64_t groups = ceil_div(source.in_begin + source.in_count, source.group_size) - first_group;
      return {row_bytes(source.data, source.in_begin, source.in_count, out / 2),
              row_bytes(source.scales, first_group, groups, out * scale_bytes),
              row_bytes(source.zeros, first_group, groups, out / 2)};
    }
    case SourceFormat::kPackedInt: {
      const int64_t groups = ceil_div(in, source.group_size), per_word = 32 / source.bits;
      const int64_t first_word = source.out_begin / per_word;
      return {own_rows(source.data, ceil_div(in, per_word) * 4), own_rows(source.scales, groups * scale_bytes),
              row_bytes(source.zeros, first_word, ceil_div(source.out_begin + source.out_count, per_word) - first_word,
                        groups * 4)};
    }
    case SourceFormat::kMxfp4:
      return {own_rows(source.data, in / 2), own_rows(source.scales, in / source.group_size), {}};
    case SourceFormat::kFp8Block: {
      const int64_t first_block = source.out_begin / source.block_rows;
      const int64_t blocks = ceil_div(source.out_begin + source.out_count, source.block_rows) - first_block;
      return {own_rows(source.data, in),
              row_bytes(source.scales, first_block, blocks, ceil_div(in, source.block_cols) * scale_bytes),
              {}};
    }
    case SourceFormat::kPlain:
      break;
  }
  return {own_rows(source.data, in * static_cast<int64_t>(dtype_size(source.dtype))), {}, {}};
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
