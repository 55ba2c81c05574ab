#include "sampler/logit_row.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace cachalot {
namespace {

// Few distinct values where `step` > 0, so that equals are met everywhere, at the edges of blocks, too.
std::vector<float> random_row(int size, float deviation, float step, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.f, deviation);
  std::vector<float> row(size);
  for (float& logit : row) logit = step > 0 ? std::round(normal(random) / step) * step : normal(random);
  return row;
}

std::vector<RankedToken> sorted(const std::vector<float>& row) {
  std::vector<RankedToken> tokens;
  for (int token = 0; token < static_cast<int>(row.size()); token++) tokens.push_back({row[token], token});
  std::ranges::sort(tokens, is_likelier);
  return tokens;
}

double reference_weight(const LogitRow& row, float logit, float scale) {
  return std::exp((static_cast<double>(logit) - row.maximum()) * scale);
}

TEST(LogitRow, ExpIsWithinTwoUnitsInTheLastPlace) {
  for (float x = 0.f; x > -87.f; x -= 0.0137f) {
    const double expected = std::exp(static_cast<double>(x));
    EXPECT_NEAR(exp_of_nonpositive(x) / expected, 1.0, 2 * 0x1p-23) << x;
  }
  EXPECT_EQ(exp_of_nonpositive(0.f), 1.f);
  EXPECT_EQ(exp_of_nonpositive(-87.1f), 0.f);
  EXPECT_EQ(exp_of_nonpositive(-kInfinity), 0.f);
}

class LogitRowOfSize : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Sizes, LogitRowOfSize, testing::Values(1, 2, 127, 128, 129, 333, 4096, 10'001),
                         testing::PrintToStringParamName());

TEST_P(LogitRowOfSize, OrdersTokensAsASortDoes) {
  for (const float step : {0.f, 0.5f}) {
    const std::vector<float> logits = random_row(GetParam(), 3.f, step, 7);
    const std::vector<RankedToken> expected = sorted(logits);
    LogitRow row;
    row.assign(logits);
    EXPECT_EQ(row.maximum(), expected[0].logit);
    EXPECT_EQ(row.argmax(), expected[0].token);
    for (const size_t count : {1, 2, 20, 100, 5000}) {
      const std::vector<RankedToken>& likeliest = row.likeliest(static_cast<int>(count));
      ASSERT_EQ(likeliest.size(), std::min(count, expected.size()));
      for (size_t idx = 0; idx < likeliest.size(); idx++)
        ASSERT_EQ(likeliest[idx].token, expected[idx].token) << idx << " of " << count;
    }
    for (size_t idx = 0; idx < expected.size(); idx += 1 + idx / 4)
      EXPECT_EQ(row.rank(expected[idx].token), static_cast<int>(idx) + 1);
  }
}

TEST_P(LogitRowOfSize, SumsWeightsDownToAnyToken) {
  for (const float step : {0.f, 0.5f}) {
    const std::vector<float> logits = random_row(GetParam(), 3.f, step, 8);
    const std::vector<RankedToken> order = sorted(logits);
    LogitRow row;
    row.assign(logits);
    double expected = 0;
    size_t next = 0;
    for (size_t idx = 0; idx < order.size(); idx++) {
      expected += reference_weight(row, order[idx].logit, 0.7f);
      if (idx != next && idx + 1 != order.size()) continue;
      next += 1 + next / 3;
      EXPECT_NEAR(row.weight_sum(0.7f, order[idx]) / expected, 1.0, 1e-6) << idx;
    }
    EXPECT_NEAR(row.weight_sum(0.7f, kLastOfAll) / expected, 1.0, 1e-6);
  }
}

TEST_P(LogitRowOfSize, FindsTheTokenOfARunningSumAmongThoseThatCount) {
  for (const float step : {0.f, 0.5f}) {
    const std::vector<float> logits = random_row(GetParam(), 2.f, step, 9);
    const std::vector<RankedToken> order = sorted(logits);
    LogitRow row;
    row.assign(logits);
    const RankedToken last = order[order.size() / 3];
    const double sum = row.weight_sum(1.f, last);
    double running = 0;
    for (TokenId token = 0; token < static_cast<TokenId>(logits.size()); token++) {
      if (is_likelier(last, row.at(token))) continue;
      const double weight = reference_weight(row, logits[token], 1.f);
      if (weight > 1e-4 * sum) {
        EXPECT_EQ(row.at_running_sum(std::min(running + weight / 2, sum * (1 - 1e-12))), token);
      }
      running += weight;
    }
    EXPECT_FALSE(is_likelier(last, row.at(row.at_running_sum(0.0))));
    EXPECT_FALSE(is_likelier(last, row.at(row.at_running_sum(std::nextafter(sum, 0.0)))));
  }
}

TEST(LogitRow, NeverFindsWhatIsForbidden) {
  std::vector<float> logits(1000, -kInfinity);
  logits[500] = 1.f;
  logits[900] = 0.f;
  LogitRow row;
  row.assign(logits);
  const double sum = row.weight_sum(1.f, kLastOfAll);
  EXPECT_NEAR(sum, 1 + std::exp(-1.0), 1e-6);
  EXPECT_EQ(row.at_running_sum(0.0), 500);
  EXPECT_EQ(row.at_running_sum(std::nextafter(sum, 0.0)), 900);
  EXPECT_EQ(row.likeliest(10).size(), 2u);
}

TEST(LogitRow, ANaNAnywhereShowsInTheMaximum) {
  for (const int position : {0, 127, 128, 299}) {
    std::vector<float> logits(300, 1.f);
    logits[position] = std::numeric_limits<float>::quiet_NaN();
    LogitRow row;
    row.assign(logits);
    EXPECT_TRUE(std::isnan(row.maximum())) << position;
  }
}

}  // namespace
}  // namespace cachalot
