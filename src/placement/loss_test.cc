#include "placement/loss.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>

#include "placement/placement_test_util.h"

namespace cachalot {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Layer = ExpertPlacement::Layer;
using Shape = ExpertPlacement::Shape;

TEST(PlacementAfterLoss, ServesByLivingCopiesAtOnceAndLoadsTheOthersIntoSpareSlots) {
  const ExpertPlacement placement =
      make_placement({.num_layers = 1, .num_experts = 4, .num_ranks = 3},
                     {{{0, 1, ExpertPlacement::kSpare}, {2, 0}, {3, ExpertPlacement::kSpare}}}, 4);
  const AfterLoss after = placement_after_loss(placement, std::vector{0});
  ASSERT_TRUE(after.placement);
  EXPECT_EQ(after.placement->version(), 5);
  EXPECT_THAT(after.placement->slots(0, 0), IsEmpty());
  EXPECT_THAT(after.placement->slots(0, 1), ElementsAre(2, 0));
  EXPECT_THAT(after.placement->slots(0, 2), ElementsAre(3, 1));
  EXPECT_THAT(after.to_load, ElementsAre(LostExpert{.layer = 0, .expert = 1, .rank = 2, .slot = 1}));
  EXPECT_THAT(after.text(), HasSubstr("1 experts are loaded"));
}

TEST(PlacementAfterLoss, TakesACopysSlotWhereNoneIsSpareAndSaysWhatIsMissingWhereThereIsNone) {
  const Shape shape{.num_layers = 1, .num_experts = 4, .num_ranks = 3};
  const AfterLoss taken = placement_after_loss(make_placement(shape, {{{0, 1}, {2, 3}, {3, 2}}}), std::vector{0});
  ASSERT_TRUE(taken.placement);
  EXPECT_EQ(taken.to_load.size(), 2);
  const AfterLoss missing =
      placement_after_loss(make_placement(shape, {{{0, 1}, {2}, {3, ExpertPlacement::kSpare}}}), std::vector{0});
  EXPECT_FALSE(missing.placement);
  EXPECT_THAT(missing.homeless, ElementsAre(LostExpert{.layer = 0, .expert = 1}));
  EXPECT_THAT(missing.text(), HasSubstr("no slot is left for 1 of 2 experts"));
}

// Random placements with copies and spare slots, random losses, one after the other.
TEST(PlacementAfterLoss, KeepsWhatLivesWritesNothingElseAndSpreadsTheRest) {
  std::mt19937 random(5);
  for (int trial = 0; trial < 300; trial++) {
    const int num_ranks = 2 + static_cast<int>(random() % 12), num_experts = 1 + static_cast<int>(random() % 40);
    const Shape shape{
        .num_layers = 1 + static_cast<int>(random() % 5), .num_experts = num_experts, .num_ranks = num_ranks};
    std::vector<Layer> layers;
    for (int layer = 0; layer < shape.num_layers; layer++) {
      Layer& ranks = layers.emplace_back(static_cast<size_t>(num_ranks));
      for (int32_t expert = 0; expert < num_experts; expert++) {
        const size_t first = random() % ranks.size(), second = random() % ranks.size();
        ranks[first].push_back(expert);
        if (random() % 3 == 0 && second != first) ranks[second].push_back(expert);
      }
      for (std::vector<int32_t>& slots : ranks) slots.resize(slots.size() + random() % 3, ExpertPlacement::kSpare);
    }
    const ExpertPlacement placement = make_placement(shape, layers);
    std::vector<int> ranks(static_cast<size_t>(num_ranks));
    std::iota(ranks.begin(), ranks.end(), 0);
    std::ranges::shuffle(ranks, random);
    const std::span lost = std::span(ranks).first(1 + random() % (ranks.size() - 1));
    const AfterLoss after = placement_after_loss(placement, lost);

    std::map<std::pair<int, int>, int> num_left, num_spare, num_double;  // slots of each layer
    for (int layer = 0; layer < shape.num_layers; layer++) {
      std::map<int32_t, int> copies;
      for (int rank = 0; rank < num_ranks; rank++)
        if (std::ranges::find(lost, rank) == lost.end())
          for (const int32_t held : placement.slots(layer, rank)) copies[held]++;
      const int num_usable =
          copies[ExpertPlacement::kSpare] + std::accumulate(copies.begin(), copies.end(), 0, [](int sum, auto& of) {
            return sum + (of.first == ExpertPlacement::kSpare ? 0 : of.second - 1);
          });
      const int num_lost = num_experts - static_cast<int>(copies.size() - 1);
      const auto of_layer = [&](const LostExpert& expert) { return expert.layer == layer; };
      EXPECT_EQ(std::ranges::count_if(after.to_load, of_layer), std::min(num_lost, num_usable));
      EXPECT_EQ(std::ranges::count_if(after.homeless, of_layer), std::max(0, num_lost - num_usable));
    }
    EXPECT_EQ(after.placement.has_value(), after.homeless.empty());
    if (!after.placement) continue;
    for (int layer = 0; layer < shape.num_layers; layer++) {
      for (int rank = 0; rank < num_ranks; rank++) {
        const std::span<const int32_t> slots = after.placement->slots(layer, rank);
        if (std::ranges::find(lost, rank) != lost.end()) {
          EXPECT_THAT(slots, IsEmpty());
          continue;
        }
        ASSERT_EQ(slots.size(), placement.slots(layer, rank).size());
        for (int slot = 0; slot < std::ssize(slots); slot++) {
          const auto before = placement.slots(layer, rank)[static_cast<size_t>(slot)],
                     now = slots[static_cast<size_t>(slot)];
          const LostExpert load{.layer = layer, .expert = now, .rank = rank, .slot = slot};
          EXPECT_EQ(now != before, std::ranges::find(after.to_load, load) != after.to_load.end());
        }
      }
    }
  }
}

// A round broke while the experts moved: some ranks hold what the next placement says, some what the one before said,
// one was in the middle of loading, one has come with what it holds at first.
TEST(PlacementOfHeld, IsWholeWhateverSomeHaveSwitchedAndSomeHaveNot) {
  std::mt19937 random(11);
  for (int trial = 0; trial < 300; trial++) {
    const int num_ranks = 2 + static_cast<int>(random() % 8), num_experts = num_ranks + static_cast<int>(random() % 40);
    const Shape shape{.num_layers = 3, .num_experts = num_experts, .num_ranks = num_ranks};
    const auto frame = with_spare_slots(even_placement(shape), static_cast<int>(random() % 4));
    ASSERT_TRUE(frame);
    const auto shuffled = [&] {  // any other placement of the same slots
      std::vector<Layer> layers = layers_of(*frame);
      for (Layer& layer : layers) {
        std::vector<int32_t*> all;
        for (std::vector<int32_t>& slots : layer)
          for (int32_t& slot : slots) all.push_back(&slot);
        for (size_t idx = all.size(); idx > 1; idx--) std::swap(*all[idx - 1], *all[random() % idx]);
      }
      return layers;
    };
    const std::vector<Layer> before = shuffled(), next = shuffled();
    std::vector<Layer> held = layers_of(*frame);
    for (int rank = 0; rank < num_ranks; rank++) {
      const auto whose = random() % 4;
      for (size_t layer = 0; layer < held.size(); layer++) {
        std::vector<int32_t>& slots = held[layer][static_cast<size_t>(rank)];
        if (whose < 3) slots = (whose == 0 ? before : next)[layer][static_cast<size_t>(rank)];
        if (whose == 2) slots[random() % slots.size()] = ExpertPlacement::kSpare;
      }
    }
    const auto after = placement_of_held(shape, 7, held);
    ASSERT_TRUE(after) << after.error().message;
    ASSERT_TRUE(after->placement)
        << after->text();  // there are as many slots as experts, and none lives twice on a rank
    EXPECT_EQ(after->placement->version(), 7);
    std::vector<Layer> reached = layers_of(*after->placement);
    for (const LostExpert& load : after->to_load) {
      EXPECT_EQ(
          reached[static_cast<size_t>(load.layer)][static_cast<size_t>(load.rank)][static_cast<size_t>(load.slot)],
          load.expert);
      for (const std::vector<int32_t>& slots : held[static_cast<size_t>(load.layer)])
        EXPECT_EQ(std::ranges::count(slots, load.expert), 0) << "what is held is not loaded";
    }
    const auto again = placement_of_held(shape, 7, held);
    EXPECT_EQ(again->placement->hash(), after->placement->hash());
  }
}

TEST(PlacementOfHeld, RefusesWhatNoRankCanHold) {
  const Shape shape{.num_layers = 1, .num_experts = 4, .num_ranks = 2};
  EXPECT_FALSE(placement_of_held(shape, 2, {{{0, 1}, {2, 4}}}));
  EXPECT_FALSE(placement_of_held(shape, 2, {{{0, 1}, {2, -2}}}));
  EXPECT_FALSE(placement_of_held(shape, 2, {{{0, 1, 0}, {2, 3}}}));
}

TEST(SpareSlots, AreEnoughForAnyRanksThatMayBeLostAndNoMore) {
  std::mt19937 random(9);
  for (const auto& [experts, ranks, lost, spare] :
       {std::tuple{256, 32, 1, 1}, {256, 32, 4, 2}, {256, 32, 8, 3}, {16, 2, 1, 8}, {160, 61, 1, 1}, {7, 3, 2, 5}}) {
    EXPECT_EQ(spare_slots_to_survive(experts, ranks, lost), spare) << experts << " on " << ranks << " - " << lost;
    const Shape shape{.num_layers = 7, .num_experts = experts, .num_ranks = ranks};
    const auto placement = with_spare_slots(even_placement(shape), spare);
    ASSERT_TRUE(placement);
    for (int trial = 0; trial < 20; trial++) {
      std::vector<int> order(static_cast<size_t>(ranks));
      std::iota(order.begin(), order.end(), 0);
      std::ranges::shuffle(order, random);
      const AfterLoss after = placement_after_loss(*placement, std::span(order).first(static_cast<size_t>(lost)));
      ASSERT_TRUE(after.placement) << after.text();
      std::vector<int64_t> loads(static_cast<size_t>(ranks));
      for (const LostExpert& load : after.to_load) loads[static_cast<size_t>(load.rank)]++;
      const auto num_living = static_cast<int64_t>(ranks - lost);
      EXPECT_LE(std::ranges::max(loads), (std::ssize(after.to_load) + num_living - 1) / num_living + 1);
    }
  }
}

}  // namespace
}  // namespace cachalot
