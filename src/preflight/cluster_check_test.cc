#include "preflight/cluster_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/file_descriptor.h"

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

}  // namespace
}  // namespace cachalot
