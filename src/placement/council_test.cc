#include "placement/council.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "placement/placement_test_util.h"

namespace cachalot {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

SharedPlacement version(uint32_t number, int32_t first = 0) {
  return std::make_shared<const ExpertPlacement>(
      make_placement({.num_layers = 1, .num_experts = 2, .num_ranks = 2}, {{{first}, {1 - first}}}, number));
}

// Ranks that meet as an engine's do.
struct Ranks {
  explicit Ranks(int num_ranks, const EplbOptions& options) {
    for (int rank = 0; rank < num_ranks; rank++) councils.emplace_back(options, rank, version(1));
  }
  // The verdict, which must be the same on all.
  CouncilVerdict meet(uint64_t step) {
    std::vector<CouncilWord> words;
    for (const Council& council : councils) words.push_back(council.word(step));
    std::vector<CouncilVerdict> verdicts;
    for (Council& council : councils) {
      EXPECT_TRUE(council.is_due(step));
      const auto verdict = council.hear(words);
      CHECK(verdict, "{}", verdict.error().message);
      verdicts.push_back(*verdict);
    }
    EXPECT_EQ(std::ranges::count(verdicts, verdicts[0]), std::ssize(verdicts));
    if (verdicts[0] == CouncilVerdict::kCopy) {
      const SharedPlacement next = councils[0].offer();
      for (Council& council : councils) EXPECT_TRUE(council.begin(next));
    }
    return verdicts[0];
  }
  std::vector<Council> councils;
};

constexpr EplbOptions kOptions{.enabled = true, .step_interval = 100, .pace = 8};

TEST(Council, AllSwitchBeforeTheSameStepWhenAllAreReadyAndGoOnToTheNextPart) {
  Ranks ranks(3, kOptions);
  EXPECT_FALSE(ranks.councils[1].is_due(99));
  EXPECT_EQ(ranks.meet(100), CouncilVerdict::kCount);
  EXPECT_FALSE(ranks.councils[2].is_due(107));
  EXPECT_EQ(ranks.meet(108), CouncilVerdict::kGoOn) << "rank 0 plans";
  ranks.councils[0].plan({version(2, 1), version(3)});
  EXPECT_EQ(ranks.meet(116), CouncilVerdict::kCopy);
  ranks.councils[0].end_copying(true);
  ranks.councils[2].end_copying(true);
  EXPECT_EQ(ranks.meet(124), CouncilVerdict::kGoOn) << "rank 1 copies";
  ranks.councils[1].end_copying(true);
  EXPECT_EQ(ranks.meet(132), CouncilVerdict::kSwitch);
  for (const Council& council : ranks.councils) EXPECT_EQ(council.now()->version(), 2);
  EXPECT_EQ(ranks.meet(133), CouncilVerdict::kCopy);
  for (Council& council : ranks.councils) council.end_copying(true);
  EXPECT_EQ(ranks.meet(141), CouncilVerdict::kSwitch);
  EXPECT_EQ(ranks.meet(142), CouncilVerdict::kGoOn) << "there is no more";
  EXPECT_FALSE(ranks.councils[0].is_due(241));
  EXPECT_EQ(ranks.meet(242), CouncilVerdict::kCount);
  ranks.councils[0].plan({});
  EXPECT_EQ(ranks.meet(250), CouncilVerdict::kGoOn);
  EXPECT_EQ(ranks.meet(350), CouncilVerdict::kCount);
}

TEST(Council, WhereOneCannotBringItsPartAllStayAndLookAgainLater) {
  Ranks ranks(2, kOptions);
  ranks.meet(100);
  ranks.councils[0].plan({version(2, 1), version(3)});
  ranks.meet(108);
  ranks.councils[0].end_copying(true);
  ranks.councils[1].end_copying(false);
  EXPECT_EQ(ranks.meet(116), CouncilVerdict::kDrop);
  for (const Council& council : ranks.councils) {
    EXPECT_EQ(council.now()->version(), 1);
    EXPECT_EQ(council.next(), nullptr);
    EXPECT_EQ(council.first_failed(), 1);
    EXPECT_FALSE(council.is_due(215));
  }
  EXPECT_EQ(ranks.meet(216), CouncilVerdict::kCount);
}

TEST(Council, RefusesRanksThatAreNotInStepAndAnotherPlacementThanWasOffered) {
  Council council(kOptions, 0, version(1));
  const CouncilWord own = council.word(100);
  CouncilWord other = own;
  other.step = 101;
  EXPECT_THAT(council.hear(std::vector{own, other}).error().message, HasSubstr("rank 1 is at step 101"));
  other = own;
  other.hash++;
  EXPECT_FALSE(council.hear(std::vector{own, other}));
  Ranks ranks(1, kOptions);
  ranks.meet(100);
  ranks.councils[0].plan({version(2, 1)});
  const std::vector words{ranks.councils[0].word(108)};
  EXPECT_EQ(*ranks.councils[0].hear(words), CouncilVerdict::kCopy);
  EXPECT_THAT(ranks.councils[0].begin(version(2)).error().message, HasSubstr("offered placement 2"));
}

TEST(LoadWindow, CountsTheLastStepsAndAnEighthMoreAtMost) {
  std::vector<uint64_t> counts{0, 0};
  LoadWindow window(counts, 80);
  for (uint64_t step = 0; step < 1000; step++) {
    window.note(step);
    EXPECT_LE(window.counts()[0], 90U);
    EXPECT_GE(window.counts()[0], std::min<uint64_t>(step, 80));
    counts[0] += 1;
    counts[1] += 2;
  }
  EXPECT_THAT(window.counts(), ElementsAre(testing::Ge(80), testing::Ge(160)));
}

}  // namespace
}  // namespace cachalot
