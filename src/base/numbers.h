#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

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

}  // namespace cachalot
