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
            "r1.yaml:2:1: tensor_parallel_size: no such key; the nearest is tensor-parallel-size");
  EXPECT_EQ(error_of("model: m\nrouter:\n  prot: 8\n"), "no error");  // a flag, perhaps: cli/ knows
  EXPECT_EQ(error_of("model: m\ndevices: eight\n"),
            "r1.yaml:2:10: devices is 'eight'; it must be a whole number from 1 to 4096");
  EXPECT_EQ(error_of("model: m\nnodes:\n  - address: a\n    ssh: {usr: me}\n"),
            "r1.yaml:4:11: nodes[0].ssh.usr: no such key; the nearest is user");
  EXPECT_EQ(error_of("model: m\nnodes:\n  - devices: 4\n"), "r1.yaml:3:5: nodes[0] has no address");
  EXPECT_EQ(error_of("model: m\nlauncher: docker\n"),
            "r1.yaml:2:11: launcher is 'docker'; it must be local, ssh or slurm");
  EXPECT_EQ(error_of("model: m\nserve: {block-size: 64, port: 80}\n"),
            "r1.yaml:2:31: serve.port stands in the wrong place; port is a key of the file itself");
  EXPECT_EQ(error_of("model: m\nserve: {host: a}\n"),
            "r1.yaml:2:15: serve.host cannot be set here; it follows from nodes and sizes");
  EXPECT_EQ(error_of("model: m\nfolder: data\n"), "r1.yaml:2:9: folder is 'data'; it must be an absolute path");
  EXPECT_EQ(error_of("model: m\nmodel: n\n"), "r1.yaml:2:1: model stands here twice");
  EXPECT_EQ(error_of("- a\n- b\n"), "r1.yaml:1:1: the file is a list; it must be a mapping of keys");
  EXPECT_EQ(error_of("devices: 3\n"), "r1.yaml has no `model`; it must name the model's folder");
  EXPECT_EQ(error_of("model: m\nport: 0\nnodes: [10.0.0.1]\n"),
            "r1.yaml:2:7: port is 0 (any free one); it may be so only with `launcher: local`");
  EXPECT_THAT(error_of("model: [a\n"), HasSubstr("r1.yaml:2:1: this is no YAML: "));
  EXPECT_THAT(error_of("model: m\nrouter: true\n"), HasSubstr("r1.yaml:2:9: router is 'true'; it must be false, or"));
}

// A person's slips, one of each kind that YAML allows.
TEST(ClusterFile, EveryShapeIsAFileOrAnError) {
  struct Case {
    std::string text, error;
  };
  const std::string nodes = "model: m\nnodes: ";
  for (const Case& shape : std::vector<Case>{
           {"", "r1.yaml has no `model`"},
           {"\n# nothing\n", "r1.yaml has no `model`"},
           {"~", "r1.yaml has no `model`"},
           {"model", "r1.yaml:1:1: the file is 'model'; it must be a mapping of keys"},
           {"model: ~\n", "r1.yaml:1:8: model is empty; it must be a text"},
           {"model: ''\n", "r1.yaml:1:8: model is empty; it must be a text"},
           {"model: [m]\n", "r1.yaml:1:8: model is a list; it must be a text"},
           {"model: {a: b}\n", "r1.yaml:1:8: model is a mapping; it must be a text"},
           {"model: m\nfolder: rel\nnodes: [{address: 127.0.0.1, devices: 1}]\n",
            "r1.yaml:2:9: folder is 'rel'; it must be an absolute path"},
           {"model: m\nnodes: [{address: a, folder: rel}]\n", "r1.yaml:2:30: nodes[0].folder is 'rel'; it must be an"},
           {nodes + "~\n", "r1.yaml:2:8: nodes is empty; it must be a list of addresses"},
           {nodes + "[]\n", "r1.yaml:2:8: nodes is a list; it must be a list of addresses"},
           {nodes + "a\n", "r1.yaml:2:8: nodes is 'a'; it must be a list of addresses"},
           {nodes + "{a: 1}\n", "r1.yaml:2:8: nodes is a mapping; it must be a list of addresses"},
           {nodes + "[~]\n", "r1.yaml:2:9: nodes[0] has no address"},
           {nodes + "[[a, b]]\n", "r1.yaml:2:9: nodes[0] is a list; it must be a mapping of keys"},
           {nodes + "[{address: [a]}]\n", "r1.yaml:2:19: nodes[0].address is a list; it must be a text"},
           {nodes + "[a b]\n", "r1.yaml:2:9: nodes[0] has the address 'a b'; it must be an IP address or the name"},
           {nodes + "[-oProxyCommand=x]\n", "r1.yaml:2:9: nodes[0] has the address '-oProxyCommand=x'"},
           {nodes + "&n [a, *n]\n", "nodes[1] is a list; it must be a mapping of keys"},
           {nodes + "[*n]\n", "r1.yaml:2:9: this is no YAML: "},
           {"&all {model: m, serve: *all}\n", "serve.serve is a mapping; it must be a text or a list of texts"},
           {"model: m\nserve: [block-size]\n", "r1.yaml:2:8: serve is a list; it must be a mapping of keys"},
           {"model: m\nserve: on\n", "r1.yaml:2:8: serve is 'on'; it must be a mapping of keys"},
           {"model: m\nserve: {block-size: {a: 1}}\n", "r1.yaml:2:21: serve.block-size is a mapping; it must be"},
           {"model: m\nserve: {block-size: ~}\n", "r1.yaml:2:21: serve.block-size is empty; it must be"},
           {"model: m\nserve: {api-key: \"a\\0b\"}\n", "serve.api-key is 'a\\x00b'; it must be a text"},
           {"model: m\nrouter: {\"a\\x01\": ~}\n", "router.'a\\x01' is empty; it must be a text or a list of texts"},
           {"model: m\nrouter: [8002]\n", "r1.yaml:2:9: router is a list; it must be a mapping of keys"},
           {"model: m\nrestart: {most: -1}\n", "r1.yaml:2:17: restart.most is '-1'; it must be a whole number from 0"},
           {"model: m\nrestart: {window: nan}\n", "r1.yaml:2:19: restart.window is 'nan'; it must be a number from"},
           {"model: m\n? [a, b]\n: c\n", "r1.yaml:2:3: a key of the file is a list; it must be a name"},
           {"model: m\n? ~\n: c\n", "a key of the file is empty; it must be a name"},
           {"model: m\nenvironment: {? [a] : b}\n", "a key of environment is a list; it must be a name"},
           {"model: m\nenvironment: {A: [b]}\n", "environment.A is a list; it must be a text"},
           {"model: m\nenvironment: {A=B: c}\n",
            "r1.yaml:2:14: environment is a mapping; it must be a mapping of names"},
           {"model: m\ndevices: 99999999999999999999\n", "r1.yaml:2:10: devices is '99999999999999999999'; it must be"},
           {"model: m\nport: 65536\n", "r1.yaml:2:7: port is '65536'; it must be a whole number from 0 to 65535"},
           {"model: m\nport: -1\n", "r1.yaml:2:7: port is '-1'; it must be"},
           {"model: m\nport: 1e3\n", "r1.yaml:2:7: port is '1e3'; it must be"},
           {"model: m\nname: ../up\n", "r1.yaml:2:7: name is '../up'; it must be a name"},
           {"model: m\n\tport: 1\n", "this is no YAML: "},
           {"model: m\n---\nmodel: n\n", "r1.yaml:3:1: another document begins"},
           {"model: m\nname: \xff\n", "r1.yaml:2:7: this is no text in UTF-8: byte 0xff"},
           {std::string("model: m\nname: a\0b\n", 18), "r1.yaml:2:8: this is no text in UTF-8: byte 0x00"},
           {"model: m\n\x1b[2J: 1\n", "r1.yaml:2:1: '\\x1b[2J': no such key"},
           {"<<: {model: m}\n", "'<<': no such key"},
           {std::string(100'000, '['), "this is no YAML: "},
           {std::string(100'000, '{'), "this is no YAML: "},
           {std::string((4 << 20) + 1, '#'), "r1.yaml has 4194305 bytes; a cluster file has at most 4194304"}})
    EXPECT_THAT(error_of(shape.text), HasSubstr(shape.error)) << shape.text.substr(0, 200);
}

TEST(ClusterFile, AFolderInPlaceOfTheFileIsSaidToBeOne) {
  const Result<ClusterFile> cluster = read_cluster_file("/tmp");
  ASSERT_FALSE(cluster.has_value());
  EXPECT_EQ(cluster.error().message, "/tmp is a folder; a cluster file is wanted, such as /tmp/cluster.yaml");
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

std::string placing_error(const std::string& text) {
  ClusterFile cluster = parse_cluster_file(text, "r1.yaml").value();
  const auto replicas = place_replicas(cluster);
  return replicas ? "no error" : replicas.error().message;
}

TEST(ClusterLayout, PortsThatTwoWouldShareOrThatDoNotExistAreFoundInTheFile) {
  const std::string here = "model: m\nenable-expert-parallel: true\nnodes: [{address: 127.0.0.1, devices: 3}]\n";
  EXPECT_EQ(placing_error(here), "no error");
  EXPECT_EQ(placing_error(here + "port: 65534\n"),
            "r1.yaml:4:7: port is 65534: the port of the server of replica 2 would be 65536; the last one is 65535");
  EXPECT_EQ(
      placing_error(here + "port: 8000\n"),
      "r1.yaml: router.port: the server of replica 2 and the router would both listen at 127.0.0.1:8002; give one "
      "of them another port");
  EXPECT_EQ(
      placing_error(here + "router: {port: 7556}\n"),
      "r1.yaml:4:16: router.port: the server of replica 1 and the router would both listen at 127.0.0.1:7556; give "
      "one of them another port");
  EXPECT_THAT(placing_error(here + "router: {port: 7556, host: 0.0.0.0}\n"), HasSubstr("would both listen"));
  EXPECT_EQ(placing_error(here + "router: {port: 7556, host: 127.0.0.9}\n"), "no error");
  EXPECT_EQ(
      placing_error(here + "data-parallel-rpc-port: 7557\n"),
      "r1.yaml: port: the rendezvous of the ranks (data-parallel-rpc-port) and the server of replica 2 would both "
      "listen at 127.0.0.1:7557; give one of them another port");
  EXPECT_EQ(placing_error("model: m\nnodes: [{address: 127.0.0.1, devices: 3}]\ndata-parallel-rpc-port: 7557\n"),
            "no error")
      << "replicas that run apart meet elsewhere";
  EXPECT_EQ(placing_error(here + "port: 0\ndata-parallel-rpc-port: 0\nrouter: {port: 0}\n"), "no error");
}

TEST(ClusterLayout, AddressesAreResolvedAndJudgedBeforeAnythingStarts) {
  const auto resolve = [](const std::string& name) -> Result<std::vector<std::string>> {
    if (name == "node1") return std::vector<std::string>{"10.0.0.1"};
    if (name == "node1.local") return std::vector<std::string>{"fe80::1", "10.0.0.1"};
    if (name == "node2") return std::vector<std::string>{"10.0.0.2"};
    if (name == "me") return std::vector<std::string>{"127.0.1.1"};
    if (name[0] >= '0' && name[0] <= '9') return std::vector<std::string>{name};
    return make_error(ErrorCode::kNotFound, "Name or service not known");
  };
  ClusterFile cluster;
  const auto error_of_nodes = [&](const std::string& nodes) {
    cluster = parse_cluster_file("model: m\nnodes: [" + nodes + "]\n", "r1.yaml").value();
    const Status status = resolve_addresses(cluster, resolve);
    return status ? "no error" : status.error().message;
  };
  EXPECT_EQ(error_of_nodes("node1, 10.0.0.2"), "no error");
  EXPECT_EQ(cluster.nodes[0].listen_address(), "10.0.0.1") << "there its name may mean 127.0.1.1";
  EXPECT_EQ(cluster.nodes[1].listen_address(), "10.0.0.2");
  EXPECT_EQ(error_of_nodes("node1, nod2"),
            "r1.yaml:2:16: nodes[1] has the address nod2, which does not resolve on this machine: Name or service not "
            "known");
  EXPECT_EQ(error_of_nodes("node1, node2, node1"),
            "r1.yaml:2:23: nodes[2] has the address node1, the same as nodes[0], node1; a node stands here once, with "
            "all its devices");
  EXPECT_EQ(error_of_nodes("node1, node1.local"),
            "r1.yaml:2:16: nodes[1] has the address node1.local, the same (10.0.0.1) as nodes[0], node1; a node stands "
            "here once, with all its devices");
  EXPECT_EQ(
      error_of_nodes("me, node2"),
      "r1.yaml:2:9: nodes[0] has the address me, on this machine 127.0.1.1, which no other node reaches; give the "
      "address under which the others reach it (`ip addr` there), or take its name off that line of /etc/hosts");
  EXPECT_EQ(error_of_nodes("me"), "no error");
  EXPECT_EQ(cluster.nodes[0].listen_address(), "me");
}

}  // namespace
}  // namespace cachalot
