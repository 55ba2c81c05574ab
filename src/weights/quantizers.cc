#include "weights/quantizers.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace cachalot {
namespace {

constexpr int kLanes = 8;  // sums kept apart: a fixed count of them becomes vector code
constexpr float kMaxNibble = 15, kMinHalf = 0x1p-24f, kMaxHalf = 65504, kMaxE4m3 = 448;
constexpr int kNumRanges = 9;  // 1 to 0.6 of the widest: for normally distributed weights the best is 0.85 to 0.95
constexpr float kRangeStep = 0.05f;

// To the nearest whole number, ties to even: for |value| < 2^22 the sum has no bits left for a fraction.
float round_nearest(float value) {
  constexpr float kShift = 0x1.8p23f;
  return (value + kShift) - kShift;
}

// std::clamp gives back references, which the compiler does not turn into vector code.
float clamped(float value, float low, float high) {
  value = value < low ? low : value;
  return value > high ? high : value;
}

float nibble_of(float weight, float inverse_scale, float zero) {
  // Clamped before it is rounded: a weight far outside a narrow range must not leave the reach of round_nearest.
  return round_nearest(clamped(weight * inverse_scale, -zero, kMaxNibble - zero)) + zero;
}

float sum_of(const float (&lanes)[kLanes]) {
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

float squared_error(std::span<const float> weights, float scale, float zero) {
  const float inverse_scale = 1 / scale;
  float lanes[kLanes] = {};
  for (size_t begin = 0; begin < weights.size(); begin += kLanes) {
    const float* block = weights.data() + begin;
    for (int lane = 0; lane < kLanes; lane++) {
      const float difference = (nibble_of(block[lane], inverse_scale, zero) - zero) * scale - block[lane];
      lanes[lane] += difference * difference;
    }
  }
  return sum_of(lanes);
}

// The scale that fits the nibbles of this scale best.
float fitted_scale(std::span<const float> weights, float scale, float zero) {
  const float inverse_scale = 1 / scale;
  float products[kLanes] = {}, squares[kLanes] = {};
  for (size_t begin = 0; begin < weights.size(); begin += kLanes) {
    const float* block = weights.data() + begin;
    for (int lane = 0; lane < kLanes; lane++) {
      const float steps = nibble_of(block[lane], inverse_scale, zero) - zero;
      products[lane] += steps * block[lane];
      squares[lane] += steps * steps;
    }
  }
  const float square_sum = sum_of(squares);
  return square_sum > 0 ? sum_of(products) / square_sum : scale;
}

// A scale as fp16 holds it; never 0, so that it has an inverse.
float as_half(float scale) {
  return static_cast<float>(fp16(std::clamp(scale, kMinHalf, kMaxHalf)));
}

}  // namespace

AwqGroup quantize_awq_group(std::span<const float> weights, uint8_t* nibbles) {
  const auto [min, max] = std::ranges::minmax(weights);
  const float low = std::min(min, 0.f), high = std::max(max, 0.f);  // zero is always one of the values
  const float widest = std::max((high - low) / kMaxNibble, kMinHalf);
  const float zero = std::clamp(round_nearest(-low / widest), 0.f, kMaxNibble);

  float searched = widest, least_error = std::numeric_limits<float>::infinity();
  for (int step = 0; step < kNumRanges; step++) {
    const float scale = widest * (1 - kRangeStep * static_cast<float>(step));
    const float error = squared_error(weights, scale, zero);
    if (error < least_error) least_error = error, searched = scale;
  }
  // The scale that was found and the one that fits its nibbles best; fp16 may favour either.
  float best = as_half(searched), best_error = squared_error(weights, best, zero);
  const float fitted = as_half(fitted_scale(weights, searched, zero)),
              fitted_error = squared_error(weights, fitted, zero);
  if (fitted_error < best_error) best = fitted, best_error = fitted_error;

  const float inverse_scale = 1 / best;
  for (size_t idx = 0; idx < weights.size(); idx++)
    nibbles[idx] = static_cast<uint8_t>(nibble_of(weights[idx], inverse_scale, zero));
  return {.scale = fp16(best), .zero = static_cast<uint8_t>(zero), .squared_error = best_error};
}

uint8_t encode_e4m3(float value) {
  const auto word = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint8_t>((word >> 24) & 0x80);
  const uint32_t magnitude = word & 0x7fffffff;
  // A subnormal counts steps of 2^-9; eight of them are the bits of the smallest normal number.
  if (std::bit_cast<float>(magnitude) < 0x1p-6f)
    return sign | static_cast<uint8_t>(round_nearest(std::bit_cast<float>(magnitude) * 512));
  // Drop 20 of 23 bits of mantissa, ties to even (a carry moves to the exponent), and change the exponent's bias from
  // 127 to 7.
  const uint32_t rounded = (magnitude + 0x7ffff + ((magnitude >> 20) & 1)) >> 20;
  return sign | static_cast<uint8_t>(rounded - ((127 - 7) << 3));
}

float fp8_block_scale(float max_magnitude) {
  // A block of nearly nothing becomes zeros.
  return max_magnitude < 0x1p-100f ? 1.f : max_magnitude / kMaxE4m3;
}

}  // namespace cachalot
