#include "kernels/weight_source.h"

#include "base/check.h"
#include "base/math.h"

namespace cachalot {
namespace {

constexpr int kAwqShift[8] = {0, 16, 4, 20, 8, 24, 12, 28};  // bit position of output 8*w + i inside its word

float element(const void* data, DType dtype, int64_t idx) {
  switch (dtype) {
    case DType::kF32:
      return static_cast<const float*>(data)[idx];
    case DType::kBF16:
      return static_cast<float>(static_cast<const bf16*>(data)[idx]);
    case DType::kF16:
      return static_cast<float>(static_cast<const fp16*>(data)[idx]);
    case DType::kF8E4M3:
      return static_cast<float>(static_cast<const fp8e4m3*>(data)[idx]);
    default:
      CHECK(false, "no number: {}", dtype_name(dtype));
  }
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
          .scale = element(source.scales, source.scale_dtype, group * source.out_features + col)};
}

void dequantize(const WeightSource& source, int64_t out, int64_t in, int64_t count, float* values) {
  CHECK(out >= 0 && out < source.out_count && in >= 0 && in + count <= source.in_count);
  const int64_t row = source.out_begin + out;
  for (int64_t idx = 0; idx < count; idx++) {
    const int64_t col = source.in_begin + in + idx;
    switch (source.format) {
      case SourceFormat::kPlain:
        values[idx] = element(source.data, source.dtype, row * source.in_features + col);
        break;
      case SourceFormat::kFp8Block: {
        const int64_t blocks = ceil_div(source.in_features, source.block_cols);
        values[idx] =
            element(source.data, DType::kF8E4M3, row * source.in_features + col) *
            static_cast<const float*>(source.scales)[row / source.block_rows * blocks + col / source.block_cols];
        break;
      }
      case SourceFormat::kAwq: {
        const AwqElement weight = awq_element(source, out, in + idx);
        values[idx] = static_cast<float>(weight.nibble - weight.zero) * weight.scale;
        break;
      }
    }
  }
}

}  // namespace cachalot
