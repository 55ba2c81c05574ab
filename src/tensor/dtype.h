#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <type_traits>

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
};

// IEEE half precision, subnormals included.
struct fp16 {
  uint16_t bits = 0;

  fp16() = default;
  explicit fp16(float value);
  explicit operator float() const;
};

// OCP fp8 e4m3 ("fn"): no infinities, 0x7f and 0xff are NaN, largest 448, smallest subnormal 2^-9.
struct fp8e4m3 {
  uint8_t bits = 0;

  fp8e4m3() = default;
  explicit fp8e4m3(float value);  // to nearest, ties to even, saturates at 448
  explicit operator float() const;
};

// A power of two as MXFP4's scales hold it: 2^(bits - 127); 255 is NaN.
inline float e8m0_value(uint8_t bits) {
  if (bits == 255) return std::bit_cast<float>(0x7fc00000u);
  return std::bit_cast<float>(bits > 0 ? static_cast<uint32_t>(bits) << 23 : 0x00400000u);  // 2^-127 is subnormal
}

// Of every bit pattern of e4m3.
const std::array<float, 256>& fp8_values();

static_assert(sizeof(bf16) == 2 && sizeof(fp16) == 2 && sizeof(fp8e4m3) == 1);

// Kinds of elements, with the names that safetensors give them.
enum class DType { kF32, kBF16, kF16, kF8E4M3, kI64, kI32, kI16, kI8, kU8, kBool, kF64, kF8E8M0 };

size_t dtype_size(DType dtype);
std::string_view dtype_name(DType dtype);  // as in safetensors: "F32", "BF16", "F8_E4M3", ...
std::optional<DType> dtype_by_name(std::string_view name);

template <class T>
constexpr DType dtype_of() {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, bf16> || std::is_same_v<T, fp16>);
  return std::is_same_v<T, float> ? DType::kF32 : std::is_same_v<T, bf16> ? DType::kBF16 : DType::kF16;
}

}  // namespace cachalot
