#include "sampler/philox.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>

namespace cachalot {
namespace {

// Known answers of the authors' own Random123 distribution (kat_vectors).
TEST(Philox, GivesTheKnownAnswers) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, EveryPartOfTheKeyMatters) {
  const double base = uniform_at(1, 0, 5, 0);
  EXPECT_EQ(uniform_at(1, 0, 5, 0), base);
  EXPECT_NE(uniform_at(2, 0, 5, 0), base);
  EXPECT_NE(uniform_at(1ull << 32 | 1, 0, 5, 0), base);
  EXPECT_NE(uniform_at(1, 1, 5, 0), base);
  EXPECT_NE(uniform_at(1, 0, 6, 0), base);
  EXPECT_NE(uniform_at(1, 0, 1ull << 32 | 5, 0), base);
  EXPECT_NE(uniform_at(1, 0, 5, 1), base);
}

TEST(Philox, FillsTheUnitIntervalEvenly) {
  constexpr int kBins = 64, kDraws = 64'000;
  std::array<int, kBins> counts{};
  for (int position = 0; position < kDraws; position++) {
    const double value = uniform_at(42, 0, position, 0);
    ASSERT_GE(value, 0.0);
    ASSERT_LT(value, 1.0);
    counts[static_cast<int>(value * kBins)]++;
  }
  double chi_squared = 0;
  for (const int count : counts) chi_squared += (count - 1000.0) * (count - 1000.0) / 1000.0;
  EXPECT_LT(chi_squared, 103.4);  // 63 degrees of freedom, p = 0.001
}

}  // namespace
}  // namespace cachalot
