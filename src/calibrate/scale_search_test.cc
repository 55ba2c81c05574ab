#include "calibrate/scale_search.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace cachalot {
namespace {

constexpr int64_t kRows = 200, kIn = 128, kOut = 40;

std::vector<float> normal_numbers(int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> numbers(static_cast<size_t>(count));
  for (float& number : numbers) number = normal(random);
  return numbers;
}

// Rows of which every 20th channel is larger by `outliers`, and a linear that reads them.
struct Case {
  explicit Case(float outliers) {
    for (int64_t row = 0; row < kRows; row++)
      for (int64_t idx = 3; idx < kIn; idx += 20) rows[static_cast<size_t>(row * kIn + idx)] *= outliers;
    seen = observe(View<const float, 2>(rows.data(), kRows, kIn), {}, threads);
  }
  ChosenFactors choose(WeightFormat format, ThreadPool& pool, bool powers_of_two = false) {
    const std::vector<Reader> readers(
        3,
        {whole({.dtype = DType::kF32, .data = weights.data(), .out_features = kOut, .in_features = kIn}), &seen, 0.5});
    return choose_factors(seen.magnitude, powers_of_two, readers, {.format = format, .group_size = 32}, pool);
  }

  ThreadPool threads{{.num_threads = 2}};
  std::vector<float> rows = normal_numbers(kRows * kIn, 1), weights = normal_numbers(kOut * kIn, 2);
  Activations seen;
};

TEST(ScaleSearch, ObservesMeansAndSomeOfTheRows) {
  ThreadPool threads({.num_threads = 2});
  const std::vector<float> rows{1, -2, 0, /**/ -3, 2, 0, /**/ 100, 100, 100};
  const View<const float, 2> view(rows.data(), 3, 3);
  const Activations seen = observe(view, std::vector<int32_t>{0, 1}, threads);
  EXPECT_THAT(seen.magnitude, testing::ElementsAre(2, 2, 0));
  EXPECT_THAT(seen.square, testing::ElementsAre(5, 4, testing::FloatEq(0.03f)));
  EXPECT_THAT(seen.sample, testing::ElementsAre(view.row(0), view.row(1)));
  EXPECT_EQ(observe(view, {}, threads).sample.size(), 3u);
}

TEST(ScaleSearch, GivesLargeChannelsLargeFactors) {
  Case with_outliers(60);
  // What a float of two bits loses on small weights it also loses on large ones.
  for (const auto& [format, most] :
       {std::pair(WeightFormat::kAwq, 0.5), {WeightFormat::kPackedInt, 0.5}, {WeightFormat::kMxfp4, 0.9}}) {
    const ChosenFactors chosen = with_outliers.choose(format, with_outliers.threads);
    EXPECT_EQ(chosen.weight, 1.5);
    EXPECT_LT(chosen.error, most * chosen.plain_error);
    ASSERT_EQ(chosen.factors.size(), static_cast<size_t>(kIn));
    EXPECT_TRUE(chosen.weighs);
    EXPECT_GT(chosen.factors[3], chosen.factors[4]);
    int exponent = 0;
    for (const float factor : with_outliers.choose(format, with_outliers.threads, true).factors)
      EXPECT_EQ(std::frexp(factor, &exponent), 0.5f);
  }
}

TEST(ScaleSearch, IsNeverWorseThanPlainRoundingAndTheSameOnAnyNumberOfThreads) {
  ThreadPool one({.num_threads = 1});
  for (const float outliers : {1.f, 3.f}) {
    Case even(outliers);
    const ChosenFactors chosen = even.choose(WeightFormat::kAwq, even.threads),
                        again = even.choose(WeightFormat::kAwq, one);
    EXPECT_LE(chosen.error, chosen.plain_error);
    EXPECT_EQ(chosen.error, again.error);
    EXPECT_EQ(chosen.factors, again.factors);
  }
}

}  // namespace
}  // namespace cachalot
