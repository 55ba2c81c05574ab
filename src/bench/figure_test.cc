#include "bench/figure.h"

#include <gmock/gmock.h>

#include <boost/json.hpp>

namespace cachalot {
namespace {

Sample sample(double seconds, double bandwidth) {
  return {.num_tokens = 10,
          .seconds = seconds,
          .least_seconds = 1,
          .limits = {.bandwidth = bandwidth, .int8_peak = 2e12, .float_peak = 5e11},
          .distinct_experts = 6};
}

Figure figure_of(const std::vector<Sample>& samples) {
  Figure figure{
      .phase = "decode", .batch = 1, .weights = "awq", .isa = "avx512", .context = 128, .uniform_distinct_experts = 6};
  summarize(samples, figure);
  return figure;
}

TEST(Figure, SpeedAndLimitsAreOfTheMedianSample) {
  const Figure figure = figure_of({sample(5, 1e9), sample(2, 2e9), sample(4, 3e9)});
  EXPECT_DOUBLE_EQ(figure.tokens_per_s, 2.5);
  EXPECT_DOUBLE_EQ(figure.min, 2);
  EXPECT_DOUBLE_EQ(figure.max, 5);
  EXPECT_DOUBLE_EQ(figure.limit_tokens_per_s, 10);
  EXPECT_DOUBLE_EQ(figure.fraction_of_limit(), 0.25);
  EXPECT_DOUBLE_EQ(figure.limits.bandwidth, 3e9);
}

TEST(Figure, DoesNotCountWhenRoutingIsUneven) {
  Figure figure = figure_of({sample(2, 1e9)});
  EXPECT_TRUE(figure.counts());
  EXPECT_THAT(figures_table({&figure, 1}), testing::Not(testing::HasSubstr("does not count")));
  figure.distinct_experts = 5.6;
  EXPECT_FALSE(figure.counts());
  EXPECT_THAT(figures_table({&figure, 1}), testing::HasSubstr("does not count"));
}

TEST(Figure, JsonHoldsEveryFigureWithItsKeys) {
  const std::vector<Figure> figures{figure_of({sample(2, 3e10)}), figure_of({sample(4, 3e10)})};
  const auto results = boost::json::parse(figures_json(figures)).at("results").as_array();
  ASSERT_EQ(results.size(), 2U);
  std::vector<std::string> keys;
  for (const auto& [key, value] : results[0].as_object()) keys.emplace_back(key);
  EXPECT_THAT(keys, testing::ElementsAre("phase", "batch", "weights", "isa", "context", "tokens_per_s", "min", "max",
                                         "limit_tokens_per_s", "fraction_of_limit", "distinct_experts",
                                         "uniform_distinct_experts", "bandwidth_gb_s", "int8_tops"));
  EXPECT_EQ(results[1].at("tokens_per_s").as_double(), 2.5);
  EXPECT_EQ(results[1].at("bandwidth_gb_s").as_double(), 30);
  EXPECT_EQ(results[1].at("int8_tops").as_double(), 2);
}

}  // namespace
}  // namespace cachalot
