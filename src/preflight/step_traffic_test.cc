#include "preflight/step_traffic.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

namespace cachalot {

namespace {

constexpr ExpertRouting kR1{.num_experts = 256, .top_k = 8, .num_groups = 8, .topk_groups = 4};

// Of a rank that computes all rows of experts [begin, end), and half of the next `num_halves`'.
std::vector<double> shares_of(const ExpertRouting& routing, int begin, int end, int num_halves = 0) {
  std::vector<double> shares(static_cast<size_t>(routing.num_experts));
  for (int expert = begin; expert < end + num_halves; expert++)
    shares[static_cast<size_t>(expert)] = expert < end ? 1 : 0.5;
  return shares;
}
double chance_of_any(const ExpertRouting& routing, int begin, int end) {
  return cachalot::chance_of_any(routing, shares_of(routing, begin, end));
}

// The same by drawing tokens, and for each expert whether it is this rank that computes it.
double drawn(const ExpertRouting& routing, const std::vector<double>& shares) {
  constexpr int kNumTokens = 40'000;
  std::mt19937 random(7);
  std::vector<int> groups(static_cast<size_t>(routing.num_groups)), experts;
  int num_hits = 0;
  for (int token = 0; token < kNumTokens; token++) {
    std::iota(groups.begin(), groups.end(), 0);
    std::shuffle(groups.begin(), groups.end(), random);
    experts.clear();
    const int size = routing.num_experts / routing.num_groups;
    for (int idx = 0; idx < routing.topk_groups; idx++)
      for (int expert = 0; expert < size; expert++) experts.push_back(groups[static_cast<size_t>(idx)] * size + expert);
    std::shuffle(experts.begin(), experts.end(), random);
    num_hits += std::any_of(experts.begin(), experts.begin() + routing.top_k,
                            [&](int expert) { return random() < shares[static_cast<size_t>(expert)] * 4294967296.0; });
  }
  return static_cast<double>(num_hits) / kNumTokens;
}

TEST(ExpertSpread, IsCertainForAllExpertsAndImpossibleForNone) {
  EXPECT_NEAR(chance_of_any(kR1, 0, 256), 1, 1e-12);
  EXPECT_NEAR(chance_of_any(kR1, 40, 40), 0, 1e-12);
  EXPECT_NEAR(chance_of_any({.num_experts = 8, .top_k = 2}, 0, 7), 1, 1e-12) << "two of eight cannot miss seven";
}

TEST(ExpertSpread, OneExpertIsChosenAsOftenAsItsShare) {
  EXPECT_NEAR(chance_of_any(kR1, 17, 18), 8.0 / 256, 1e-12);
  EXPECT_NEAR(chance_of_any({.num_experts = 64, .top_k = 6}, 63, 64), 6.0 / 64, 1e-12);
}

TEST(ExpertSpread, AgreesWithTokensThatAreDrawn) {
  // Inside a group, whole groups, and ranges that cut groups at both ends.
  for (const auto& [begin, end] : {std::pair(0, 8), {0, 64}, {192, 256}, {20, 50}, {30, 200}})
    EXPECT_NEAR(chance_of_any(kR1, begin, end), drawn(kR1, shares_of(kR1, begin, end)), 0.01) << begin << " to " << end;
  const ExpertRouting v2_lite{.num_experts = 64, .top_k = 6};
  EXPECT_NEAR(chance_of_any(v2_lite, 16, 32), drawn(v2_lite, shares_of(v2_lite, 16, 32)), 0.01);
  // Of some experts there is another copy.
  const std::vector<double> shares = shares_of(kR1, 28, 34, 5);
  EXPECT_NEAR(cachalot::chance_of_any(kR1, shares), drawn(kR1, shares), 0.01);
}

TEST(ExpertSpread, CountsExpertsThatRowsChoose) {
  EXPECT_NEAR(expected_distinct(kR1, 8, 1), 8 * 8.0 / 256, 1e-12);
  EXPECT_NEAR(expected_distinct(kR1, 8, 1e6), 8, 1e-9);
}

}  // namespace

}  // namespace cachalot
