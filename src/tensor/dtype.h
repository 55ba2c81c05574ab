#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

// The small floating-point numbers of checkpoints and caches, with plain conversions. Kernels have fast ones of their
// own.
namespace cachalot {

// bfloat16: the upper half of a float. Conversion rounds to nearest, ties to even; NaN stays NaN.
struct bf16 {
  uint16_t bits = 0;

  bf16() = default;
  explicit bf16(float value) {
    const uint32_t word = std::bit_cast<uint32_t>(value);
    bits = std::isnan(value) ? static_cast<uint16_t>((word >> 16) | 0x40)
                             : static_cast<uint16_t>((word + 0x7fff + ((word >> 16) & 1)) >> 16);
  }
  explicit operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
  static bf16 from_bits(uint16_t bits) {
    bf16 value;
    value.bits = bits;
    return value;
  }
};

// IEEE half precision, subnormals included.
struct fp16 {
  uint16_t bits = 0;

  fp16() = default;
  explicit fp16(float value);
  explicit operator float() const;
  static fp16 from_bits(uint16_t bits) {
    fp16 value;
    value.bits = bits;
    return value;
  }
};

// OCP fp8 e4m3 ("fn"): no infinities, 0x7f and 0xff are NaN, largest 448, smallest subnormal 2^-9.
struct fp8e4m3 {
  uint8_t bits = 0;

  fp8e4m3() = default;
  explicit fp8e4m3(float value);  // to nearest, ties to even, saturates at 448
  explicit operator float() const;
  static fp8e4m3 from_bits(uint8_t bits) {
    fp8e4m3 value;
    value.bits = bits;
    return value;
  }
};

static_assert(sizeof(bf16) == 2 && sizeof(fp16) == 2 && sizeof(fp8e4m3) == 1);

// Kinds of elements, with the names that safetensors give them.

enum class DType { kF32, kBF16, kF16, kF8E4M3, kI64, kI32, kI16, kI8, kU8, kBool, kF64 };

size_t dtype_size(DType dtype);
std::string_view dtype_name(DType dtype);  // as in safetensors: "F32", "BF16", "F8_E4M3", ...

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
  return DType::kF32;
}
template <>
constexpr DType dtype_of<bf16>() {
  return DType::kBF16;
}
template <>
constexpr DType dtype_of<fp16>() {
  return DType::kF16;
}

}  // namespace cachalot
