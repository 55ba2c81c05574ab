#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "base/math.h"
#include "kernels/matrix.h"

// Random weights as checkpoints hold them, for tests and benchmarks.
namespace cachalot {

inline float element(const void* data, DType dtype, int64_t idx) {
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

inline float scale_of(const WeightSource& source, int64_t idx) {
  if (source.scale_dtype != DType::kF8E8M0) return element(source.scales, source.scale_dtype, idx);
  return std::ldexp(1.f, int{static_cast<const uint8_t*>(source.scales)[idx]} - 127);
}

// Number `idx` of those of so many bits that lie one behind the other.
inline int bits_of(const void* data, int bits, int64_t idx) {
  const int byte = static_cast<const uint8_t*>(data)[idx * bits / 8];
  return bits == 8 ? byte : byte >> (idx % 2 * 4) & 15;
}

// The plain definition of what a weight is. Row `out` of the window, inputs [in, in + count) of the window.
inline void dequantize(const WeightSource& source, int64_t out, int64_t in, int64_t count, float* values) {
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
        values[idx] = element(source.data, DType::kF8E4M3, row * source.in_features + col) *
                      scale_of(source, row / source.block_rows * blocks + col / source.block_cols);
        break;
      }
      case SourceFormat::kAwq: {
        const IntElement weight = int_element(source, out, in + idx);
        values[idx] = static_cast<float>(weight.quantum - weight.zero) * weight.scale;
        break;
      }
      case SourceFormat::kPackedInt: {
        const int64_t per_word = 32 / source.bits, groups = ceil_div(source.in_features, source.group_size);
        const int64_t group = col / source.group_size, zero_word = row / per_word * groups + group;
        const int quantum = bits_of(source.data, source.bits, row * round_up(source.in_features, per_word) + col);
        const int zero = source.zeros ? bits_of(source.zeros, source.bits, zero_word * per_word + row % per_word)
                                      : 1 << (source.bits - 1);
        values[idx] = static_cast<float>(quantum - zero) * scale_of(source, row * groups + group);
        break;
      }
      case SourceFormat::kMxfp4: {
        constexpr float kMagnitudes[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
        const int code = bits_of(source.data, 4, row * source.in_features + col);
        const float scale = scale_of(source, row * (source.in_features / 32) + col / 32);
        values[idx] = kMagnitudes[code & 7] * (code & 8 && (code & 7) ? -scale : scale);
        break;
      }
    }
  }
}

inline constexpr MatrixPolicy kBFloat16{};
inline constexpr MatrixPolicy kInt8{.int8_activations = true};

struct Window {
  int64_t out_begin, out_count, in_begin, in_count;
};

// The source borrows the sample's memory. Scales have both signs; those of AWQ are fp16 and bf16 numbers.
class WeightSample {
 public:
  static WeightSample plain(DType dtype, int64_t out_features, int64_t in_features, uint32_t seed = 1) {
    WeightSample sample(SourceFormat::kPlain, out_features, in_features, seed);
    sample.source_.dtype = dtype;
    for (int64_t idx = 0; idx < out_features * in_features; idx++) sample.append(sample.data_, dtype, sample.normal());
    return sample;
  }
  static WeightSample fp8(int64_t out_features, int64_t in_features, int block_rows = 128, int block_cols = 128,
                          uint32_t seed = 1) {
    WeightSample sample(SourceFormat::kFp8Block, out_features, in_features, seed);
    sample.source_.block_rows = block_rows;
    sample.source_.block_cols = block_cols;
    for (int64_t idx = 0; idx < out_features * in_features; idx++)
      sample.append(sample.data_, DType::kF8E4M3, 100 * sample.normal());
    const int64_t blocks = (out_features + block_rows - 1) / block_rows * ((in_features + block_cols - 1) / block_cols);
    for (int64_t idx = 0; idx < blocks; idx++) sample.append(sample.scales_, DType::kF32, 0.01f * sample.normal());
    return sample;
  }
  static WeightSample awq(int64_t out_features, int64_t in_features, int group_size, DType scale_dtype,
                          uint32_t seed = 1) {
    WeightSample sample(SourceFormat::kAwq, out_features, in_features, seed);
    sample.source_.group_size = group_size;
    sample.source_.scale_dtype = scale_dtype;
    const int64_t groups = (in_features + group_size - 1) / group_size;
    sample.append_random(sample.data_, in_features * out_features / 2);
    sample.append_random(sample.zeros_, groups * out_features / 2);
    for (int64_t idx = 0; idx < groups * out_features; idx++) {
      // Seven bits of mantissa, which both kinds of half precision have; some below fp16's smallest normal number.
      const auto mantissa = static_cast<float>(128 + sample.random_() % 128);
      const float magnitude = std::ldexp(mantissa, idx % 50 == 7 ? -24 : -14 - static_cast<int>(sample.random_() % 3));
      sample.append(sample.scales_, scale_dtype, sample.random_() % 2 ? magnitude : -magnitude);
    }
    return sample;
  }

  // compressed-tensors' words; scales as those of AWQ. `zeros`: with zero points.
  static WeightSample packed(int bits, int64_t out_features, int64_t in_features, int group_size, DType scale_dtype,
                             bool zeros, uint32_t seed = 1) {
    WeightSample sample(SourceFormat::kPackedInt, out_features, in_features, seed);
    sample.source_.bits = bits;
    sample.source_.group_size = group_size;
    sample.source_.scale_dtype = scale_dtype;
    const int64_t groups = ceil_div(in_features, group_size), per_word = 32 / bits;
    sample.append_random(sample.data_, out_features * ceil_div(in_features, per_word) * 4);
    if (zeros) sample.append_random(sample.zeros_, ceil_div(out_features, per_word) * groups * 4);
    for (int64_t idx = 0; idx < groups * out_features; idx++)
      sample.append(sample.scales_, scale_dtype,
                    std::ldexp(static_cast<float>(128 + sample.random_() % 128), -14 - static_cast<int>(idx % 3)));
    return sample;
  }
  // Scales of 2^-3 to 2^4, and now and then the smallest there are.
  static WeightSample mxfp4(int64_t out_features, int64_t in_features, uint32_t seed = 1) {
    WeightSample sample(SourceFormat::kMxfp4, out_features, in_features, seed);
    sample.source_.group_size = 32;
    sample.source_.scale_dtype = DType::kF8E8M0;
    sample.append_random(sample.data_, out_features * in_features / 2);
    for (int64_t idx = 0; idx < out_features * in_features / 32; idx++)
      append_value(sample.scales_, static_cast<uint8_t>(idx % 50 == 7 ? idx / 50 % 3 : 124 + sample.random_() % 8));
    return sample;
  }

  WeightSource window(const Window& window) const {
    WeightSource source = source_;
    source.data = data_.data();
    source.scales = scales_.data();
    source.zeros = zeros_.empty() ? nullptr : zeros_.data();
    source.out_begin = window.out_begin;
    source.out_count = window.out_count;
    source.in_begin = window.in_begin;
    source.in_count = window.in_count;
    return source;
  }
  WeightSource all() const { return window({0, source_.out_features, 0, source_.in_features}); }

  void set_scale(int64_t idx, float value) {
    std::memcpy(scales_.data() + idx * static_cast<int64_t>(sizeof(float)), &value, sizeof(value));
  }

 private:
  WeightSample(SourceFormat format, int64_t out_features, int64_t in_features, uint32_t seed) : random_(seed) {
    source_.format = format;
    source_.out_features = out_features;
    source_.in_features = in_features;
  }

  float normal() { return normal_(random_); }

  template <class T>
  static void append_value(std::vector<std::byte>& bytes, T value) {
    const auto* begin = reinterpret_cast<const std::byte*>(&value);
    bytes.insert(bytes.end(), begin, begin + sizeof(value));
  }
  static void append(std::vector<std::byte>& bytes, DType dtype, float value) {
    if (dtype == DType::kF32) append_value(bytes, value);
    if (dtype == DType::kBF16) append_value(bytes, bf16(value));
    if (dtype == DType::kF16) append_value(bytes, fp16(value));
    if (dtype == DType::kF8E4M3) append_value(bytes, fp8e4m3(value));
  }
  void append_random(std::vector<std::byte>& bytes, int64_t count) {
    for (int64_t idx = 0; idx < count; idx += 4) append_value(bytes, static_cast<uint32_t>(random_()));
  }

  WeightSource source_;
  std::vector<std::byte> data_, scales_, zeros_;
  std::mt19937 random_;
  std::normal_distribution<float> normal_;
};

}  // namespace cachalot
