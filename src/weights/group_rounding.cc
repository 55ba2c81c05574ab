#include "weights/group_rounding.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/matrix.h"

namespace cachalot {
namespace {

constexpr int kLanes = 8;  // sums kept apart: a fixed count of them becomes vector code
constexpr float kMaxNibble = 15, kMinHalf = 0x1p-24f, kMaxHalf = 65504, kMaxE4m3 = 448;
constexpr float kSymmetricZero = 8;
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

float squared_error(const WeightGroup& group, float scale, float zero) {
  const float inverse_scale = 1 / scale;
  float lanes[kLanes] = {};
  for (size_t begin = 0; begin < group.weights.size(); begin += kLanes) {
    const float *block = group.weights.data() + begin, *importance = group.importance.data() + begin;
    for (int lane = 0; lane < kLanes; lane++) {
      const float difference = (nibble_of(block[lane], inverse_scale, zero) - zero) * scale - block[lane];
      lanes[lane] += difference * difference * importance[lane];
    }
  }
  return sum_of(lanes);
}

// The scale that fits the nibbles of this scale best.
float fitted_scale(const WeightGroup& group, float scale, float zero) {
  const float inverse_scale = 1 / scale;
  float products[kLanes] = {}, squares[kLanes] = {};
  for (size_t begin = 0; begin < group.weights.size(); begin += kLanes) {
    const float *block = group.weights.data() + begin, *importance = group.importance.data() + begin;
    for (int lane = 0; lane < kLanes; lane++) {
      const float steps = nibble_of(block[lane], inverse_scale, zero) - zero;
      products[lane] += steps * block[lane] * importance[lane];
      squares[lane] += steps * steps * importance[lane];
    }
  }
  const float square_sum = sum_of(squares);
  return square_sum > 0 ? sum_of(products) / square_sum : scale;
}

// A scale as fp16 holds it; never 0, so that it has an inverse.
float as_half(float scale) {
  return static_cast<float>(fp16(std::clamp(scale, kMinHalf, kMaxHalf)));
}

// A bf16 scale; never 0, nor so small that the kernels take it for 0.
float as_bf16(float scale) {
  return static_cast<float>(bf16(std::max(scale, 0x1p-100f)));
}

struct RoundedGroup {
  float scale;
  double squared_error;
};

// Rounds a group whose range, at its widest, has steps of `widest`; `as_stored` rounds a scale as the format does.
template <class AsStored>
RoundedGroup round_group(const WeightGroup& group, float widest, float zero, AsStored as_stored, uint8_t* nibbles) {
  float searched = widest, least_error = std::numeric_limits<float>::infinity();
  for (int step = 0; step < kNumRanges; step++) {
    const float scale = widest * (1 - kRangeStep * static_cast<float>(step));
    const float error = squared_error(group, scale, zero);
    if (error < least_error) least_error = error, searched = scale;
  }
  // The scale that was found and the one that fits its nibbles best; the format's rounding may favour either.
  float best = as_stored(searched), best_error = squared_error(group, best, zero);
  const float fitted = as_stored(fitted_scale(group, searched, zero)),
              fitted_error = squared_error(group, fitted, zero);
  if (fitted_error < best_error) best = fitted, best_error = fitted_error;

  const float inverse_scale = 1 / best;
  for (size_t idx = 0; idx < group.weights.size(); idx++)
    nibbles[idx] = static_cast<uint8_t>(nibble_of(group.weights[idx], inverse_scale, zero));
  return {best, best_error};
}

}  // namespace

AwqGroup quantize_awq_group(const WeightGroup& group, uint8_t* nibbles) {
  const auto [min, max] = std::ranges::minmax(group.weights);
  const float low = std::min(min, 0.f), high = std::max(max, 0.f);  // zero is always one of the values
  const float widest = std::max((high - low) / kMaxNibble, kMinHalf);
  const float zero = std::clamp(round_nearest(-low / widest), 0.f, kMaxNibble);
  const RoundedGroup rounded = round_group(group, widest, zero, as_half, nibbles);
  return {.scale = fp16(rounded.scale), .zero = static_cast<uint8_t>(zero), .squared_error = rounded.squared_error};
}

SymmetricGroup quantize_symmetric_group(const WeightGroup& group, uint8_t* nibbles) {
  const auto [min, max] = std::ranges::minmax(group.weights);
  const float widest = std::max({-min / kSymmetricZero, max / (kMaxNibble - kSymmetricZero), 0x1p-100f});
  const RoundedGroup rounded = round_group(group, widest, kSymmetricZero, as_bf16, nibbles);
  return {.scale = bf16(rounded.scale), .squared_error = rounded.squared_error};
}

namespace {

// The nearest code of a magnitude in halves of a step, ties to the even code: beyond 2 steps are 1 wide, beyond 4, 2.
uint8_t e2m1_code(float value) {
  const float doubled = std::min(std::fabs(value) * 2, 12.f);
  float code = round_nearest(doubled);                                    // 0 .. 4
  if (doubled > 4) code = round_nearest(doubled / 2) + 2;                 // 4 .. 6
  if (doubled > 8) code = std::min(round_nearest(doubled / 4) + 4, 7.f);  // 6, 7
  return static_cast<uint8_t>(code) | (value < 0 && code > 0 ? 8 : 0);
}

double round_mxfp4(const WeightGroup& group, float scale, uint8_t* codes) {
  double squared_error = 0;
  for (size_t idx = 0; idx < group.weights.size(); idx++) {
    codes[idx] = e2m1_code(group.weights[idx] / scale);
    const double difference = 0.5 * kE2m1Doubled[codes[idx]] * scale - group.weights[idx];
    squared_error += difference * difference * group.importance[idx];
  }
  return squared_error;
}

}  // namespace

Mxfp4Group quantize_mxfp4_group(const WeightGroup& group, uint8_t* codes) {
  constexpr int kLargestScale = 252;  // 6 times it is finite
  float largest = 0;
  for (const float weight : group.weights) largest = std::max(largest, std::fabs(weight));
  if (largest < 0x1p-100f) {
    std::ranges::fill_n(codes, std::ssize(group.weights), uint8_t{0});
    return {.scale = 127};
  }
  // The largest weight is 4 to 8 steps of the first, so that only it may be cut off; of the second, 2 to 4.
  const int first = std::ilogb(largest) + 127 - 2, last = std::min(first + 1, kLargestScale);
  Mxfp4Group best;
  std::vector<uint8_t> tried(group.weights.size());
  for (int scale = std::max(first, 0); scale <= last; scale++) {
    const double error = round_mxfp4(group, e8m0_value(static_cast<uint8_t>(scale)), tried.data());
    if (scale > std::max(first, 0) && error >= best.squared_error) continue;
    best = {.scale = static_cast<uint8_t>(scale), .squared_error = error};
    std::ranges::copy(tried, codes);
  }
  return best;
}

void round_trip(WeightFormat format, const WeightGroup& group, uint8_t* codes, float* values) {
  float scale = 0, zero = 0;
  if (format == WeightFormat::kMxfp4) {
    scale = e8m0_value(quantize_mxfp4_group(group, codes).scale);
    for (size_t idx = 0; idx < group.weights.size(); idx++) values[idx] = 0.5f * kE2m1Doubled[codes[idx]] * scale;
    return;
  }
  if (format == WeightFormat::kAwq) {
    const AwqGroup rounded = quantize_awq_group(group, codes);
    scale = static_cast<float>(rounded.scale), zero = rounded.zero;
  } else {
    scale = static_cast<float>(quantize_symmetric_group(group, codes).scale), zero = kSymmetricZero;
  }
  for (size_t idx = 0; idx < group.weights.size(); idx++) values[idx] = (codes[idx] - zero) * scale;
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
