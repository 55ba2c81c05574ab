#include "tensor/dtype.h"

#include <algorithm>
#include <iterator>

namespace cachalot {
namespace {

// Rounds `value` to the nearest multiple of 2^exponent, ties to even (the default rounding mode).
float round_to(float value, int exponent) {
  return std::ldexp(std::nearbyint(std::ldexp(value, -exponent)), exponent);
}

}  // namespace

fp16::fp16(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) {
    bits = sign | 0x7e00;
  } else if (magnitude >= 65520.f) {  // rounds past the largest, 65504
    bits = sign | 0x7c00;
  } else if (magnitude < 0x1p-14f) {  // subnormal, in units of 2^-24; may round up to the smallest normal
    bits = sign | static_cast<uint16_t>(std::ldexp(round_to(magnitude, -24), 24));
  } else {
    const float rounded = round_to(magnitude, std::ilogb(magnitude) - 10);
    const int exponent = std::ilogb(rounded);
    const auto mantissa = static_cast<uint16_t>(std::ldexp(rounded, 10 - exponent)) & 0x3ff;
    bits = sign | static_cast<uint16_t>((exponent + 15) << 10) | mantissa;
  }
}

fp16::operator float() const {
  const float sign = bits & 0x8000 ? -1.f : 1.f;
  const int exponent = (bits >> 10) & 31, mantissa = bits & 0x3ff;
  if (exponent == 31) return mantissa ? std::bit_cast<float>(0x7fc00000u) : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
  return sign * std::ldexp(static_cast<float>(mantissa | 0x400), exponent - 25);
}

fp8e4m3::fp8e4m3(float value) {
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) {
    bits = sign | 0x7f;
  } else if (magnitude >= 448.f) {
    bits = sign | 0x7e;
  } else if (magnitude < 0x1p-6f) {  // subnormal, in units of 2^-9
    bits = sign | static_cast<uint8_t>(std::ldexp(round_to(magnitude, -9), 9));
  } else {
    const float rounded = round_to(magnitude, std::ilogb(magnitude) - 3);
    const int exponent = std::ilogb(rounded);
    bits = sign | static_cast<uint8_t>((exponent + 7) << 3) |
           (static_cast<uint8_t>(std::ldexp(rounded, 3 - exponent)) & 7);
  }
}

fp8e4m3::operator float() const {
  const float sign = bits & 0x80 ? -1.f : 1.f;
  const int exponent = (bits >> 3) & 15, mantissa = bits & 7;
  if ((bits & 0x7f) == 0x7f) return std::bit_cast<float>(0x7fc00000u);
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -9);
  return sign * std::ldexp(static_cast<float>(mantissa | 8), exponent - 10);
}

const std::array<float, 256>& fp8_values() {
  static const std::array<float, 256> values = [] {
    std::array<float, 256> table;
    for (size_t bits = 0; bits < table.size(); bits++)
      table[bits] = static_cast<float>(std::bit_cast<fp8e4m3>(static_cast<uint8_t>(bits)));
    return table;
  }();
  return values;
}

namespace {

struct Kind {
  std::string_view name;
  size_t size;
};
constexpr Kind kKinds[] = {
    {"F32", 4}, {"BF16", 2}, {"F16", 2}, {"F8_E4M3", 1}, {"I64", 8}, {"I32", 4},
    {"I16", 2}, {"I8", 1},   {"U8", 1},  {"BOOL", 1},    {"F64", 8}, {"F8_E8M0", 1}};  // in the order of DType
static_assert(std::size(kKinds) == static_cast<size_t>(DType::kF8E8M0) + 1);

}  // namespace

size_t dtype_size(DType dtype) {
  return kKinds[static_cast<size_t>(dtype)].size;
}

std::string_view dtype_name(DType dtype) {
  return kKinds[static_cast<size_t>(dtype)].name;
}

std::optional<DType> dtype_by_name(std::string_view name) {
  const auto kind = std::ranges::find(kKinds, name, &Kind::name);
  return kind == std::end(kKinds) ? std::nullopt : std::optional(static_cast<DType>(kind - kKinds));
}

}  // namespace cachalot
