#include "kernels/matrix.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/error.h"
#include "base/math.h"

namespace cachalot {
namespace {

// Of scales, as AWQ files hold them.
float scale_at(const void* data, DType dtype, int64_t idx) {
  if (dtype == DType::kF32) return static_cast<const float*>(data)[idx];
  return dtype == DType::kF16 ? static_cast<float>(static_cast<const fp16*>(data)[idx])
                              : static_cast<float>(static_cast<const bf16*>(data)[idx]);
}

}  // namespace

AwqElement awq_element(const WeightSource& source, int64_t out, int64_t in) {
  const int64_t row = source.in_begin + in, col = source.out_begin + out, words = source.out_features / 8;
  const int64_t group = row / source.group_size;
  const int shift = kAwqShift[col % 8];
  const uint32_t weights = static_cast<const uint32_t*>(source.data)[row * words + col / 8];
  const uint32_t zeros =
      source.zeros ? static_cast<const uint32_t*>(source.zeros)[group * words + col / 8] : 0x88888888u;
  return {.nibble = static_cast<uint8_t>((weights >> shift) & 15),
          .zero = static_cast<uint8_t>((zeros >> shift) & 15),
          .scale = scale_at(source.scales, source.scale_dtype, group * source.out_features + col)};
}

namespace {

constexpr int kFp8Block = 128;

// Of a block: its weights, one scale an output, and all zero points.
struct BlockParts {
  int weight_bits, scale_bytes, zeros_bytes;
};
BlockParts parts_of(MatrixFormat format) {
  constexpr BlockParts kParts[] = {{32, 0, 0}, {16, 0, 0}, {8, 4, 0}, {8, 4, 0}, {4, 2, 8}};  // by MatrixFormat
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

// Whether every scale of the window of an AWQ source is an fp16 number.
bool has_fp16_scales(const WeightSource& source) {
  if (source.scale_dtype == DType::kF16) return true;
  const int64_t group_end = ceil_div(source.in_begin + source.in_count, source.group_size);
  for (int64_t group = source.in_begin / source.group_size; group < group_end; group++) {
    for (int64_t out = source.out_begin; out < source.out_begin + source.out_count; out++) {
      if (!is_fp16(scale_at(source.scales, source.scale_dtype, group * source.out_features + out))) return false;
    }
  }
  return true;
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
  if (source.block_cols != kFp8Block) return expanded_shape(source, policy);
  MatrixShape shape = shape_of(source, MatrixFormat::kF8, kFp8Block);
  shape.first_block_inputs -= static_cast<int>(source.in_begin % kFp8Block);
  return shape;
}

MatrixShape plan_awq(const WeightSource& source, const MatrixPolicy& policy) {
  const bool in_halves = source.in_begin % 32 == 0 && source.in_count % 32 == 0 && source.group_size % 32 == 0;
  if (!in_halves || !has_fp16_scales(source)) return expanded_shape(source, policy);
  return shape_of(source, MatrixFormat::kI4, source.group_size % 64 == 0 && source.in_begin % 64 == 0 ? 64 : 32);
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
      return plan_awq(source, policy);
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
    case MatrixFormat::kI4: {
      const std::byte* zeros = block + shape.zeros_offset();
      const int weight = nibble(block[place / 8 * 64 + lane * 4 + place % 4], place & 4);
      const int zero = nibble(zeros[(lane & 1) * 4 + (lane >> 2)], (lane >> 1) & 1);
      return {static_cast<float>(weight - zero), static_cast<float>(load<fp16>(scales, lane))};
    }
  }
  CHECK(false, "matrix format {}", static_cast<int>(shape.format));
}

}  // namespace cachalot
