#include "cluster/run_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/folder_test_util.h"
#include "cluster/status.h"

namespace cachalot {

namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class RunFolderTest : public testing::Test {
 protected:
  TestFolder scratch_;
  RunFolder folder_ = *RunFolder::open(scratch_.path("run"));
};

TEST_F(RunFolderTest, OnlyOneHoldsAName) {
  const auto lock = RunLock::take(folder_, "r1");
  ASSERT_TRUE(lock.has_value()) << lock.error().message;
  EXPECT_EQ(folder_.owner("r1"), getpid());
  const auto second = RunLock::take(folder_, "r1");
  ASSERT_FALSE(second.has_value());
  EXPECT_THAT(second.error().message, HasSubstr("cluster r1 is already up (pid " + std::to_string(getpid()) + ")"));
  const auto other = RunLock::take(folder_, "nano");
  ASSERT_TRUE(other.has_value());
  EXPECT_THAT(folder_.names(), ElementsAre("nano", "r1"));
}

TEST_F(RunFolderTest, NothingIsLeftOfALockThatHasGone) {
  {
    const auto lock = RunLock::take(folder_, "r1");
    ASSERT_TRUE(lock.has_value());
    std::ofstream(folder_.state_path("r1")) << "{}";
  }
  EXPECT_EQ(folder_.owner("r1"), std::nullopt);
  EXPECT_TRUE(std::filesystem::is_empty(scratch_.path("run")));
}

TEST_F(RunFolderTest, ALockOfAProcessThatWasKilledIsFree) {
  std::ofstream(scratch_.path("run/r1.lock")) << "1\n";  // as it leaves one
  EXPECT_EQ(folder_.owner("r1"), std::nullopt);
  EXPECT_TRUE(folder_.names().empty());
  EXPECT_TRUE(RunLock::take(folder_, "r1").has_value());
}

TEST_F(RunFolderTest, WhatCannotBeAFolderOrALockIsNamedWithTheWayOut) {
  std::ofstream(scratch_.path("file")) << "x";
  const auto below_a_file = RunFolder::open(scratch_.path("file/run"));
  ASSERT_FALSE(below_a_file.has_value());
  EXPECT_THAT(below_a_file.error().message, HasSubstr("the run folder " + scratch_.path("file/run") +
                                                      " cannot be made: Not a directory; --run-folder"));
  std::filesystem::create_directory(scratch_.path("run/r1.lock"));
  const auto lock = RunLock::take(folder_, "r1");
  ASSERT_FALSE(lock.has_value());
  EXPECT_THAT(lock.error().message, HasSubstr("run/r1.lock cannot be written: Is a directory; --run-folder"));
  EXPECT_EQ(folder_.owner("r1"), std::nullopt);
}

TEST_F(RunFolderTest, HintsNameTheFolderThatTheyNeed) {
  const RunFolder folder = *RunFolder::open(scratch_.path("run"), " --run-folder x");
  const auto lock = RunLock::take(folder, "r1");
  EXPECT_THAT(RunLock::take(folder, "r1").error().message,
              HasSubstr("`cachalot status r1 --run-folder x` shows it, `cachalot down r1 --run-folder x` stops it"));
}

TEST_F(RunFolderTest, AFileInItsPlaceIsRefused) {
  std::ofstream(scratch_.path("file")) << "x";
  const auto folder = RunFolder::open(scratch_.path("file"));
  ASSERT_FALSE(folder.has_value());
  EXPECT_THAT(folder.error().message, HasSubstr("--run-folder"));
}

using testing::ElementsAre;
using testing::HasSubstr;

ClusterState two_replicas() {
  ClusterState state{.name = "r1",
                     .file = "/data/r1.yaml",
                     .model = "models/r1",
                     .started = 1'700'000'000,
                     .data_parallel_size = 2,
                     .tensor_parallel_size = 2,
                     .enable_expert_parallel = true,
                     .drain_seconds = 7,
                     .replicas = {},
                     .router = {}};
  for (const char* label : {"replica 0", "replica 1"})
    state.replicas.push_back({.label = label,
                              .node = "10.0.0.1",
                              .url = "http://10.0.0.1:7555",
                              .log = "r.log",
                              .state = "starting",
                              .pid = 7,
                              .restarts = 3,
                              .loss = "ended with status 1",
                              .percentages = {40, 100}});
  state.router.push_back(
      {.label = "router", .node = "here", .url = "http://127.0.0.1:8002", .state = "ready", .up = true});
  return state;
}

TEST(ClusterState, IsReadBackAsItWasWritten) {
  const ClusterState state = two_replicas();
  const auto read = parse_cluster_state(to_json(state), "r1.json");
  ASSERT_TRUE(read.has_value()) << read.error().message;
  EXPECT_EQ(to_json(*read), to_json(state));
  EXPECT_EQ(read->drain_seconds, 7);
  EXPECT_THAT(read->replicas.at(1).percentages, ElementsAre(40, 100));
}

TEST(ClusterState, AForeignFileIsNamed) {
  for (const char* text : {"", "[]", "{\"name\": 3}", "{\"name\": \"a\"}"}) {
    const auto read = parse_cluster_state(text, "/run/r1.json");
    ASSERT_FALSE(read.has_value()) << text;
    EXPECT_THAT(read.error().message, HasSubstr("/run/r1.json is not the state of a cluster"));
  }
}

TEST(ClusterState, IsReadyWhenAllMembersAre) {
  ClusterState state = two_replicas();
  EXPECT_FALSE(state.ready());
  for (MemberState& replica : state.replicas) replica.ready = true;
  EXPECT_FALSE(state.ready());
  state.router[0].ready = true;
  EXPECT_TRUE(state.ready());
}

TEST(StatusText, AStartShowsEachRanksPart) {
  ClusterState state = two_replicas();
  state.replicas[1].up = true;
  EXPECT_THAT(progress_lines(state), ElementsAre("  replica 0  http://10.0.0.1:7555  rank 0 40%  rank 1 loaded",
                                                 "  replica 1  http://10.0.0.1:7555  rank 2 ready  rank 3 ready",
                                                 "  router     http://127.0.0.1:8002  waits for servers"));
}

TEST(StatusText, ShowsReplicasTheirLoadAndRanks) {
  const ClusterState state = two_replicas();
  ServerStates servers(2);
  servers[1] = ServerState{.phase = RankPhase::kReady, .num_running = 5, .num_waiting = 2, .kv_usage_percent = 25};
  servers[1]->ranks.push_back({.rank = 3,
                               .host = "node1",
                               .pid = 77,
                               .resident_bytes = 3'000'000'000,
                               .report = RankReport{.moe_layers = 58,
                                                    .num_experts = 256,
                                                    .expert_slots = 580,
                                                    .experts_held = 464,
                                                    .placement_version = 3,
                                                    .weight_bytes = 2'000'000,
                                                    .steps = 812,
                                                    .steps_without_rows = 406,
                                                    .nanoseconds_computing = 15'000'000'000,
                                                    .nanoseconds_waiting = 5'000'000'000}});
  const std::string text = status_text(state, servers);
  EXPECT_THAT(text, HasSubstr("cluster r1 (/data/r1.yaml): model models/r1, 2 x 2 ranks, experts over all of them"));
  EXPECT_THAT(text, HasSubstr("replica 0  10.0.0.1  http://10.0.0.1:7555   starting            -        -        -"));
  EXPECT_THAT(
      text, HasSubstr("replica 1  10.0.0.1  http://10.0.0.1:7555   ready               5        2        25%      3"));
  EXPECT_THAT(text, HasSubstr("router     here      http://127.0.0.1:8002  no server is ready"));
  EXPECT_THAT(text, HasSubstr("3     1        10.0.0.1 (node1)  77   8 of 256"));
  EXPECT_THAT(text, HasSubstr("812    50%           25%"));
  EXPECT_THAT(status_json(state, servers), HasSubstr("\"placement_version\":3"));
  EXPECT_THAT(text, testing::Not(HasSubstr("experts: placement")));
  RankReport& report = *servers[1]->ranks[0].report;
  report.placement_switches = 2;
  report.experts_moved = 17;
  report.balancedness_permille = 800;
  EXPECT_THAT(
      status_text(state, servers),
      HasSubstr("experts: placement 3, 17 moved in 2 switches; the busiest rank has 1.25 times the mean rows\n"));
  report.experts_held = report.expert_slots = 0;
  EXPECT_THAT(status_text(state, servers), HasSubstr("77   0 of 256")) << "a rank may have none";
  report.moe_layers = 0;
  EXPECT_THAT(status_text(state, servers), HasSubstr("a part of all"));
}

TEST(StatusText, WhileAServerStartsItSaysHowFarItIs) {
  const ClusterState state = two_replicas();
  ServerStates servers(2);
  servers[0] = ServerState{.phase = RankPhase::kForming, .ranks = {{.rank = 0}}};
  servers[1] = ServerState{.phase = RankPhase::kLoading,
                           .ranks = {{.rank = 2, .phase = RankPhase::kLoading, .percent = 30},
                                     {.rank = 3, .phase = RankPhase::kLoading, .percent = 50}}};
  const std::string text = status_text(state, servers);
  EXPECT_THAT(text, HasSubstr("http://10.0.0.1:7555   forming "));
  EXPECT_THAT(text, HasSubstr("http://10.0.0.1:7555   loading 40% "));
  EXPECT_THAT(status_json(state, servers), HasSubstr("\"phase\":\"loading\",\"percent\":50"));
}

TEST(StatusText, ColumnsAreAsWideAsTheirWidestCell) {
  EXPECT_EQ(table_text({{"a", "bb"}, {"ccc", ""}, {"d", "e"}}), "a    bb\nccc\nd    e\n");
}

}  // namespace

}  // namespace cachalot
