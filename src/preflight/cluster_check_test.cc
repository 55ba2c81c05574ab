#include "preflight/cluster_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "base/folder_test_util.h"
#include "cluster/up_down.h"

namespace cachalot {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// What is found of a cluster on this machine whose file has that section `router`.
std::string check_with_router(const std::string& router) {
  ClusterFile cluster =
      parse_cluster_file("{model: /nowhere, port: 0, data-parallel-rpc-port: 0, router: " + router + "}", "c.yaml")
          .value();
  const std::vector<PlacedReplica> replicas = place_replicas(cluster).value();
  return check_text(check_cluster({.cluster = cluster, .replicas = replicas}).value());
}

TEST(ClusterCheck, ARouterWhoseAddressIsOfAnotherMachineIsToldSo) {
  const std::string text = check_with_router("{host: 192.0.2.1, port: 8002}");  // an address that nobody has
  EXPECT_THAT(text,
              AllOf(HasSubstr("the router cannot listen at 192.0.2.1:8002 on this machine: it is no address of "
                              "this machine"),
                    HasSubstr("set `router.host` to an address of this machine"), Not(HasSubstr("end what has"))));
}

TEST(ClusterCheck, ARoutersPortThatIsTakenIsToldSo) {
  const FileDescriptor listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
  socklen_t size = sizeof address;
  ASSERT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(listener.get(), 1), 0);
  ASSERT_EQ(getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  EXPECT_THAT(check_with_router("{port: " + std::to_string(ntohs(address.sin_port)) + "}"),
              AllOf(HasSubstr("on this machine: Address already in use"), HasSubstr("end what has the port")));
}

TEST(ClusterCheck, ARouterBesideAServerThatHasItsPortIsToldSoBeforeEitherStarts) {
  ClusterFile cluster = parse_cluster_file(
                            "{model: m, launcher: ssh, port: 7555, nodes: [{address: 127.0.0.1, devices: "
                            "2}], router: {port: 7556}}",
                            "c.yaml")
                            .value();
  const std::vector<PlacedReplica> replicas = place_replicas(cluster).value();
  EXPECT_EQ(router_port_fault(cluster, replicas),
            "the server of replica 1 and the router would both listen at 127.0.0.1:7556");
  EXPECT_THAT(check_ports(cluster, replicas).error().message, HasSubstr("c.yaml:1:97: router.port: the server of"));
  cluster.router.port = 7557;
  EXPECT_EQ(router_port_fault(cluster, replicas), std::nullopt);
  cluster.router = {.host = "127.0.0.2", .port = 7556};
  EXPECT_EQ(router_port_fault(cluster, replicas), std::nullopt);
}

// What a server would refuse after minutes.
TEST(ClusterCheck, FilesBesideTheWeightsAreReadAsAServerReadsThem) {
  namespace fs = std::filesystem;
  const TestFolder folder;
  const std::string nano = CACHALOT_SOURCE_DIR "/models/nano";
  for (const auto& entry : fs::directory_iterator(nano))
    fs::create_symlink(entry.path(), folder.path(entry.path().filename().string()));
  const auto fault = [&] { return inspect_node({.address = "127.0.0.1", .model = folder.path()}).tokenizer_fault; };
  EXPECT_EQ(fault(), "");
  fs::remove(folder.path("generation_config.json"));
  std::ofstream(folder.path("generation_config.json")) << R"({"temperature": "warm"})";
  EXPECT_THAT(fault(), HasSubstr("generation_config.json"));
  fs::remove(folder.path("tokenizer.json"));
  std::ofstream(folder.path("tokenizer.json")) << "{}";
  EXPECT_THAT(fault(), HasSubstr("tokenizer.json"));
}

}  // namespace
}  // namespace cachalot
