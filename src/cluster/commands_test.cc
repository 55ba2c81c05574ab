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
