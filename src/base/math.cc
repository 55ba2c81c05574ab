#include "base/math.h"

#include <limits>

namespace cachalot::portable {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN(), kInfinity = std::numeric_limits<double>::infinity();
constexpr double kRound = 0x1.8p52;  // adding and subtracting it rounds to an integer, ties to even, below 2^51
constexpr double kLog2E = 0x1.71547652b82fep+0, kTwoOverPi = 0x1.45f306dc9c883p-1;

// high + low, of which high is the sum rounded to a double: some 106 bits (Dekker, 1971).
struct Double2 {
  double high = 0, low = 0;
};
constexpr Double2 kLn2 = {0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56};
constexpr double kHalfPi[] = {0x1.921fb54442d18p+0, 0x1.1a62633145c07p-54, -0x1.f1976b7ed8fbcp-110};

// Exact; quick_sum needs |a| >= |b|, product that neither comes near 2^996.
Double2 quick_sum(double a, double b) {
  const double sum = a + b;
  return {sum, b - (sum - a)};
}
Double2 sum(double a, double b) {
  const double sum = a + b, of_b = sum - a;
  return {sum, (a - (sum - of_b)) + (b - of_b)};
}
Double2 split(double a) {
  const double scaled = a * 0x1.0000002p27, high = scaled - (scaled - a);
  return {high, a - high};
}
Double2 product(double a, double b) {
  const double rounded = a * b;
  const auto [a_high, a_low] = split(a);
  const auto [b_high, b_low] = split(b);
  return {rounded, ((a_high * b_high - rounded) + a_high * b_low + a_low * b_high) + a_low * b_low};
}

// Within 2^-100 or so.
Double2 operator+(Double2 a, Double2 b) {
  const Double2 high = sum(a.high, b.high), low = sum(a.low, b.low);
  const Double2 most = quick_sum(high.high, high.low + low.high);
  return quick_sum(most.high, most.low + low.low);
}
Double2 operator*(Double2 a, Double2 b) {
  const Double2 high = product(a.high, b.high);
  return quick_sum(high.high, high.low + (a.high * b.low + a.low * b.high));
}
Double2 operator/(Double2 a, Double2 b) {
  const double quotient = a.high / b.high;
  const Double2 rest = a + Double2{-quotient} * b;
  return quick_sum(quotient, rest.high / b.high);
}

// 2^exponent, for exponents of normal numbers.
double power_of_two(int64_t exponent) {
  return std::bit_cast<double>(static_cast<uint64_t>(exponent + 1023) << 52);
}

// Of a positive, finite x = 2^k m, m between sqrt(1/2) and sqrt(2): k ln 2 + 2 artanh(s), s = (m - 1) / (m + 1), by its
// series s + s^3/3 + s^5/5 + ..., |s| < 0.172.
Double2 log_of_positive(double x) {
  constexpr int kTerms = 21;
  int64_t exponent = 0;
  if (x < std::numeric_limits<double>::min()) {
    x *= 0x1p54;
    exponent = -54;
  }
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  exponent += static_cast<int64_t>(bits >> 52) - 1023;
  double mantissa = std::bit_cast<double>((bits & 0x000f'ffff'ffff'ffff) | 0x3ff0'0000'0000'0000);
  if (mantissa > 0x1.6a09e667f3bcdp0) {
    mantissa *= 0.5;
    exponent++;
  }
  const Double2 s = Double2{mantissa - 1} / sum(mantissa, 1), square = s * s;
  Double2 series;
  for (int term = kTerms; term >= 0; term--) series = series * square + Double2{1} / Double2{2. * term + 1};
  return Double2{static_cast<double>(exponent)} * kLn2 + Double2{2} * s * series;
}

// exp(x) = 2^n exp(r), n the integer nearest to x / ln 2 and |r| <= ln(2) / 2, by Taylor's series. Of |x| < 2^40.
double exp_of(Double2 x) {
  constexpr int kTerms = 20;
  const double n = (x.high * kLog2E + kRound) - kRound;
  if (n > 1024) return kInfinity;
  if (n < -1080) return 0;
  const Double2 rest = x + Double2{-n} * kLn2;
  Double2 series{1};
  for (int term = kTerms; term > 0; term--) series = Double2{1} + rest * series / Double2{static_cast<double>(term)};
  const auto exponent = static_cast<int64_t>(n);  // in two halves: 2^n may be no normal number
  return series.high * power_of_two(exponent / 2) * power_of_two(exponent - exponent / 2);
}

}  // namespace

double log(double x) {
  if (!(x >= 0)) return kNan;
  if (x == 0) return -kInfinity;
  if (x == kInfinity) return x;
  return log_of_positive(x).high;
}

double pow(double x, double y) {
  if (!(x > 0) || y != y) return kNan;
  if (x == 1 || y == 0) return 1;
  constexpr double kLargest = 0x1p70;  // the nearest to 1, to this power, are infinite or 0
  if (x == kInfinity || y > kLargest || y < -kLargest) return (x > 1) == (y > 0) ? kInfinity : 0;
  const Double2 exponent = log_of_positive(x) * Double2{y};
  if (exponent.high > 1000 || exponent.high < -1000) return exponent.high > 0 ? kInfinity : 0;
  return exp_of(exponent);
}

// x = n pi/2 + r, |r| <= pi/4, pi/2 in three doubles; then Taylor's polynomials of degrees 17 and 18 around r's high
// part.
SinCos sin_cos(double x) {
  constexpr double kMost = 0x1p32;
  if (!(x <= kMost && x >= -kMost)) return {kNan, kNan};
  const double n = (x * kTwoOverPi + kRound) - kRound;
  Double2 rest{x};
  for (const double part : kHalfPi) rest = rest + product(-n, part);
  const auto [r, r_low] = rest;

  constexpr double kSin[] = {1. / 355687428096000, -1. / 1307674368000, 1. / 6227020800, -1. / 39916800,
                             1. / 362880,          -1. / 5040,          1. / 120,        -1. / 6};
  constexpr double kCos[] = {-1. / 6402373705728000, 1. / 20922789888000, -1. / 87178291200, 1. / 479001600,
                             -1. / 3628800,          1. / 40320,          -1. / 720,         1. / 24};
  const double square = r * r, half = 0.5 * square;
  double of_sin = 0, of_cos = 0;
  for (int term = 0; term < 8; term++) {
    of_sin = of_sin * square + kSin[term];
    of_cos = of_cos * square + kCos[term];
  }
  const double sin = r + (r * square * of_sin + r_low * (1 - half));
  const double one = 1 - half;
  const double cos = one + (((1 - one) - half) + (square * square * of_cos - r * r_low));
  const SinCos of_quarter[] = {{sin, cos}, {cos, -sin}, {-sin, -cos}, {-cos, sin}};
  return of_quarter[static_cast<int64_t>(n) & 3];
}

}  // namespace cachalot::portable
