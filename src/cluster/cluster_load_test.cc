#include "cluster/cluster_load.h"

#include <gtest/gtest.h>

namespace cachalot {
namespace {

TEST(ClusterLoad, IsReadFromAServersMetrics) {
  const ReplicaLoad load = read_replica_load(
      MetricsText::parse("vllm:num_requests_running{model_name=\"nano\"} 3\n"
                         "vllm:num_requests_waiting{model_name=\"nano\"} 1\n"
                         "vllm:kv_cache_usage_perc{model_name=\"nano\"} 0.5\n"
                         "cachalot:rank_info{rank=\"2\",pid=\"77\",host=\"node1\",first_expert=\"16\"} 1\n"
                         "cachalot:rank_info{rank=\"3\",pid=\"78\",host=\"node1\",first_expert=\"24\"} 1\n"
                         "cachalot:rank_experts{rank=\"3\"} 8\n"
                         "cachalot:steps_total{rank=\"3\"} 100\n"
                         "cachalot:steps_without_rows_total{rank=\"3\"} 40\n"
                         "cachalot:step_seconds_total{rank=\"3\",part=\"compute\"} 6\n"
                         "cachalot:step_seconds_total{rank=\"3\",part=\"exchange\"} 1\n"
                         "cachalot:step_seconds_total{rank=\"3\",part=\"waiting\"} 3\n"));
  EXPECT_EQ(load.running, 3);
  EXPECT_EQ(load.waiting, 1);
  EXPECT_EQ(load.kv_usage, 0.5);
  ASSERT_EQ(load.ranks.size(), 2U);
  const RankLoad& rank = load.ranks[1];
  EXPECT_EQ(rank.rank, 3);
  EXPECT_EQ(rank.pid, 78);
  EXPECT_EQ(rank.host, "node1");
  EXPECT_EQ(rank.first_expert, 24);
  EXPECT_EQ(rank.num_experts, 8);
  EXPECT_EQ(rank.steps, 100);
  EXPECT_EQ(rank.steps_without_rows, 40);
  EXPECT_EQ(rank.seconds_in_steps, 10);
  EXPECT_EQ(rank.seconds_waiting, 3);
}

TEST(ClusterLoad, OfAServerThatAnswersSomethingElseIsEmpty) {
  EXPECT_TRUE(read_replica_load(MetricsText::parse("<html>no such page</html>")).ranks.empty());
}

}  // namespace
}  // namespace cachalot
