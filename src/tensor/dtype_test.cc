#include "tensor/dtype.h"

#include <gtest/gtest.h>

#include "base/math.h"

namespace cachalot {
namespace {

TEST(Numbers, EveryFp16RoundTrips) {
  for (int bits = 0; bits < 0x10000; bits++) {
    const fp16 value = std::bit_cast<fp16>(static_cast<uint16_t>(bits));
    if (std::isnan(static_cast<float>(value))) continue;
    EXPECT_EQ(fp16(static_cast<float>(value)).bits, bits);
  }
}

TEST(Numbers, EveryBf16RoundTrips) {
  for (int bits = 0; bits < 0x10000; bits++) {
    const bf16 value = std::bit_cast<bf16>(static_cast<uint16_t>(bits));
    if (std::isnan(static_cast<float>(value))) continue;
    EXPECT_EQ(bf16(static_cast<float>(value)).bits, bits);
  }
}

TEST(Numbers, EveryFp8RoundTrips) {
  for (int bits = 0; bits < 0x100; bits++) {
    const fp8e4m3 value = std::bit_cast<fp8e4m3>(static_cast<uint8_t>(bits));
    if (std::isnan(static_cast<float>(value))) continue;
    EXPECT_EQ(fp8e4m3(static_cast<float>(value)).bits, bits);
  }
  EXPECT_EQ(static_cast<float>(std::bit_cast<fp8e4m3>(uint8_t{0x7e})), 448.f);
  EXPECT_EQ(static_cast<float>(std::bit_cast<fp8e4m3>(uint8_t{0x01})), 0x1p-9f);
}

// Every value between two neighbours goes to the nearer one, and to the even one from the middle.
template <class Number>
void expect_nearest_even(int largest_bits) {
  for (int bits = 0; bits < largest_bits; bits++) {
    const auto low = static_cast<float>(std::bit_cast<Number>(static_cast<decltype(Number::bits)>(bits)));
    const auto high = static_cast<float>(std::bit_cast<Number>(static_cast<decltype(Number::bits)>(bits + 1)));
    const float middle = low + (high - low) / 2;
    EXPECT_EQ(Number(std::nextafter(middle, low)).bits, bits);
    EXPECT_EQ(Number(std::nextafter(middle, high)).bits, bits + 1);
    EXPECT_EQ(Number(middle).bits, bits % 2 ? bits + 1 : bits);
    EXPECT_EQ(Number(-std::nextafter(middle, low)).bits, bits | (1 << (sizeof(Number) * 8 - 1)));
  }
}

TEST(Numbers, ConversionsRoundToNearestTiesToEven) {
  expect_nearest_even<fp16>(0x7bff);
  expect_nearest_even<bf16>(0x7f7f);
  expect_nearest_even<fp8e4m3>(uint8_t{0x7e});
}

TEST(Numbers, LargeValuesSaturateOrBecomeInfinite) {
  EXPECT_EQ(fp8e4m3(1e9f).bits, 0x7e);
  EXPECT_EQ(fp8e4m3(-1e9f).bits, 0xfe);
  EXPECT_EQ(fp16(65519.f).bits, 0x7bff);
  EXPECT_EQ(fp16(65520.f).bits, 0x7c00);
  EXPECT_TRUE(std::isnan(static_cast<float>(bf16(NAN))));
  EXPECT_TRUE(std::isnan(static_cast<float>(fp16(NAN))));
  EXPECT_TRUE(std::isnan(static_cast<float>(fp8e4m3(NAN))));
}

TEST(Math, RoundsUpToUnits) {
  static_assert(ceil_div(0, 64) == 0 && ceil_div(1, 64) == 1 && ceil_div(64, 64) == 1 && ceil_div(65, 64) == 2);
  static_assert(round_up(size_t{4097}, 4096) == 8192 && round_up(int64_t{1} << 40, 3) == (int64_t{1} << 40) + 2);
}

TEST(Math, TheMedianOfAnEvenNumberIsTheMeanOfTheMiddleTwo) {
  EXPECT_EQ(median({7}), 7);
  EXPECT_EQ(median({9, 1, 5}), 5);
  EXPECT_EQ(median({4, 1, 100, 2}), 3);
}

TEST(Math, SecretsAreEqualOnlyAsAWhole) {
  EXPECT_TRUE(equal_in_constant_time("secret", "secret"));
  EXPECT_FALSE(equal_in_constant_time("secretsecret", "secret"));
  EXPECT_FALSE(equal_in_constant_time("secre", "secret"));
  EXPECT_FALSE(equal_in_constant_time("", "secret"));
  EXPECT_FALSE(equal_in_constant_time("", ""));
  EXPECT_FALSE(equal_in_constant_time("x", ""));
}

}  // namespace

}  // namespace cachalot
