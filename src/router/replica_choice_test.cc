#include "router/replica_choice.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace cachalot::router {
namespace {

using Candidates = std::vector<Candidate>;

Candidate idle() {
  return {.is_open = true};
}

Candidate with_report(const LoadReport& report) {
  return {.is_open = true, .report = report};
}

TEST(ReplicaChoice, NobodyIsChosenWhereNobodyIsOpen) {
  EXPECT_EQ(choose_replica({}, 100, 0), std::nullopt);
  const Candidates closed(3);
  EXPECT_EQ(choose_replica(closed, 100, 0), std::nullopt);
}

TEST(ReplicaChoice, EqualsTakeTurns) {
  Candidates candidates(4, idle());
  candidates[2].is_open = false;
  std::array<int, 4> times{};
  for (size_t start = 0; start < 12; start++) times[*choose_replica(candidates, 100, start)]++;
  EXPECT_EQ(times, (std::array<int, 4>{3, 3, 0, 6}));
}

TEST(ReplicaChoice, LeastTokensBeforeItsOwnWin) {
  // Two long prompts weigh more than a few short answers; waiting sequences count as running ones do.
  const Candidates candidates{with_report({.num_running = 1, .num_waiting = 1, .num_pending_tokens = 4000}),
                              with_report({.num_running = 5}), with_report({.num_running = 3, .num_waiting = 3})};
  for (size_t start = 0; start < 3; start++) EXPECT_EQ(choose_replica(candidates, 100, start), 1u);
}

TEST(ReplicaChoice, WhatTheReportDoesNotKnowCountsToo) {
  Candidates candidates{idle(), idle()};
  candidates[0].num_unreported = 1;
  candidates[0].unreported_tokens = 500;
  EXPECT_EQ(choose_replica(candidates, 100, 0), 1u);
  // Requests that have ended since the report are no load any more.
  candidates = {with_report({.num_running = 4}), with_report({.num_running = 2})};
  candidates[0].num_unreported = -3;
  EXPECT_EQ(choose_replica(candidates, 100, 1), 0u);
}

TEST(ReplicaChoice, AFullKvCacheIsAvoided) {
  const Candidates candidates{with_report({.num_running = 4, .kv_usage = 0.95}),
                              with_report({.num_running = 6, .kv_usage = 0.2})};
  EXPECT_EQ(choose_replica(candidates, 100, 0), 1u);
}

TEST(ReplicaChoice, AKnownPrefixIsACreditThatLoadOverrides) {
  Candidates candidates{idle(), idle()};
  candidates[1].known_tokens = 900;
  EXPECT_EQ(choose_replica(candidates, 1000, 0), 1u);
  candidates[1].report = {.num_running = 10};
  EXPECT_EQ(choose_replica(candidates, 1000, 0), 1u) << "640 tokens of others' work are less than 900 of its own";
  candidates[1].report = {.num_running = 20};
  EXPECT_EQ(choose_replica(candidates, 1000, 0), 0u);
}

TEST(ReplicaChoice, AReplicaThatCameBackGetsItsPartOfTheLoad) {
  // Requests that go where the least work is: over a while the loads stand in the proportion of the ramps.
  Candidates candidates{idle(), idle()};
  candidates[1].ramp = 0.25;
  for (size_t request = 0; request < 500; request++)
    candidates[*choose_replica(candidates, 64, request)].num_unreported++;
  EXPECT_NEAR(candidates[1].num_unreported, 100, 2);
}

}  // namespace
}  // namespace cachalot::router
