#include "base/math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace cachalot::portable {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Of `value`, in units of the last place that a double next to `truth` has.
double ulps(double value, long double truth) {
  const auto nearest = std::fabs(static_cast<double>(truth));
  const long double unit = static_cast<long double>(std::nextafter(nearest, kInfinity)) - nearest;
  return static_cast<double>(std::fabs(static_cast<long double>(value) - truth) / unit);
}

double between(std::mt19937_64& random, double low, double high) {
  return std::uniform_real_distribution<double>(low, high)(random);
}

// Any positive double, all exponents alike.
double positive(std::mt19937_64& random) {
  const double value = std::bit_cast<double>(random() & 0x7fff'ffff'ffff'ffff);
  return std::isfinite(value) && value > 0 ? value : positive(random);
}

TEST(Elementary, LogIsWithinHalfAnUlpOfTheTruth) {
  std::mt19937_64 random(1);
  double worst = 0;
  for (int idx = 0; idx < 200'000; idx++) {
    const double near_one = between(random, 0.5, 2), tiny = 1 + between(random, -1e-7, 1e-7);
    for (const double x : {positive(random), near_one, tiny})
      worst = std::max(worst, ulps(log(x), std::log(static_cast<long double>(x))));
  }
  EXPECT_LE(worst, 0.501);
  EXPECT_EQ(log(1), 0);
  EXPECT_EQ(log(0), -kInfinity);
  EXPECT_EQ(log(kInfinity), kInfinity);
  EXPECT_EQ(log(5e-324), std::log(5e-324));
  EXPECT_TRUE(std::isnan(log(-1)) && std::isnan(log(std::nan(""))));
}

TEST(Elementary, PowIsWithinHalfAnUlpOfTheTruth) {
  std::mt19937_64 random(2);
  double worst = 0, worst_subnormal = 0;
  const auto compare = [&](double x, double y) {
    const long double truth = std::pow(static_cast<long double>(x), static_cast<long double>(y));
    const double value = pow(x, y);
    if (truth > static_cast<long double>(std::numeric_limits<double>::max())) {
      EXPECT_GE(value, std::numeric_limits<double>::max()) << x << " " << y;
    } else if (truth < static_cast<long double>(std::numeric_limits<double>::min())) {
      worst_subnormal = std::max(worst_subnormal, static_cast<double>(std::fabs(value - truth) / 0x1p-1074L));
    } else {
      worst = std::max(worst, ulps(value, truth));
    }
  };
  for (int idx = 0; idx < 50'000; idx++) {
    compare(between(random, 1, 1e12), -between(random, 0, 1));  // rotary frequencies
    compare(between(random, 0, 100), between(random, -40, 40));
    compare(positive(random), between(random, -1.1, 1.1));
    compare(1 + between(random, -1e-6, 1e-6), between(random, -1e9, 1e9));
  }
  EXPECT_LE(worst, 0.501);
  EXPECT_LE(worst_subnormal, 1.5);
  EXPECT_EQ(pow(10, 2), 100);
  EXPECT_EQ(pow(3, 0), 1);
  EXPECT_EQ(pow(0.5, 1e300), 0);
  EXPECT_EQ(pow(0.5, -1e300), kInfinity);
  EXPECT_TRUE(std::isnan(pow(-2, 2)) && std::isnan(pow(2, std::nan(""))));
}

TEST(Elementary, SinAndCosAreWithinAnUlpOfTheTruth) {
  std::mt19937_64 random(3);
  double worst = 0;
  const auto compare = [&](double x) {
    const auto [sin, cos] = sin_cos(x);
    const auto angle = static_cast<long double>(x);
    worst = std::max({worst, ulps(sin, std::sin(angle)), ulps(cos, std::cos(angle))});
  };
  for (int idx = 0; idx < 100'000; idx++) {
    compare(static_cast<float>(between(random, 0, 1e6)));  // angles of far positions
    compare(between(random, -10, 10));
    compare(between(random, -0x1p32, 0x1p32));
    compare(between(random, -1e-3, 1e-3));
    compare(static_cast<double>(random() % 1'000'000'000) * (M_PI / 2));  // next to where one of them is zero
  }
  EXPECT_LE(worst, 0.8);
  EXPECT_EQ(sin_cos(0).cos, 1);
  EXPECT_EQ(sin_cos(0).sin, 0);
  EXPECT_TRUE(std::isnan(sin_cos(0x1.1p32).sin) && std::isnan(sin_cos(std::nan("")).cos));
}

// On every machine, by every compiler, at every optimization.
TEST(Elementary, ItsBitsNeverChange) {
  BitHash hash;
  for (int idx = 1; idx <= 20'000; idx++) {
    const double x = idx * 0.37;
    const auto [sin, cos] = sin_cos(x * 11);
    hash.add(log(x));
    hash.add(pow(x, -x / 8192));
    hash.add(sin);
    hash.add(cos);
  }
  EXPECT_EQ(hash.value(), 9554739759207748371u);
}

}  // namespace

}  // namespace cachalot::portable
