#include "kernels/matrix.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "base/math.h"

namespace cachalot {

float scale_at(const WeightSource& source, int64_t idx) {
  switch (source.scale_dtype) {
    case DType::kF32:
      return static_cast<const float*>(source.scales)[idx];
    case DType::kF16:
      return static_cast<float>(static_cast<const fp16*>(source.scales)[idx]);
    case DType::kBF16:
      return static_cast<float>(static_cast<const bf16*>(source.scales)[idx]);
    default:
      return e8m0_value(static_cast<const uint8_t*>(source.scales)[idx]);
  }
}

IntElement int_element(const WeightSource& source, int64_t out, int64_t in) {
  const int64_t column = source.in_begin + in, row = source.out_begin + out, group = column / source.group_size;
  const auto *data = static_cast<const uint32_t*>(source.data), *zeros = static_cast<const uint32_t*>(source.zeros);
  if (source.format == SourceFormat::kAwq) {
    const int64_t words = source.out_features / 8;
    const auto nibble = [&](uint32_t word) { return static_cast<uint8_t>((word >> kAwqShift[row % 8]) & 15); };
    return {.quantum = nibble(data[column * words + row / 8]),
            .zero = nibble(zeros ? zeros[group * words + row / 8] : 0x88888888u),
            .scale = scale_at(source, group * source.out_features + row)};
  }
  const int64_t groups = ceil_div(source.in_features, source.group_size), per_word = 32 / source.bits;
  const auto part = [&](uint32_t word, int64_t place) {
    return static_cast<uint8_t>((word >> (place % per_word * source.bits)) & ((1u << source.bits) - 1));
  };
  return {
      .quantum = part(data[row * ceil_div(source.in_features, per_word) + column / per_word], column),
      .zero = zeros ? part(zeros[row / per_word * groups + group], row) : static_cast<uint8_t>(1u << (source.bits - 1)),
      .scale = scale_at(source, row * groups + group)};
}

namespace {

constexpr int kFp8Block = 128;

// Of a block: its weights, one scale an output, and all zero points.
struct BlockParts {
  int weight_bits, scale_bytes, zeros_bytes;
};
BlockParts parts_of(MatrixFormat format) {
  constexpr BlockParts kParts[] = {{32, 0, 0}, {16, 0, 0}, {8, 4, 0}, {8, 4, 0},
                                   {4, 2, 8},  {4, 2, 8},  {4, 2, 0}};  // by MatrixFormat
  return kParts[static_cast<size_t>(format)];
}

template <class T>
T load(const std::byte* data, int64_t idx) {
  T value;
  std::memcpy(&value, data + idx * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

int nibble(std::byte byte, bool high) {
  return std::to_integer<int>(high ? byte >> 4 : byte & std::byte{15});
}

// Whether rounding to fp16 would change the number.
bool is_fp16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value) & 0x7fffffffu;
  if (bits == 0) return true;
  const int exponent = static_cast<int>(bits >> 23) - 127;
  if (exponent > 15 || exponent < -24) return false;
  const int dropped = 13 + std::max(-14 - exponent, 0);  // mantissa bits that fp16 does not have; more below 2^-14
  return (bits & ((1u << dropped) - 1)) == 0;
}

bool is_bf16(float value) {
  return (std::bit_cast<uint32_t>(value) & 0xffff) == 0;
}

// Whether every float scale of the window of an int4 source is such a number.
template <class IsKind>
bool all_scales(const WeightSource& source, IsKind is_kind) {
  const bool by_output = source.format == SourceFormat::kPackedInt;
  const int64_t num_groups = ceil_div(source.in_features, source.group_size);
  const int64_t group_end = ceil_div(source.in_begin + source.in_count, source.group_size);
  for (int64_t group = source.in_begin / source.group_size; group < group_end; group++) {
    for (int64_t out = source.out_begin; out < source.out_begin + source.out_count; out++) {
      if (!is_kind(scale_at(source, by_output ? out * num_groups + group : group * source.out_features + out)))
        return false;
    }
  }
  return true;
}

// The int4 format whose scales hold the source's; of 16 bits they are what they are, and no data is touched.
std::optional<MatrixFormat> int4_format(const WeightSource& source) {
  if (source.scale_dtype == DType::kF16) return MatrixFormat::kI4;
  if (source.scale_dtype == DType::kBF16) return MatrixFormat::kI4Bf16;
  if (all_scales(source, is_fp16)) return MatrixFormat::kI4;
  if (all_scales(source, is_bf16)) return MatrixFormat::kI4Bf16;
  return std::nullopt;
}

// Whether blocks of so many inputs begin and end where the window does, and none has two groups.
bool follows_groups(const WeightSource& source, int block_inputs) {
  return source.in_begin % block_inputs == 0 &&
         (source.group_size % block_inputs == 0 || source.group_size >= source.in_features);
}

MatrixShape shape_of(const WeightSource& source, MatrixFormat format, int block_inputs) {
  return {.format = format,
          .out_features = source.out_count,
          .in_features = source.in_count,
          .block_inputs = block_inputs,
          .first_block_inputs = block_inputs};
}

// What holds any weight: expanded to floats.
MatrixShape expanded_shape(const WeightSource& source, const MatrixPolicy& policy) {
  return shape_of(source, policy.float32 ? MatrixFormat::kF32 : MatrixFormat::kBF16, 2);
}

MatrixShape plan_fp8(const WeightSource& source, const MatrixPolicy& policy) {
  if (policy.int8_activations && !policy.float32) return shape_of(source, MatrixFormat::kI8, 64);
  if (source.block_cols % kFp8Block != 0) return expanded_shape(source, policy);
  MatrixShape shape = shape_of(source, MatrixFormat::kF8, kFp8Block);
  shape.first_block_inputs -= static_cast<int>(source.in_begin % kFp8Block);
  return shape;
}

MatrixShape plan_int4(const WeightSource& source, const MatrixPolicy& policy) {
  const std::optional<MatrixFormat> format = int4_format(source);
  if (!format || source.in_count % 32 != 0 || !follows_groups(source, 32)) return expanded_shape(source, policy);
  return shape_of(source, *format, follows_groups(source, 64) ? 64 : 32);
}

MatrixShape plan_int8(const WeightSource& source, const MatrixPolicy& policy) {
  if (source.zeros || !follows_groups(source, 64)) return expanded_shape(source, policy);
  return shape_of(source, MatrixFormat::kI8, 64);
}

MatrixShape plan_mxfp4(const WeightSource& source, const MatrixPolicy& policy) {
  if (source.in_count % 32 != 0 || !follows_groups(source, 32)) return expanded_shape(source, policy);
  return shape_of(source, MatrixFormat::kF4, 32);
}

}  // namespace

int64_t MatrixShape::num_blocks() const {
  return 1 + ceil_div(std::max<int64_t>(in_features - first_block_inputs, 0), block_inputs);
}

size_t MatrixShape::scales_offset() const {
  return static_cast<size_t>(kStrip * block_inputs * parts_of(format).weight_bits / 8);
}

size_t MatrixShape::zeros_offset() const {
  return scales_offset() + static_cast<size_t>(kStrip * parts_of(format).scale_bytes);
}

size_t MatrixShape::block_bytes() const {
  return zeros_offset() + static_cast<size_t>(parts_of(format).zeros_bytes);
}

MatrixShape plan_matrix(const WeightSource& source, const MatrixPolicy& policy) {
  switch (source.format) {
    case SourceFormat::kPlain:
      return shape_of(source, source.dtype == DType::kBF16 ? MatrixFormat::kBF16 : MatrixFormat::kF32, 2);
    case SourceFormat::kFp8Block:
      return plan_fp8(source, policy);
    case SourceFormat::kAwq:
      return plan_int4(source, policy);
    case SourceFormat::kPackedInt:
      return source.bits == 4 ? plan_int4(source, policy) : plan_int8(source, policy);
    case SourceFormat::kMxfp4:
      return plan_mxfp4(source, policy);
  }
  CHECK(false, "source format {}", static_cast<int>(source.format));
}

MatrixShape plan_gate_up(const WeightSource& gate, const WeightSource& up, const MatrixPolicy& policy) {
  CHECK(gate.out_count == up.out_count && gate.in_count == up.in_count, "gate is [{}, {}], up is [{}, {}]",
        gate.out_count, gate.in_count, up.out_count, up.in_count);
  MatrixShape shape = plan_matrix(gate, policy);
  if (shape != plan_matrix(up, policy)) shape = expanded_shape(gate, policy);
  shape.out_features = 2 * kStrip * shape.num_strips();
  return shape;
}

PackedElement packed_element(const PackedMatrix& matrix, int64_t out, int64_t in) {
  const MatrixShape& shape = matrix.shape;
  const int64_t past_first = in - shape.first_block_inputs;
  const int64_t block_idx = past_first < 0 ? 0 : 1 + past_first / shape.block_inputs;
  const int64_t place = past_first < 0 ? in : past_first % shape.block_inputs;
  const int64_t lane = out % kStrip;
  const std::byte* block = matrix.data + static_cast<size_t>(out / kStrip) * shape.strip_bytes() +
                           static_cast<size_t>(block_idx) * shape.block_bytes();
  const std::byte* scales = block + shape.scales_offset();
  const int64_t quad = place / 4 * 64 + lane * 4 + place % 4;
  switch (shape.format) {
    case MatrixFormat::kF32:
      return {load<float>(block, lane * 2 + place), 1};
    case MatrixFormat::kBF16:
      return {static_cast<float>(load<bf16>(block, lane * 2 + place)), 1};
    case MatrixFormat::kF8:
      return {static_cast<float>(load<fp8e4m3>(block, quad)), load<float>(scales, lane)};
    case MatrixFormat::kI8:
      return {static_cast<float>(load<int8_t>(block, quad)), load<float>(scales, lane)};
    case MatrixFormat::kF4:
      return {static_cast<float>(kE2m1Doubled[nibble(block[place / 8 * 64 + lane * 4 + place % 4], place & 4)]),
              static_cast<float>(load<bf16>(scales, lane))};
    case MatrixFormat::kI4:
    case MatrixFormat::kI4Bf16: {
      const std::byte* zeros = block + shape.zeros_offset();
      const int weight = nibble(block[place / 8 * 64 + lane * 4 + place % 4], place & 4);
      const int zero = nibble(zeros[(lane & 1) * 4 + (lane >> 2)], (lane >> 1) & 1);
      return {static_cast<float>(weight - zero), shape.format == MatrixFormat::kI4
                                                     ? static_cast<float>(load<fp16>(scales, lane))
                                                     : static_cast<float>(load<bf16>(scales, lane))};
    }
  }
  CHECK(false, "matrix format {}", static_cast<int>(shape.format));
}

}  // namespace cachalot
