#include "comm/shm/shm_endpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <functional>
#include <thread>

#include "base/error.h"
#include "base/process_test_util.h"
#include "comm/mesh.h"
#include "comm/shm/segment.h"

namespace cachalot {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::HasSubstr;

constexpr milliseconds kLong{20'000};

ShmEndpoint make_endpoint(int rank, uint64_t epoch = 5, milliseconds deadline = kLong) {
  auto endpoint = ShmEndpoint::create({.rank = rank, .epoch = epoch, .deadline = deadline});
  CHECK(endpoint, "{}", endpoint.error().message);
  return std::move(*endpoint);
}

std::unique_ptr<Mesh> make_mesh(int rank, int size, std::unique_ptr<Transport> transport) {
  std::vector<std::unique_ptr<Transport>> transports;
  transports.push_back(std::move(transport));
  auto mesh = Mesh::create({.rank = rank, .size = size, .deadline = kLong}, std::move(transports));
  CHECK(mesh, "{}", mesh.error().message);
  return std::move(*mesh);
}

// Processes that run body(mesh) and end with its answer (0: all is well).
class RankProcesses {
 public:
  RankProcesses(int num_ranks, const std::function<int(Mesh&)>& body) {
    std::vector<ShmEndpoint> endpoints;
    std::vector<ShmAddress> addresses;
    for (int rank = 0; rank < num_ranks; rank++) {
      endpoints.push_back(make_endpoint(rank));
      addresses.push_back({rank, endpoints.back().address()});
    }
    for (int rank = 0; rank < num_ranks; rank++) {
      processes_.push_back(fork_process([&] {
        ShmEndpoint own = std::move(endpoints[rank]);
        endpoints.clear();  // so that a dead rank's socket is gone
        auto transport = own.connect(addresses);
        if (!transport) {
          fmt::print(stderr, "{}\n", transport.error().message);
          return 100;
        }
        return body(*make_mesh(rank, num_ranks, std::move(*transport)));
      }));
    }
  }
  void end(int rank, int signal_number) { processes_[rank].signal(signal_number); }
  int answer(int rank) { return processes_[rank].wait(); }

 private:
  std::vector<Process> processes_;
};

uint32_t word_of(int from, int to, int step) {
  return static_cast<uint32_t>((from * 100 + to) * 1000 + step);
}

// All to all, of other sizes each step; 0 if all came right.
int exchange(Mesh& mesh, int num_steps) {
  for (int step = 0; step < num_steps; step++) {
    const auto num_words = [&](int from, int to) { return static_cast<size_t>(word_of(from, to, step) % 7919 * 7); };
    std::vector<std::vector<uint32_t>> out(mesh.size()), in(mesh.size());
    std::vector<SendOp> sends;
    std::vector<ReceiveOp> receives;
    for (int peer = 0; peer < mesh.size(); peer++) {
      if (peer == mesh.rank()) continue;
      out[peer].assign(num_words(mesh.rank(), peer), word_of(mesh.rank(), peer, step));
      in[peer].resize(num_words(peer, mesh.rank()));
      sends.push_back({.peer = peer, .data = std::as_bytes(std::span(out[peer]))});
      receives.push_back({.peer = peer, .buffer = std::as_writable_bytes(std::span(in[peer]))});
    }
    for (ReceiveOp& op : receives) mesh.start(op);
    for (SendOp& op : sends) mesh.start(op);
    if (const Status status = mesh.wait(sends, receives, {"exchange"}); !status) {
      fmt::print(stderr, "{}\n", status.error().message);
      return 1;
    }
    for (const ReceiveOp& op : receives) {
      const uint32_t expected = word_of(op.peer, mesh.rank(), step);
      if (op.size != op.buffer.size() ||
          std::ranges::any_of(in[op.peer], [&](uint32_t word) { return word != expected; }))
        return 2;
    }
  }
  return 0;
}

std::string socket_of(const ShmEndpoint& endpoint) {
  const std::string address = endpoint.address();
  return address.substr(address.find(' ') + 1);
}

TEST(ShmEndpoint, ConnectsProcessesInAnyOrder) {
  constexpr int kRanks = 6;
  RankProcesses processes(kRanks, [](Mesh& mesh) { return exchange(mesh, 20); });
  for (int rank = 0; rank < kRanks; rank++) EXPECT_EQ(processes.answer(rank), 0) << "rank " << rank;
}

TEST(ShmEndpoint, OnlyRanksOfAUserShare) {
  const std::string own = make_endpoint(0).address(), other = make_endpoint(1).address();
  EXPECT_TRUE(ShmEndpoint::may_share(own, other));
  EXPECT_FALSE(ShmEndpoint::may_share(own, ""));
  EXPECT_FALSE(ShmEndpoint::may_share("", ""));
  EXPECT_FALSE(ShmEndpoint::may_share("user:[1]:1000 a", "user:[1]:1001 b"));
  EXPECT_FALSE(ShmEndpoint::may_share("user:[1]:1000 a", "user:[2]:1000 b"));
}

TEST(ShmEndpoint, APeerThatNeverComesIsNamed) {
  ShmEndpoint early = make_endpoint(1, 5, milliseconds(50)), lower = make_endpoint(0), higher = make_endpoint(2);
  const std::array addresses = {ShmAddress{0, lower.address()}, ShmAddress{1, early.address()},
                                ShmAddress{2, higher.address()}};
  const auto transport = early.connect(addresses);
  ASSERT_FALSE(transport);
  EXPECT_EQ(transport.error().code, ErrorCode::kDeadlineExceeded);
  EXPECT_EQ(transport.error().message, "shared memory: rank 1 waited 50 ms for ranks 0, 2");
}

TEST(ShmEndpoint, APeerThatHasGoneIsKnownAtOnce) {
  ShmEndpoint own = make_endpoint(1);
  std::string gone, gone_socket;
  {
    const ShmEndpoint short_lived = make_endpoint(0);
    gone = short_lived.address();
    gone_socket = socket_of(short_lived);
  }
  const auto transport = own.connect(std::array{ShmAddress{0, gone}});
  ASSERT_FALSE(transport);
  EXPECT_THAT(transport.error().message,
              AllOf(HasSubstr("with rank 0"), HasSubstr("nobody listens"), HasSubstr(gone_socket)));
}

TEST(ShmEndpoint, EpochsMustAgree) {
  ShmEndpoint lower = make_endpoint(0, 5), higher = make_endpoint(1, 6);
  const std::array addresses = {ShmAddress{0, lower.address()}, ShmAddress{1, higher.address()}};
  std::string lower_message;
  std::thread other([&] { lower_message = lower.connect(addresses).error().message; });
  const auto transport = higher.connect(addresses);
  other.join();
  ASSERT_FALSE(transport);
  EXPECT_EQ(transport.error().message, "shared memory with rank 0: rank 0 of epoch 5 answers, in this rank's epoch 6");
  EXPECT_EQ(lower_message, "shared memory with rank 1: rank 1 of epoch 6 answers, in this rank's epoch 5");
}

constexpr GreetingFds kAnyFds{.memory = 0, .event_fd = 0, .board_fds = {0, 0}, .pidfd = 0};

TEST(ShmEndpoint, VersionsMustAgree) {
  ShmEndpoint own = make_endpoint(0);
  std::thread other([name = socket_of(own)] {
    const Result<FileDescriptor> socket = connect_to(name);
    ASSERT_TRUE(socket);
    ASSERT_TRUE(send_greeting(socket->get(), {.version = 77, .rank = 1, .epoch = 5}, kAnyFds));
    pollfd polled{.fd = socket->get(), .events = POLLIN};
    ASSERT_EQ(poll(&polled, 1, 10'000), 1);
    const Result<ReceivedGreeting> answer = receive_greeting(socket->get());
    ASSERT_TRUE(answer) << "it is told the version, so that it knows as well";
    EXPECT_EQ(answer->greeting.version, SegmentHeader::kVersion);
  });
  const auto transport = own.connect(std::array{ShmAddress{1, "unused"}});
  other.join();
  ASSERT_FALSE(transport);
  EXPECT_THAT(transport.error().message, AllOf(HasSubstr("with rank 1"), HasSubstr("version 77")));
}

TEST(ShmEndpoint, StrangersAreSentAway) {
  ShmEndpoint lower = make_endpoint(0), higher = make_endpoint(1);
  const std::array addresses = {ShmAddress{0, lower.address()}, ShmAddress{1, higher.address()}};
  const Result<FileDescriptor> silent = connect_to(socket_of(lower)), talking = connect_to(socket_of(lower)),
                               unknown = connect_to(socket_of(lower));
  ASSERT_TRUE(silent && talking && unknown);
  ASSERT_EQ(write(talking->get(), "GET /", 5), 5);
  ASSERT_TRUE(send_greeting(unknown->get(), {.rank = 9, .epoch = 5}, kAnyFds));
  std::thread other([&] { EXPECT_TRUE(lower.connect(addresses)); });
  EXPECT_TRUE(higher.connect(addresses));
  other.join();
}

TEST(ShmEndpoint, WhoHadConnectedToARankThatFailsFindsOut) {
  ShmEndpoint fine = make_endpoint(0), failing = make_endpoint(1, 5, milliseconds(50)), late = make_endpoint(2);
  const std::array addresses = {ShmAddress{0, fine.address()}, ShmAddress{1, failing.address()},
                                ShmAddress{2, late.address()}};
  std::thread other([&] { EXPECT_FALSE(failing.connect(addresses)); });
  auto transport = fine.connect(std::span(addresses).first(2));
  ASSERT_TRUE(transport) << transport.error().message;
  auto mesh = make_mesh(0, 2, std::move(*transport));
  std::byte byte;
  std::array receives = {ReceiveOp{.peer = 1, .buffer = {&byte, 1}}};
  mesh->start(receives[0]);
  const Status status = mesh->wait({}, receives, {"first"});
  other.join();
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr("rank 1 has closed"));
}

// The process of rank 0 waits for a message; its watcher, as the membership will be, sees the pidfd of rank 1.
TEST(ShmEndpoint, AKilledPeerIsKnownByItsPidfdAndTheWaitEnds) {
  std::vector<ShmEndpoint> endpoints;
  endpoints.push_back(make_endpoint(0));
  endpoints.push_back(make_endpoint(1));
  const std::vector<ShmAddress> addresses = {{0, endpoints[0].address()}, {1, endpoints[1].address()}};
  Process victim = fork_process([&] {
    const auto transport = endpoints[1].connect(addresses);
    while (transport) pause();
    return 1;
  });
  auto transport = endpoints[0].connect(addresses);
  ASSERT_TRUE(transport) << transport.error().message;
  std::vector<PeerProcess> processes = (*transport)->take_peer_pidfds();
  ASSERT_EQ(processes.size(), 1);
  EXPECT_EQ(processes[0].rank, 1);
  auto mesh = make_mesh(0, 2, std::move(*transport));
  std::thread watcher([&] {
    pollfd polled{.fd = processes[0].pidfd.get(), .events = POLLIN};
    EXPECT_EQ(poll(&polled, 1, 50), 0) << "it lives";
    victim.signal(SIGKILL);
    EXPECT_EQ(poll(&polled, 1, 10'000), 1);
    mesh->fail({ErrorCode::kUnavailable, "rank 1 died"});
  });
  std::byte byte;
  std::array receives = {ReceiveOp{.peer = 1, .buffer = {&byte, 1}}};
  mesh->start(receives[0]);
  const Status status = mesh->wait({}, receives, {"never"});
  watcher.join();
  victim.wait();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message, "rank 1 died");
}

// A peer that dies leaves a ring that nobody empties.
TEST(ShmEndpoint, RanksSurviveAPeerThatIsKilledInTheMiddleOfALongMessage) {
  RankProcesses processes(2, [](Mesh& mesh) {
    std::vector<std::byte> bytes(64 << 20);
    std::array sends = {SendOp{.peer = 1 - mesh.rank(), .data = bytes}};
    mesh.start(sends[0]);
    if (mesh.rank() == 0) raise(SIGKILL);
    std::thread watcher([&] {
      std::this_thread::sleep_for(milliseconds(50));
      mesh.fail({ErrorCode::kUnavailable, "rank 0 died"});
    });
    const Status status = mesh.wait(sends, {}, {"long"});
    watcher.join();
    return !status && status.error().message == "rank 0 died" ? 0 : 1;
  });
  EXPECT_EQ(processes.answer(0), 128 + SIGKILL);
  EXPECT_EQ(processes.answer(1), 0);
}

}  // namespace
}  // namespace cachalot
