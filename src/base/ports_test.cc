#include "base/ports.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <set>

namespace cachalot {
namespace {

using testing::HasSubstr;

FileDescriptor listen_at(int family, const sockaddr* address, socklen_t size) {
  FileDescriptor listener(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  EXPECT_EQ(bind(listener.get(), address, size), 0);
  EXPECT_EQ(listen(listener.get(), 1), 0);
  return listener;
}
FileDescriptor listen_at(uint16_t port) {
  const sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  return listen_at(AF_INET, reinterpret_cast<const sockaddr*>(&address), sizeof address);
}

TEST(KeptPort, IsNobodyElsesAndCanBeListenedAt) {
  std::vector<KeptPort> kept;
  std::set<uint16_t> ports;
  for (int idx = 0; idx < 200; idx++) {
    kept.push_back(KeptPort::keep().value());
    ports.insert(kept.back().port());
  }
  EXPECT_EQ(ports.size(), kept.size());
  EXPECT_FALSE(listen_fault("127.0.0.1", kept[0].port()));
  const FileDescriptor listener = listen_at(kept[0].port());
  EXPECT_TRUE(listen_fault("127.0.0.1", kept[0].port()));
}

TEST(ListenFault, NamesTheProcessThatHoldsThePort) {
  const KeptPort kept = KeptPort::keep().value();
  const FileDescriptor listener = listen_at(kept.port());
  const auto fault = listen_fault("127.0.0.1", kept.port());
  ASSERT_TRUE(fault);
  EXPECT_FALSE(fault->is_of_address);
  EXPECT_THAT(fault->why, HasSubstr("Address already in use, by base_test (pid " + std::to_string(getpid()) + ")"));
}

TEST(ListenFault, NamesItAlsoWithIpVersion6) {
  const sockaddr_in6 address{.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  if (listen_fault("::1", 0)) GTEST_SKIP() << "no IPv6 here";
  const FileDescriptor listener = listen_at(AF_INET6, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  sockaddr_in6 bound{};
  socklen_t size = sizeof bound;
  ASSERT_EQ(getsockname(listener.get(), reinterpret_cast<sockaddr*>(&bound), &size), 0);
  const auto fault = listen_fault("::1", ntohs(bound.sin6_port));
  ASSERT_TRUE(fault);
  EXPECT_THAT(fault->why, HasSubstr("by base_test (pid "));
}

TEST(ListenFault, TellsAnAddressOfOthersFromAPort) {
  const auto fault = listen_fault("192.0.2.1", 0);
  ASSERT_TRUE(fault);
  EXPECT_TRUE(fault->is_of_address);
  EXPECT_EQ(fault->why, "it is no address of this machine");
  EXPECT_TRUE(listen_fault("no.such.host.invalid", 0)->is_of_address);
  EXPECT_THAT(listen_error_text(EACCES, 80), HasSubstr("keeps port 80 for privileged programs"));
}

TEST(AddressText, PutsBracketsAroundColons) {
  EXPECT_EQ(address_text("127.0.0.1", 80), "127.0.0.1:80");
  EXPECT_EQ(address_text("::1", 80), "[::1]:80");
}

}  // namespace
}  // namespace cachalot
