#include "placement/balance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <set>

namespace cachalot {
namespace {

using testing::HasSubstr;

ExpertPlacement balance(const ExpertLoad& load, const BalanceOptions& options) {
  auto placement = balanced_placement(load, options, 1);
  CHECK(placement, "{}", placement.error().message);
  return std::move(*placement);
}

int num_copies(const ExpertPlacement& placement, int layer, int32_t expert) {
  int count = 0;
  for (int rank = 0; rank < placement.shape().num_ranks; rank++)
    count += static_cast<int>(std::ranges::count(placement.slots(layer, rank), expert));
  return count;
}

// The example of DeepSeek's EPLB: two layers of 12 experts in 4 groups, 16 slots on 8 ranks of 2 nodes.
const ExpertLoad kPublished{
    {{90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86}, {20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27}}};

TEST(BalancedPlacement, GivesTheBusiestExpertsOfThePublishedExampleTheirCopies) {
  const ExpertPlacement placement =
      balance(kPublished, {.num_ranks = 8, .num_redundant = 4, .num_nodes = 2, .num_groups = 4});
  // phy2log of its README: [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1], [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1,
  // 5, 0, 3, 1].
  const std::vector<std::vector<int>> copies{{1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 2, 1},
                                             {1, 2, 1, 1, 1, 2, 2, 1, 2, 1, 1, 1}};
  for (int layer = 0; layer < 2; layer++)
    for (int expert = 0; expert < 12; expert++)
      EXPECT_EQ(num_copies(placement, layer, expert), copies[static_cast<size_t>(layer)][static_cast<size_t>(expert)])
          << layer << ", " << expert;
}

TEST(BalancedPlacement, KeepsAGroupsExpertsOnOneNodeWhereThatCostsLittle) {
  ExpertLoad load = ExpertLoad::uniform(2, 64);
  load.layers[0][5] = load.layers[1][60] = 2;
  const BalanceOptions options{.num_ranks = 8, .num_redundant = 16, .num_nodes = 2, .num_groups = 4};
  const auto experts_of_nodes = [&](int layer) {
    std::vector<size_t> counts;
    const ExpertPlacement placement = balance(load, options);
    for (int node = 0; node < 2; node++) {
      std::set<int32_t> experts;
      for (int rank = 4 * node; rank < 4 * node + 4; rank++)
        experts.insert(placement.slots(layer, rank).begin(), placement.slots(layer, rank).end());
      counts.push_back(experts.size());
    }
    return counts;
  };
  EXPECT_THAT(experts_of_nodes(0), testing::Each(32u));
  EXPECT_THAT(experts_of_nodes(1), testing::Each(32u));
  for (size_t expert = 0; expert < 16; expert++) load.layers[1][expert] = 9;  // one group is most of all
  EXPECT_LE(imbalance_of(balance(load, options), load, std::vector{0, 0, 0, 0, 1, 1, 1, 1}), 1.1);
}

TEST(BalancedPlacement, PutsAnyExpertAnywhereWhereNodesDoNotDivideTheGroups) {
  const ExpertPlacement placement =
      balance(kPublished, {.num_ranks = 8, .num_redundant = 4, .num_nodes = 1, .num_groups = 4});
  EXPECT_LE(imbalance_of(placement, kPublished, {}), 1.15);
  const ExpertPlacement odd =
      balance(kPublished, {.num_ranks = 7, .num_redundant = 3, .num_nodes = 3, .num_groups = 4});
  EXPECT_EQ(odd.num_held(0) + odd.num_held(1) + odd.num_held(2) + odd.num_held(3) + odd.num_held(4) + odd.num_held(5) +
                odd.num_held(6),
            2 * 15);
}

TEST(BalancedPlacement, WithoutCopiesIsAPermutation) {
  const ExpertPlacement placement = balance(kPublished, {.num_ranks = 5});
  for (int layer = 0; layer < 2; layer++)
    for (int expert = 0; expert < 12; expert++) EXPECT_EQ(num_copies(placement, layer, expert), 1);
}

TEST(BalancedPlacement, LeavesSlotsSpareThatNoMoreCopiesCanTake) {
  const ExpertPlacement placement = balance({{{5, 1}}}, {.num_ranks = 2, .num_redundant = 4});
  EXPECT_EQ(num_copies(placement, 0, 0), 2);
  EXPECT_EQ(num_copies(placement, 0, 1), 2);
  EXPECT_EQ(placement.num_slots(0) + placement.num_slots(1), 6);
}

// Each rank computes it by itself, on whatever machine.
TEST(BalancedPlacement, IsTheSameWhoeverComputesIt) {
  ExpertLoad load = ExpertLoad::uniform(3, 16);
  for (size_t expert = 0; expert < 16; expert++) load.layers[1][expert] = 1000.0 / static_cast<double>(3 + expert);
  EXPECT_EQ(balance(load, {.num_ranks = 5, .num_redundant = 7}).hash(), 5144786098677495);
}

TEST(BalancedPlacement, RefusesMoreSlotsThanCanBeNamed) {
  EXPECT_FALSE(balanced_placement(ExpertLoad::uniform(1, 65'530), {.num_ranks = 2, .num_redundant = 6}, 1));
  EXPECT_FALSE(balanced_placement(ExpertLoad::uniform(4097, 1), {.num_ranks = 2}, 1));
}

// Expert loads whose busiest is `skew` times the mean, or that make the busiest rank of an even placement so busy.
std::vector<double> skewed_experts(int num_experts, double skew, std::mt19937& random) {
  std::vector<double> load(static_cast<size_t>(num_experts));
  for (double& each : load) each = -std::log(1 - static_cast<double>(random()) / 4294967296.0);
  const auto busiest = std::ranges::max_element(load);
  const double others = std::accumulate(load.begin(), load.end(), 0.0) - *busiest;
  *busiest = skew * others / (num_experts - skew);
  return load;
}
std::vector<double> skewed_ranks(int num_experts, int num_ranks, double skew, std::mt19937& random) {
  std::vector<double> load = skewed_experts(num_experts, 3, random);
  const auto local = static_cast<size_t>(num_experts / num_ranks), rank = random() % static_cast<size_t>(num_ranks);
  const std::span<double> hot = std::span(load).subspan(rank * local, local);
  const double hot_sum = std::accumulate(hot.begin(), hot.end(), 0.0),
               others = std::accumulate(load.begin(), load.end(), 0.0) - hot_sum;
  for (double& each : hot) each *= skew * others / (num_ranks - skew) / hot_sum;
  return load;
}

TEST(BalancedPlacement, TheBusiestRankHasAtMost115PercentOfTheMeanAtASkewOfFour) {
  struct Case {
    int experts, ranks, nodes, groups;
  };
  std::mt19937 random(7);
  for (const auto& [experts, ranks, nodes, groups] :
       {Case{256, 32, 1, 1}, Case{256, 32, 4, 8}, Case{256, 32, 4, 1}, Case{256, 61, 1, 1}, Case{160, 61, 1, 1},
        Case{64, 8, 1, 1}, Case{64, 16, 2, 1}, Case{16, 4, 1, 1}, Case{16, 8, 2, 4}}) {
    const BalanceOptions options{
        .num_ranks = ranks, .num_redundant = 2 * ranks, .num_nodes = nodes, .num_groups = groups};
    std::vector<int> node_of;
    for (int rank = 0; rank < ranks; rank++) node_of.push_back(rank * nodes / ranks);
    double worst = 0;
    for (int trial = 0; trial < 20; trial++) {
      const ExpertLoad load{{trial % 2 == 0 ? skewed_experts(experts, 4, random)
                                            : skewed_ranks(experts, ranks, std::min(4, ranks - 1), random)}};
      worst = std::max(worst, imbalance_of(balance(load, options), load, node_of));
    }
    EXPECT_LE(worst, 1.15) << experts << " experts, " << ranks << " ranks, " << nodes << " nodes, " << groups
                           << " groups";
  }
}

TEST(ExpertLoad, IsReadAddedAndRefused) {
  auto load = ExpertLoad::parse(R"({"rows": 9, "layers": [[1, 2.5], [0, 3]]})", "load.json");
  ASSERT_TRUE(load) << load.error().message;
  ASSERT_TRUE(load->add(*load));
  EXPECT_EQ(load->layers, (std::vector<std::vector<double>>{{2, 5}, {0, 6}}));
  EXPECT_FALSE(load->add(ExpertLoad::uniform(2, 3)));
  for (const char* text : {"{}", R"({"layers": 3})", R"({"layers": []})", R"({"layers": [[1], [1, 2]]})",
                           R"({"layers": [[1, -2]]})", R"({"layers": [["a"]]})"}) {
    const auto refused = ExpertLoad::parse(text, "load.json");
    ASSERT_FALSE(refused) << text;
    EXPECT_THAT(refused.error().message, HasSubstr("load.json: layers must be"));
  }
}

}  // namespace
}  // namespace cachalot
