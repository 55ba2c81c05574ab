#include "config/cluster_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/cluster_layout.h"

namespace cachalot {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ClusterFile parse(const std::string& text) {
  Result<ClusterFile> cluster = parse_cluster_file(text, "/etc/cachalot/r1.yaml");
  EXPECT_TRUE(cluster.has_value()) << cluster.error().message;
  return cluster.value_or(ClusterFile{});
}

std::string error_of(const std::string& text) {
  const Result<ClusterFile> cluster = parse_cluster_file(text, "r1.yaml");
  return cluster ? "no error" : cluster.error().message;
}

constexpr const char* kSmallest = R"(model: /data/models/DeepSeek-R1-awq
nodes: [192.168.1.2, 192.168.1.3, 192.168.1.4, 192.168.1.5]
devices: 8
tensor-parallel-size: 4
enable-expert-parallel: true
)";

TEST(ClusterFile, FiveLinesDescribeFourNodesOfEightDevices) {
  ClusterFile cluster = parse(kSmallest);
  EXPECT_EQ(cluster.name, "r1");
  EXPECT_EQ(cluster.launcher, Launcher::kSsh);
  EXPECT_EQ(cluster.nodes.size(), 4U);
  EXPECT_EQ(cluster.nodes[3].address, "192.168.1.5");
  EXPECT_EQ(cluster.nodes[3].devices, 8);
  EXPECT_EQ(cluster.nodes[3].folder, "/etc/cachalot");
  EXPECT_EQ(cluster.router.port, 8002);
  const auto replicas = place_replicas(cluster);
  ASSERT_TRUE(replicas.has_value()) << replicas.error().message;
  ASSERT_EQ(replicas->size(), 8U);
  EXPECT_EQ(cluster.data_parallel_size, 8);
  EXPECT_TRUE(cluster.spans_replicas());
  EXPECT_EQ((*replicas)[5].node, 2);
  EXPECT_EQ((*replicas)[5].port, 7556);
  EXPECT_THAT((*replicas)[5].devices, ElementsAre(4, 5, 6, 7));
}

TEST(ClusterFile, ReadsEveryKey) {
  const ClusterFile cluster = parse(R"(
name: production
model: models/r1
served-model-name: [r1, deepseek]
launcher: ssh
program: /opt/cachalot/bin/cachalot
folder: /data
environment: {LD_LIBRARY_PATH: /opt/lib}
ssh: {user: serve, port: 2222, key: /root/.ssh/cluster, options: [StrictHostKeyChecking=accept-new]}
nodes:
  - {address: 10.0.0.1, devices: 4}
  - address: 10.0.0.2
    devices: 2
    program: /usr/bin/cachalot
    folder: /scratch
    environment: {GLOO_SOCKET_IFNAME: ib0}
    ssh: {host: node2.admin, user: root}
data-parallel-size: 3
tensor-parallel-size: 2
port: 9000
data-parallel-rpc-port: 54999
serve:
  max-model-len: 2048
  enable-prefix-caching: false
  api-key: [one, two]
router: {host: 10.0.0.1, port: 80, request-timeout: 60}
logs: /var/log/cachalot
drain-seconds: 5
restart: {first-wait: 0.5, longest-wait: 8, most: 3, window: 60}
)");
  EXPECT_EQ(cluster.name, "production");
  EXPECT_EQ(cluster.folder, "/etc/cachalot");
  EXPECT_THAT(cluster.served_model_names, ElementsAre("r1", "deepseek"));
  const ClusterNode& first = cluster.nodes.at(0);
  EXPECT_EQ(first.program, "/opt/cachalot/bin/cachalot");
  EXPECT_EQ(first.folder, "/data");
  EXPECT_EQ(first.ssh.user, "serve");
  EXPECT_EQ(first.ssh.port, 2222);
  const ClusterNode& second = cluster.nodes.at(1);
  EXPECT_EQ(second.program, "/usr/bin/cachalot");
  EXPECT_EQ(second.folder, "/scratch");
  EXPECT_EQ(second.ssh.host, "node2.admin");
  EXPECT_EQ(second.ssh.user, "root");
  EXPECT_EQ(second.ssh.key, "/root/.ssh/cluster");
  EXPECT_THAT(second.ssh.options, ElementsAre("StrictHostKeyChecking=accept-new"));
  EXPECT_EQ(second.environment.at("GLOO_SOCKET_IFNAME"), "ib0");
  EXPECT_EQ(second.environment.at("LD_LIBRARY_PATH"), "/opt/lib");
  EXPECT_EQ(cluster.data_parallel_size, 3);
  EXPECT_FALSE(cluster.spans_replicas());
  EXPECT_EQ(cluster.port, 9000);
  EXPECT_EQ(cluster.data_parallel_rpc_port, 54999);
  ASSERT_EQ(cluster.serve_flags.size(), 3U);
  EXPECT_EQ(cluster.serve_flags[0].name, "max-model-len");
  EXPECT_EQ(cluster.serve_flags[0].line, 23);
  EXPECT_THAT(cluster.serve_flags[1].values, ElementsAre("false"));
  EXPECT_THAT(cluster.serve_flags[2].values, ElementsAre("one", "two"));
  EXPECT_EQ(cluster.router.host, "10.0.0.1");
  EXPECT_EQ(cluster.router.port, 80);
  EXPECT_EQ(cluster.router.flags.at(0).name, "request-timeout");
  EXPECT_EQ(cluster.logs, "/var/log/cachalot");
  EXPECT_EQ(cluster.drain_seconds, 5);
  EXPECT_EQ(cluster.restart.first_wait, std::chrono::milliseconds(500));
  EXPECT_EQ(cluster.restart.longest_wait, std::chrono::seconds(8));
  EXPECT_EQ(cluster.restart.most_restarts, 3);
  EXPECT_EQ(cluster.restart.window, std::chrono::seconds(60));
}

TEST(ClusterFile, WithoutNodesIsThisMachineAndWithoutRouterHasNone) {
  ClusterFile cluster = parse("model: m\ntensor-parallel-size: 2\ndata-parallel-size: 3\nrouter: false\n");
  EXPECT_EQ(cluster.launcher, Launcher::kLocal);
  EXPECT_FALSE(cluster.router.enabled);
  ASSERT_EQ(cluster.nodes.size(), 1U);
  EXPECT_EQ(cluster.nodes[0].address, "127.0.0.1");
  const auto replicas = place_replicas(cluster);
  ASSERT_TRUE(replicas.has_value()) << replicas.error().message;
  EXPECT_EQ(replicas->size(), 3U);
}

TEST(ClusterFile, ErrorsNameFileLineKeyValueAndWhatWouldBeRight) {
  EXPECT_EQ(error_of("model: m\ntensor_parallel_size: 4\n"),
            "r1.yaml:2: tensor_parallel_size: no such key; the nearest is tensor-parallel-size");
  EXPECT_EQ(error_of("model: m\nrouter:\n  prot: 8\n"), "no error");  // a flag, perhaps: cli/ knows
  EXPECT_EQ(error_of("model: m\ndevices: eight\n"),
            "r1.yaml:2: devices is 'eight'; it must be a whole number from 1 to 4096");
  EXPECT_EQ(error_of("model: m\nnodes:\n  - address: a\n    ssh: {usr: me}\n"),
            "r1.yaml:4: nodes[0].ssh.usr: no such key; the nearest is user");
  EXPECT_EQ(error_of("model: m\nnodes:\n  - devices: 4\n"), "r1.yaml:3: nodes[0] has no address");
  EXPECT_EQ(error_of("model: m\nlauncher: docker\n"),
            "r1.yaml:2: launcher is 'docker'; it must be local, ssh or slurm");
  EXPECT_EQ(error_of("model: m\nserve: {block-size: 64, port: 80}\n"),
            "r1.yaml:2: serve.port stands in the wrong place; port is a key of the file itself");
  EXPECT_EQ(error_of("model: m\nserve: {host: a}\n"),
            "r1.yaml:2: serve.host cannot be set here; it follows from nodes and sizes");
  EXPECT_EQ(error_of("model: m\nfolder: data\n"), "r1.yaml:2: folder is 'data'; it must be an absolute path");
  EXPECT_EQ(error_of("model: m\nmodel: n\n"), "r1.yaml:2: model stands here twice");
  EXPECT_EQ(error_of("- a\n- b\n"), "r1.yaml:1: the file is a list; it must be a mapping of keys");
  EXPECT_EQ(error_of("devices: 3\n"), "r1.yaml has no `model`; it must name the model's folder");
  EXPECT_EQ(error_of("model: m\nport: 0\nnodes: [10.0.0.1]\n"),
            "r1.yaml: port and data-parallel-rpc-port may be 0 (any free one) only with `launcher: local`");
  EXPECT_THAT(error_of("model: [a\n"), HasSubstr("r1.yaml:2: this is no YAML: "));
  EXPECT_THAT(error_of("model: m\nrouter: true\n"), HasSubstr("r1.yaml:2: router is 'true'; it must be false, or"));
}

TEST(ClusterFile, AFileThatIsNotThereIsNamed) {
  const Result<ClusterFile> cluster = read_cluster_file("/nowhere/cluster.yaml");
  ASSERT_FALSE(cluster.has_value());
  EXPECT_THAT(cluster.error().message, HasSubstr("/nowhere/cluster.yaml"));
}

TEST(ClusterLayout, ReplicasNeverSpanNodes) {
  ClusterFile cluster =
      parse("model: m\nnodes: [{address: a, devices: 3}, {address: b, devices: 5}]\ntensor-parallel-size: 2\n");
  const auto replicas = place_replicas(cluster);
  ASSERT_TRUE(replicas.has_value()) << replicas.error().message;
  ASSERT_EQ(replicas->size(), 3U);
  EXPECT_EQ((*replicas)[0].node, 0);
  EXPECT_EQ((*replicas)[1].node, 1);
  EXPECT_EQ((*replicas)[1].local_idx, 0);
  EXPECT_THAT((*replicas)[2].devices, ElementsAre(2, 3));
}

TEST(ClusterLayout, SaysHowManyReplicasFit) {
  ClusterFile cluster = parse(kSmallest);
  cluster.data_parallel_size = 9;
  const auto too_many = place_replicas(cluster);
  ASSERT_FALSE(too_many.has_value());
  EXPECT_EQ(
      too_many.error().message,
      "/etc/cachalot/r1.yaml: 8 replicas of tensor-parallel-size 4 can stand on the devices of its 4 nodes (each on "
      "one node); data-parallel-size asks for 9");
  cluster.nodes[1].devices = 0;
  const auto unknown = place_replicas(cluster);
  ASSERT_FALSE(unknown.has_value());
  EXPECT_THAT(unknown.error().message, HasSubstr("node 192.168.1.3 has no `devices`"));
}

}  // namespace
}  // namespace cachalot
