#include "cluster/commands.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cachalot {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::Not;

struct Placed {
  ClusterFile cluster;
  std::vector<PlacedReplica> replicas;
};

Placed place(const std::string& text) {
  Placed placed{*parse_cluster_file(text, "/data/r1.yaml"), {}};
  placed.replicas = *place_replicas(placed.cluster);
  return placed;
}

constexpr const char* kTwoNodes = R"(
model: models/r1
nodes: [10.0.0.1, {address: 10.0.0.2, ssh: {user: serve, port: 2222}, environment: {GLOO_SOCKET_IFNAME: ib0}}]
devices: 8
tensor-parallel-size: 4
enable-expert-parallel: true
data-parallel-rpc-port: 54999
serve: {max-model-len: 2048, enable-prefix-caching: false}
router: {host: 10.0.0.1, prefix-entries: 100}
)";

TEST(ClusterCommands, AReplicaIsServedAsTheFileSays) {
  const Placed placed = place(kTwoNodes);
  EXPECT_THAT(serve_arguments(placed.cluster, placed.replicas.at(3)),
              ElementsAre("serve", "--model=models/r1", "--host=10.0.0.2", "--port=7556", "--tensor-parallel-size=4",
                          "--data-parallel-size=4", "--data-parallel-rank=3", "--data-parallel-address=10.0.0.1",
                          "--data-parallel-rpc-port=54999", "--visible-devices=4,5,6,7", "--drain-seconds=30",
                          "--enable-expert-parallel", "--max-model-len=2048", "--no-enable-prefix-caching"));
}

TEST(ClusterCommands, TheRouterKnowsAllServers) {
  const Placed placed = place(kTwoNodes);
  EXPECT_THAT(router_arguments(placed.cluster, placed.replicas),
              ElementsAre("router", "--server-urls", "http://10.0.0.1:7555", "http://10.0.0.1:7556",
                          "http://10.0.0.2:7555", "http://10.0.0.2:7556", "--host=10.0.0.1", "--port=8002",
                          "--model=models/r1", "--drain-seconds=30", "--prefix-entries=100"));
}

TEST(ClusterCommands, ServersThatHealKnowTheAgentsOfAllAndTheRouterVotesIfItIsTo) {
  constexpr const char* kHealing = R"(
model: m
nodes: [10.0.0.1, 10.0.0.2]
devices: 8
tensor-parallel-size: 4
data-parallel-size: 3
enable-expert-parallel: true
serve: {enable-fault-tolerance: true, failure-timeout-ms: 500}
)";
  const Placed placed = place(kHealing);
  const std::string agents = "--agents=10.0.0.1:29551,10.0.0.1:29552,10.0.0.2:29551";
  EXPECT_THAT(agent_arguments(placed.cluster, placed.replicas, placed.replicas.at(1), "run-7"),
              ElementsAre("--local-ranks=8", "--local-rank=4", agents, "--state-dir=run-7/server-1"));
  EXPECT_THAT(agent_arguments(placed.cluster, placed.replicas, placed.replicas.at(2), "run-7"),
              ElementsAre("--local-ranks=4", "--local-rank=0", agents, "--state-dir=run-7/server-2"));
  EXPECT_THAT(witness_arguments(placed.cluster, placed.replicas, "run-7"), ElementsAre());
  const Placed voting = place(std::string(kHealing) + "router: {witness: true}\n");
  EXPECT_THAT(agent_arguments(voting.cluster, voting.replicas, voting.replicas.at(0), "run-7"), Contains("--witness"));
  EXPECT_THAT(router_arguments(voting.cluster, voting.replicas), Contains("--witness"));
  EXPECT_THAT(witness_arguments(voting.cluster, voting.replicas, "run-7"),
              ElementsAre(agents, "--state-dir=run-7/witness", "--failure-timeout-ms=500"));
  // One server decides alone; one that does not heal has no agent.
  const Placed one = place("model: m\ntensor-parallel-size: 2\nserve: {enable-fault-tolerance: true}\n");
  EXPECT_THAT(agent_arguments(one.cluster, one.replicas, one.replicas.at(0), "run-7"),
              ElementsAre("--local-ranks=2", "--local-rank=0"));
  const Placed other = place(kTwoNodes);
  EXPECT_THAT(agent_arguments(other.cluster, other.replicas, other.replicas.at(0), "run-7"), ElementsAre());
}

TEST(ClusterCommands, WhoeverHasACertificateIsAskedOverTls) {
  const Placed servers = place("model: m\nserve: {ssl-certfile: c.pem}\n");
  EXPECT_TRUE(server_url(servers.cluster, servers.replicas.at(0)).starts_with("https://127.0.0.1:"));
  EXPECT_EQ(router_url(servers.cluster), "http://127.0.0.1:8002");
  const Placed router = place("model: m\nrouter: {ssl-certfile: c.pem}\n");
  EXPECT_TRUE(server_url(router.cluster, router.replicas.at(0)).starts_with("http://"));
  EXPECT_EQ(router_url(router.cluster), "https://127.0.0.1:8002");
}

TEST(ClusterCommands, TheRouterListensToStrangersOnlyOfAClusterOfMachines) {
  EXPECT_EQ(router_host(place("model: m\n").cluster), "127.0.0.1");
  EXPECT_EQ(router_host(place("model: m\nnodes: [10.0.0.1]\ndevices: 1\n").cluster), "0.0.0.0");
}

TEST(ClusterCommands, OnThisMachineTheProgramIsStartedItself) {
  const Placed placed = place("model: m\nenvironment: {A: x y}\n");
  EXPECT_THAT(launch_words(placed.cluster, placed.cluster.nodes[0], "/bin/cachalot", {"serve", "--port=1"}),
              ElementsAre("env", "A=x y", "/bin/cachalot", "lease", "--longest-silence=0", "--", "/bin/cachalot",
                          "serve", "--port=1"));
}

TEST(ClusterCommands, SshRunsItInTheNodesFolderWithItsEnvironment) {
  const Placed placed = place(kTwoNodes);
  const Words words = launch_words(placed.cluster, placed.cluster.nodes[1], "/opt/my programs/cachalot", {"serve"});
  EXPECT_EQ(words.front(), "ssh");
  EXPECT_THAT(words, AllOf(Contains("BatchMode=yes"), Contains("-T"), Contains("serve"), Contains("2222")));
  EXPECT_EQ(words[words.size() - 2], "10.0.0.2");
  EXPECT_EQ(words.back(),
            "cd /data && exec env GLOO_SOCKET_IFNAME=ib0 '/opt/my programs/cachalot' lease --longest-silence=10 -- "
            "'/opt/my programs/cachalot' serve");
  EXPECT_THAT(launch_words(placed.cluster, placed.cluster.nodes[0], "cachalot", {"serve"}), Not(Contains("-l")));
}

TEST(ClusterCommands, SlurmRunsItOnTheNodeOfTheAllocation) {
  const Placed placed = place("model: m\nlauncher: slurm\nnodes: [n1, n2]\ndevices: 1\n");
  const Words words = launch_words(placed.cluster, placed.cluster.nodes[1], "/bin/cachalot", {"serve"});
  EXPECT_EQ(words.front(), "srun");
  EXPECT_THAT(words, AllOf(Contains("--nodelist=n2"), Contains("--chdir=/data"), Contains("--longest-silence=10")));
  EXPECT_EQ(words.back(), "serve");
}

TEST(ClusterCommands, ShellWordsAreQuotedWhereTheyMust) {
  EXPECT_EQ(shell_quoted("--model=a/b-c_d.e"), "--model=a/b-c_d.e");
  EXPECT_EQ(shell_quoted("it's $HOME"), "'it'\\''s $HOME'");
  EXPECT_EQ(shell_quoted(""), "''");
}

}  // namespace
}  // namespace cachalot
