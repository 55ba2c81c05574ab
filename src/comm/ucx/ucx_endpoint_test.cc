#include "comm/ucx/ucx_endpoint.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <csignal>
#include <cstring>
#include <set>
#include <string>
#include <thread>

#include "comm/ucx/ucx_ranks_test_util.h"

namespace cachalot::ucx_test {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

std::string error_of(UcxEndpoint& endpoint, std::span<const UcxAddress> addresses) {
  const auto transport = endpoint.connect(addresses);
  return transport ? "" : transport.error().message;
}

TEST(NetworkInterface, IsFoundByTheRouteToAHost) {
  EXPECT_EQ(network_interface_to("127.0.0.1"), "lo");
  EXPECT_EQ(network_interface_to("localhost"), "lo");
  EXPECT_EQ(network_interface_to("::1").value_or("lo"), "lo") << "or there is no IPv6";
  const auto nowhere = network_interface_to("no-such-host.invalid");
  ASSERT_FALSE(nowhere);
  EXPECT_THAT(nowhere.error().message, HasSubstr("cannot find the host no-such-host.invalid"));
}

TEST(NetworkInterface, NamesAreChecked) {
  EXPECT_TRUE(check_network_interfaces("lo"));
  EXPECT_TRUE(check_network_interfaces("lo,lo"));
  for (const char* names : {"eth99", "lo,eth99"}) {
    const Status status = check_network_interfaces(names);
    ASSERT_FALSE(status);
    EXPECT_THAT(status.error().message,
                AllOf(HasSubstr("no network interface 'eth99' that is up, "), HasSubstr("there "), HasSubstr("lo")));
  }
}

// Where this process listens for TCP.
std::vector<std::string> listening_addresses() {
  std::vector<std::string> addresses;
  for (int fd = 0; fd < 1024; fd++) {
    int listens = 0;
    sockaddr_storage name{};
    socklen_t size = sizeof listens, name_size = sizeof name;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || listens == 0 ||
        getsockname(fd, reinterpret_cast<sockaddr*>(&name), &name_size) != 0 || name.ss_family == AF_UNIX)
      continue;
    std::array<char, INET6_ADDRSTRLEN> text{};
    const void* address = name.ss_family == AF_INET
                              ? static_cast<const void*>(&reinterpret_cast<const sockaddr_in&>(name).sin_addr)
                              : &reinterpret_cast<const sockaddr_in6&>(name).sin6_addr;
    inet_ntop(name.ss_family, address, text.data(), text.size());
    addresses.emplace_back(text.data());
  }
  return addresses;
}

// UCX believes whoever reaches its port.
TEST(UcxEndpoint, ListensAtTheChosenInterfaceOnly) {
  ASSERT_THAT(listening_addresses(), testing::IsEmpty());
  for (const UcxEndpointOptions& options : {UcxEndpointOptions{.rank = 0, .network_interface = "lo"},
                                            UcxEndpointOptions{.rank = 0, .route_to = "127.0.0.1"}}) {
    const auto endpoint = UcxEndpoint::create(options);
    ASSERT_TRUE(endpoint) << endpoint.error().message;
    EXPECT_THAT(listening_addresses(), AllOf(testing::Not(testing::IsEmpty()), testing::Each("127.0.0.1")));
  }
}

TEST(UcxEndpoint, AnUnknownInterfaceOrTransportIsAnError) {
  auto interface = UcxEndpoint::create({.rank = 0, .network_interface = "eth99"});
  ASSERT_FALSE(interface);
  EXPECT_THAT(interface.error().message, HasSubstr("'eth99'"));
  auto transport = UcxEndpoint::create({.rank = 0, .network_interface = "lo", .transports = "pigeons"});
  ASSERT_FALSE(transport);
  EXPECT_THAT(transport.error().message, HasSubstr("pigeons"));
}

TEST(UcxEndpoint, WhatTheEnvironmentSaysHolds) {
  const UcxEndpointOptions options{.rank = 0, .network_interface = "lo"};
  EXPECT_THAT(make_endpoint(options).settings(),
              AllOf(HasSubstr("UCX_TLS=^sm "), HasSubstr("UCX_NET_DEVICES=lo"), HasSubstr("UCX_CONN_NB=y")));
  // UCX reads the variables itself, so here they only have to be left alone.
  UcxEndpointOptions chosen = options;
  chosen.environment = {"UCX_NET_DEVICES=lo", "UCX_TLS=tcp,self", "UCX_TLS_INFO=1"};
  EXPECT_THAT(make_endpoint(chosen).settings(),
              AllOf(Not(HasSubstr("UCX_TLS=^sm")), HasSubstr("UCX_CONN_NB=y"),
                    EndsWith(", from the environment UCX_NET_DEVICES=lo UCX_TLS=tcp,self UCX_TLS_INFO=1")));
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they catch crashes themselves
TEST(UcxEndpoint, CrashesAndHangUpsAreNotCaughtByUcx) {
  for (const int signal : {SIGSEGV, SIGILL, SIGBUS, SIGFPE, SIGHUP}) {
    struct sigaction action{};
    ASSERT_EQ(sigaction(signal, nullptr, &action), 0);
    EXPECT_EQ(action.sa_handler, SIG_DFL) << strsignal(signal);
  }
}
#endif

// At the other ends of this process' TCP connections.
std::set<std::string> connected_hosts() {
  std::set<std::string> hosts;
  for (int fd = 0; fd < 1024; fd++) {
    sockaddr_in peer{};
    socklen_t size = sizeof(peer);
    if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) == 0 && peer.sin_family == AF_INET)
      hosts.insert(inet_ntoa(peer.sin_addr));
  }
  return hosts;
}

TEST(UcxEndpoint, GoesWhereTheRouteLeads) {
  UcxEndpoint one = make_endpoint({.rank = 0, .route_to = "127.0.0.1"}),
              other = make_endpoint({.rank = 1, .route_to = "127.0.0.1"});
  const std::array addresses = {UcxAddress{0, one.address()}, UcxAddress{1, other.address()}};
  std::jthread peer([&] { EXPECT_TRUE(other.connect(addresses)); });
  const auto transport = one.connect(addresses);
  ASSERT_TRUE(transport) << transport.error().message;
  EXPECT_THAT(connected_hosts(), testing::ElementsAre("127.0.0.1"));
}

TEST(UcxEndpoint, APeerThatNeverComesIsNamed) {
  UcxEndpointOptions hasty = loopback(1);
  hasty.deadline = milliseconds(100);
  UcxEndpoint early = make_endpoint(hasty), lower = make_endpoint(loopback(0)), higher = make_endpoint(loopback(2));
  const std::array addresses = {UcxAddress{0, lower.address()}, UcxAddress{1, early.address()},
                                UcxAddress{2, higher.address()}};
  EXPECT_EQ(error_of(early, addresses), "ucx: rank 1 waited 100 ms for ranks 0 and 2");
}

TEST(UcxEndpoint, APeerThatHasGoneIsKnownAtOnce) {
  UcxEndpoint own = make_endpoint(loopback(1));
  const std::string gone = make_endpoint(loopback(0)).address();
  EXPECT_THAT(error_of(own, std::array{UcxAddress{0, gone}}), HasSubstr("rank 0 (ucx): "));
}

TEST(UcxEndpoint, EpochsMustAgree) {
  UcxEndpoint lower = make_endpoint(loopback(0, 5)), higher = make_endpoint(loopback(1, 6));
  const std::array addresses = {UcxAddress{0, lower.address()}, UcxAddress{1, higher.address()}};
  std::string lower_message;
  std::jthread other([&] { lower_message = error_of(lower, addresses); });
  EXPECT_EQ(error_of(higher, addresses), "rank 0 (ucx): rank 0 of epoch 5 answers, in this rank's epoch 6");
  other.join();
  EXPECT_EQ(lower_message, "rank 1 (ucx): rank 1 of epoch 6 answers, in this rank's epoch 5");
}

TEST(UcxEndpoint, AnAddressThatIsNoneIsRefused) {
  const std::string good = make_endpoint(loopback(0)).address();
  const auto error_with = [](const std::string& address) {
    UcxEndpoint own = make_endpoint(loopback(1));
    return error_of(own, std::array{UcxAddress{0, address}});
  };
  EXPECT_THAT(error_with(""), HasSubstr("rank 0 (ucx): its address of 0 bytes"));
  EXPECT_THAT(error_with(good.substr(4)), HasSubstr("none of UCX"));
  EXPECT_THAT(error_with(good.substr(0, good.find('\n') + 1)), HasSubstr("none of UCX"));
  EXPECT_THAT(error_with("ucx 9.7" + good.substr(good.find('\n'))), HasSubstr("it runs ucx 9.7, this rank ucx 1."));
}

TEST(UcxEndpoint, WhoHadConnectedToARankThatFailsFindsOut) {
  UcxEndpointOptions hasty = loopback(1);
  hasty.deadline = milliseconds(3000);  // enough to reach rank 0, however busy the machine is
  UcxEndpoint fine = make_endpoint(loopback(0)), failing = make_endpoint(hasty), late = make_endpoint(loopback(2));
  const std::array addresses = {UcxAddress{0, fine.address()}, UcxAddress{1, failing.address()},
                                UcxAddress{2, late.address()}};
  std::jthread other([&] { EXPECT_THAT(error_of(failing, addresses), HasSubstr("for rank 2")); });
  auto transport = fine.connect(std::span(addresses).first(2));
  ASSERT_TRUE(transport) << transport.error().message;
  auto mesh = make_mesh(0, 2, std::move(*transport));
  std::byte byte;
  std::array receives = {ReceiveOp{.peer = 1, .buffer = {&byte, 1}}};
  mesh->start(receives[0]);
  const Status status = mesh->wait({}, receives, {"first"});
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr("rank 1 (ucx): "));
}

}  // namespace
}  // namespace cachalot::ucx_test
