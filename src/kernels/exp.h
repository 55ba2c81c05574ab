#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace cachalot {

// The exponential of all kernels, for x <= 0, the same bits on every level: 0 below kExpLowest; else n = x * log2(e)
// rounded to the nearest integer, r = x - n * ln(2) in two fma, and the Taylor polynomial of degree 7 in r by fma,
// times 2^n. Within 1 ulp or so.
inline constexpr float kExpLowest = -86.f;  // e^-86 = 4.5e-38: above it no result is subnormal
inline constexpr float kLog2E = 1.44269504f;
inline constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;  // ln(2) = high + low; n * high is exact
inline constexpr float kExpTaylor[8] = {1.f / 5040, 1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, 1.f / 2, 1.f, 1.f};

namespace reference {

inline float exp_nonpositive(float x) {
  if (std::isnan(x)) return x;
  if (x < kExpLowest) return 0;
  const float n = std::nearbyint(x * kLog2E);
  const float r = std::fma(n, -kLn2Low, std::fma(n, -kLn2High, x));
  float p = kExpTaylor[0];
  for (int degree = 1; degree < 8; degree++) p = std::fma(p, r, kExpTaylor[degree]);
  return std::bit_cast<float>(std::bit_cast<uint32_t>(p) + (static_cast<uint32_t>(static_cast<int32_t>(n)) << 23));
}

}  // namespace reference
}  // namespace cachalot
