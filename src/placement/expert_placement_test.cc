#include "placement/expert_placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "placement/placement_test_util.h"

namespace cachalot {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Layer = ExpertPlacement::Layer;
using Shape = ExpertPlacement::Shape;

std::vector<int32_t> held(const ExpertPlacement& placement, int layer, int rank) {
  const std::span<const int32_t> slots = placement.slots(layer, rank);
  return {slots.begin(), slots.end()};
}

// Every layer: each expert at random on some ranks, with spare slots in between.
ExpertPlacement random_placement(const Shape& shape, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<Layer> layers;
  for (int layer = 0; layer < shape.num_layers; layer++) {
    Layer& ranks = layers.emplace_back(static_cast<size_t>(shape.num_ranks));
    for (int32_t expert = 0; expert < shape.num_experts; expert++) {
      std::set<size_t> on;
      for (unsigned copies = 1 + random() % 3; copies > 0; copies--) on.insert(random() % ranks.size());
      for (const size_t rank : on) ranks[rank].push_back(expert);
      if (random() % 5 == 0) ranks[random() % ranks.size()].push_back(ExpertPlacement::kSpare);
    }
  }
  return make_placement(shape, layers, seed);
}

TEST(ExpertPlacement, EvenOnesAreRangesWhereRanksDivideTheExperts) {
  const ExpertPlacement placement = even_placement({.num_layers = 3, .num_experts = 8, .num_ranks = 4});
  for (int layer = 0; layer < 3; layer++) {
    EXPECT_THAT(held(placement, layer, 0), ElementsAre(0, 1));
    EXPECT_THAT(held(placement, layer, 3), ElementsAre(6, 7));
    EXPECT_EQ(placement.first_slot(layer, 3), 6);
  }
  EXPECT_EQ(placement.most_slots(), 2);
  EXPECT_EQ(placement.num_slots(1), 6);
  EXPECT_EQ(placement.num_held(1), 6);
  EXPECT_EQ(placement.text_of(3), "experts 6-7");
}

TEST(ExpertPlacement, UnevenOnesHoldEachExpertOnceAndAboutAsManyOnEachRank) {
  for (const auto& [experts, ranks] : {std::pair{16, 3}, {16, 5}, {16, 7}, {160, 61}, {256, 31}, {3, 5}}) {
    const Shape shape{.num_layers = 58, .num_experts = experts, .num_ranks = ranks};
    const ExpertPlacement placement = even_placement(shape);
    int64_t least = INT64_MAX, most = 0;
    for (int rank = 0; rank < ranks; rank++) {
      least = std::min(least, placement.num_slots(rank));
      most = std::max(most, placement.num_slots(rank));
    }
    for (int layer = 0; layer < shape.num_layers; layer++) {
      int32_t next = 0;
      for (int rank = 0; rank < ranks; rank++) {
        const std::vector<int32_t> slots = held(placement, layer, rank);
        EXPECT_GE(std::ssize(slots), experts / ranks);
        EXPECT_LE(std::ssize(slots), (experts + ranks - 1) / ranks);
        for (const int32_t expert : slots) EXPECT_EQ(expert, next++);
      }
      EXPECT_EQ(next, experts);
    }
    EXPECT_LE(most - least, 4) << experts << " experts on " << ranks << ": not the same ranks have more in all layers";
  }
  EXPECT_EQ(even_placement({.num_layers = 4, .num_experts = 16, .num_ranks = 3}).text_of(0), "5 to 6 experts");
}

TEST(ExpertPlacement, IsTheSameAfterJson) {
  for (unsigned seed = 0; seed < 20; seed++) {
    const ExpertPlacement placement = random_placement({.num_layers = 3, .num_experts = 11, .num_ranks = 4}, seed);
    const auto parsed = ExpertPlacement::parse(placement.to_json(), "a file");
    ASSERT_TRUE(parsed) << parsed.error().message;
    EXPECT_EQ(parsed->to_json(), placement.to_json());
    EXPECT_EQ(parsed->hash(), placement.hash());
    EXPECT_EQ(parsed->version(), seed);
    EXPECT_EQ(parsed->shape(), placement.shape());
  }
}

TEST(ExpertPlacement, HashTellsVersionsAndPlacesApart) {
  const Shape shape{.num_layers = 1, .num_experts = 2, .num_ranks = 2};
  std::set<int64_t> hashes;
  for (const Layer& layer :
       {Layer{{0}, {1}}, Layer{{1}, {0}}, Layer{{0, 1}, {}}, Layer{{0}, {1, -1}}, Layer{{0, -1}, {1}}})
    for (const uint32_t version : {1U, 2U}) hashes.insert(make_placement(shape, {layer}, version).hash());
  EXPECT_EQ(hashes.size(), 10u);
}

TEST(ExpertPlacement, RefusesWhatIsNone) {
  const Shape shape{.num_layers = 1, .num_experts = 2, .num_ranks = 2};
  const auto refusal = [&](const Layer& layer) {
    const auto placement = ExpertPlacement::create(shape, 1, {&layer, 1});
    return placement ? "" : placement.error().message;
  };
  EXPECT_EQ(refusal({{0}, {1, -1}}), "");
  EXPECT_THAT(refusal({{0}, {0, -1}}), HasSubstr("layer 0 of those with experts: no rank holds expert 1"));
  EXPECT_THAT(refusal({{0, 0}, {1}}), HasSubstr("rank 0 holds expert 0 twice"));
  EXPECT_THAT(refusal({{0}, {1, 2}}), HasSubstr("rank 1 holds expert 2 of 2"));
  EXPECT_THAT(refusal({{0}, {1, -2}}), HasSubstr("rank 1 holds expert -2"));
  EXPECT_THAT(refusal({{0, 1}}), HasSubstr("1 ranks instead of 2"));
  EXPECT_THAT(refusal({std::vector<int32_t>(70'000, -1), {0, 1}}), HasSubstr("slots, at most 65535"));
  EXPECT_FALSE(ExpertPlacement::create(shape, 1, {}));

  const auto parse = [](const char* json) { return ExpertPlacement::parse(json, "p.json").error().message; };
  EXPECT_THAT(parse("{"), HasSubstr("p.json"));
  EXPECT_THAT(parse(R"({"version": 1, "num_experts": 2})"), HasSubstr("num_ranks"));
  EXPECT_THAT(parse(R"({"version": 1, "num_experts": 2, "num_ranks": 1, "layers": [[7]]})"),
              HasSubstr("lists of ranks"));
  EXPECT_THAT(parse(R"({"version": 1, "num_experts": 2, "num_ranks": 1, "layers": [[[0]]]})"),
              HasSubstr("p.json: placement of experts, layer 0 of those with experts: no rank holds expert 1"));
}

TEST(ExpertPlacement, LivesOnASubsetOfTheRanks) {
  const ExpertPlacement three = even_placement({.num_layers = 2, .num_experts = 6, .num_ranks = 3});
  const std::vector<int> living{4, 1, 0};
  const auto placement = placed_on(three, living, 5);
  ASSERT_TRUE(placement) << placement.error().message;
  EXPECT_THAT(held(*placement, 1, 4), ElementsAre(0, 1));
  EXPECT_THAT(held(*placement, 1, 0), ElementsAre(4, 5));
  EXPECT_THAT(held(*placement, 1, 2), IsEmpty());
  EXPECT_EQ(placement->text_of(2), "no experts");
  EXPECT_FALSE(placed_on(three, std::vector{0, 1}, 5));
  EXPECT_FALSE(placed_on(three, std::vector{0, 1, 1}, 5));
  EXPECT_FALSE(placed_on(three, std::vector{0, 1, 5}, 5));

  const auto spare = with_spare_slots(*placement, 2);
  ASSERT_TRUE(spare) << spare.error().message;
  EXPECT_THAT(held(*spare, 0, 1), ElementsAre(2, 3, -1, -1));
  EXPECT_THAT(held(*spare, 0, 2), IsEmpty());
  EXPECT_EQ(spare->num_slots(1), 8);
  EXPECT_EQ(spare->num_held(1), 4);
  EXPECT_EQ(spare->text_of(1), "2 experts");
}

// ---- which copy ----

TEST(CopyChoice, TakesItsOwnCopyThenOneOfItsNodeThenAny) {
  const Shape shape{.num_layers = 1, .num_experts = 4, .num_ranks = 4};
  const ExpertPlacement placement = make_placement(shape, {{{0, 1}, {-1, 1, 2}, {1, 3}, {3, 2, 0}}});
  const std::vector<int> nodes{0, 0, 1, 1};
  const CopyChoice of_0(placement, 0, nodes), of_2(placement, 2, nodes);
  EXPECT_THAT(of_0.copies(0, 0), ElementsAre(ExpertCopy{0, 0}));
  EXPECT_THAT(of_0.copies(0, 1), ElementsAre(ExpertCopy{0, 1}));
  EXPECT_THAT(of_0.copies(0, 2), ElementsAre(ExpertCopy{1, 4}));
  EXPECT_THAT(of_0.copies(0, 3), ElementsAre(ExpertCopy{2, 6}, ExpertCopy{3, 7}));
  EXPECT_THAT(of_2.copies(0, 0), ElementsAre(ExpertCopy{3, 9}));
  EXPECT_THAT(of_2.copies(0, 1), ElementsAre(ExpertCopy{2, 5}));
  // Three copies, two of them on the node whose ranks all have one: rank 3 alone would overload the third.
  EXPECT_THAT(CopyChoice(placement, 3, nodes).copies(0, 1),
              ElementsAre(ExpertCopy{0, 1}, ExpertCopy{1, 3}, ExpertCopy{2, 5}));
  EXPECT_THAT(CopyChoice(placement, 2, {}).copies(0, 0), ElementsAre(ExpertCopy{0, 0}, ExpertCopy{3, 9}));
  EXPECT_EQ(of_0.choose(0, 2, 17), (ExpertCopy{1, 4}));
}

TEST(CopyChoice, SharesRowsOutOverCopiesThatAreAsNear) {
  const Shape shape{.num_layers = 1, .num_experts = 1, .num_ranks = 6};
  const ExpertPlacement placement = make_placement(shape, {{{}, {0}, {0}, {}, {0}, {}}});
  const auto count = [&](int home, int64_t num_rows) {
    const CopyChoice choice(placement, home, {});
    std::vector<int> rows(6);
    for (int64_t row = 0; row < num_rows; row++) rows[choice.choose(0, 0, row).rank]++;
    return rows;
  };
  for (const int home : {0, 3, 5})
    for (const int64_t rows : {30, 300})
      for (const int copy : {1, 2, 4}) EXPECT_NEAR(count(home, rows)[static_cast<size_t>(copy)], rows / 3, 2) << home;
  // Nodes with as many copies keep their rows; elsewhere they go so that all copies have as much to do.
  for (const std::vector<int>& holders :
       {std::vector{0, 1, 8}, {0, 1, 2, 8, 9}, {3}, {0, 8, 16, 24}, {1, 2, 3, 4, 30}}) {
    std::vector<int> nodes;
    Layer layer(32);
    for (int rank = 0; rank < 32; rank++) nodes.push_back(rank / 8);
    for (const int holder : holders) layer[static_cast<size_t>(holder)] = {0};
    const ExpertPlacement on_nodes = make_placement({.num_layers = 1, .num_experts = 1, .num_ranks = 32}, {layer});
    std::vector<double> rows(32);
    for (int home = 0; home < 32; home++) {
      const CopyChoice choice(on_nodes, home, nodes);
      for (const ExpertCopy& copy : choice.copies(0, 0))
        rows[copy.rank] += 1.0 / static_cast<double>(choice.copies(0, 0).size());
      if (holders.size() == 4) {
        EXPECT_EQ(choice.choose(0, 0, 5).rank, home / 8 * 8);
      }
    }
    for (const int holder : holders)
      EXPECT_NEAR(rows[static_cast<size_t>(holder)], 32.0 / static_cast<double>(holders.size()), 0.4);
  }
  // Single rows of many homes, too.
  const ExpertPlacement many = make_placement({.num_layers = 1, .num_experts = 1, .num_ranks = 64}, {[] {
                                                Layer layer(64);
                                                layer[10] = layer[20] = {0};
                                                return layer;
                                              }()});
  int first = 0;
  for (int home = 30; home < 64; home++) first += CopyChoice(many, home, {}).choose(0, 0, 0).rank == 10;
  EXPECT_NEAR(first, 17, 5);
}

}  // namespace
}  // namespace cachalot
