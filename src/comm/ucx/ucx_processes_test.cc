#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "comm/ucx/ucx_endpoint.h"
#include "comm/ucx/ucx_ranks_test_util.h"

// Ranks as processes of their own, killed, stopped, and in network namespaces.
namespace cachalot::ucx_test {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

int complain(const std::string& text) {
  fmt::print(stderr, "{}\n", text);
  return 1;
}

int exchange_or_complain(Mesh& mesh, int num_rounds) {
  for (int round = 0; round < num_rounds; round++) {
    if (const auto complaint = exchange(mesh, round, 1, 20'000)) return complain(*complaint);
  }
  return 0;
}

TEST(UcxProcesses, ExchangeMessages) {
  RankProcesses processes(4, [](Mesh& mesh) { return exchange_or_complain(mesh, 20); });
  for (int rank = 0; rank < 4; rank++) EXPECT_EQ(processes.answer(rank), 0) << "rank " << rank;
}

// Waits for a message that never comes: 0 if the error names the peer.
int wait_for_rank_1(Mesh& mesh) {
  std::byte byte{};
  std::array receives = {ReceiveOp{.peer = 1, .buffer = {&byte, 1}}};
  mesh.start(receives[0]);
  const Status status = mesh.wait({}, receives, {"never"});
  if (status || !status.error().message.contains("rank 1 (ucx): "))
    return complain(status ? "a message came" : status.error().message);
  return 0;
}

TEST(UcxProcesses, AKilledPeerIsAnErrorThatNamesItAtOnce) {
  RankProcesses processes(3, [](Mesh& mesh) {
    if (exchange_or_complain(mesh, 2) != 0) return 2;
    if (mesh.rank() == 1) std::this_thread::sleep_for(kLong);
    return wait_for_rank_1(mesh);
  });
  std::this_thread::sleep_for(milliseconds(1000));
  OwnTime time;
  processes.signal(1, SIGKILL);
  const Clock::time_point killed = Clock::now();
  EXPECT_EQ(processes.answer(1), 128 + SIGKILL);
  EXPECT_EQ(processes.answer(0), 0);
  EXPECT_EQ(processes.answer(2), 0);
  EXPECT_LT(time.since(killed), milliseconds(1000));
}

TEST(UcxProcesses, APeerThatIsKilledInTheMiddleOfALongMessageIsAnError) {
  RankProcesses processes(2, [](Mesh& mesh) {
    std::vector<std::byte> bytes(64 << 20);
    std::array sends = {SendOp{.peer = 1 - mesh.rank(), .data = bytes}};
    mesh.start(sends[0]);
    if (mesh.rank() == 1) raise(SIGKILL);
    const Status status = mesh.wait(sends, {}, {"long"});
    return !status && status.error().message.contains("rank 1 (ucx): ") ? 0 : 1;
  });
  EXPECT_EQ(processes.answer(1), 128 + SIGKILL);
  EXPECT_EQ(processes.answer(0), 0);
}

// A stopped process takes nothing: its peers see no error. They give up by their deadline, with messages on their way
// in both directions, and close without it.
TEST(UcxProcesses, ClosingDoesNotWaitForAStoppedPeer) {
  RankProcesses processes(3, [](Mesh& mesh) {
    if (exchange_or_complain(mesh, 2) != 0) return 2;
    if (mesh.rank() == 1) raise(SIGSTOP);
    std::vector<std::byte> out(16 << 20), in(16);
    std::vector<SendOp> sends;
    std::array receives = {ReceiveOp{.peer = 1, .buffer = in}};
    for (int idx = 0; idx < 2000; idx++) sends.push_back({.peer = 1, .data = std::span(out).first(1000)});
    sends.push_back({.peer = 1, .data = out});
    mesh.start(receives[0]);
    for (SendOp& op : sends) mesh.start(op);
    std::jthread watcher([&] {
      std::this_thread::sleep_for(milliseconds(300));
      mesh.fail({ErrorCode::kUnavailable, "rank 1 hangs"});
    });
    const Clock::time_point begin = Clock::now();
    const Status status = mesh.wait(sends, receives, {"stopped"});  // closes, too
    if (Clock::now() - begin > milliseconds(1500)) return complain("closing took long");
    return !status && status.error().message == "rank 1 hangs" ? 0 : 3;
  });
  EXPECT_EQ(processes.answer(0), 0);
  EXPECT_EQ(processes.answer(2), 0);
}

// A rank that fails closes, and who waits for it hears of that.
TEST(UcxProcesses, ARankThatFailsWakesThoseThatWaitForIt) {
  RankProcesses processes(3, [](Mesh& mesh) {
    if (mesh.rank() != 1) return wait_for_rank_1(mesh);
    std::this_thread::sleep_for(milliseconds(100));
    mesh.fail({ErrorCode::kInternal, "out of luck"});
    return mesh.progress() ? 1 : 0;
  });
  for (int rank = 0; rank < 3; rank++) EXPECT_EQ(processes.answer(rank), 0) << "rank " << rank;
}

// Two network namespaces in a user namespace, joined by a pair of veth devices: each rank is a node of its own, as far
// as the network goes. No root needed, but a kernel that lets users have namespaces.
class TwoNodes {
 public:
  static constexpr const char* kDevice = "node";

  // False where that is not to be had. Leaves the process in node 0.
  bool make() {
    const uid_t uid = getuid();
    const gid_t gid = getgid();
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) return false;
    const bool mapped = write_text("/proc/self/setgroups", "deny") &&
                        write_text("/proc/self/uid_map", fmt::format("0 {} 1", uid)) &&
                        write_text("/proc/self/gid_map", fmt::format("0 {} 1", gid));
    nodes_[0] = FileDescriptor(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
    if (!mapped || unshare(CLONE_NEWNET) != 0) return false;
    nodes_[1] = FileDescriptor(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
    return go_to(0) &&
           run(fmt::format("ip link add {0} type veth peer name {0} netns /proc/{1}/fd/{2}", kDevice, getpid(),
                           nodes_[1].get())) &&
           set_up(1) && set_up(0) && run("unshare --mount mount -t sysfs none /sys");  // as enter() will
  }

  // The rank's process enters its node, and sees its network devices in /sys, where UCX looks for them.
  UcxEndpointOptions enter(int rank) const {
    CHECK(go_to(rank) && unshare(CLONE_NEWNS) == 0 && mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
          mount("sysfs", "/sys", "sysfs", 0, nullptr) == 0);
    // The kernel takes a moment to see the carrier.
    for (int attempt = 0; attempt < 500 && !check_network_interfaces(kDevice); attempt++)
      std::this_thread::sleep_for(milliseconds(10));
    return {.rank = rank, .epoch = 5, .route_to = address_of(0), .deadline = kLong};
  }

 private:
  static std::string address_of(int node) { return fmt::format("10.77.0.{}", node + 1); }
  static bool run(const std::string& command) { return std::system((command + " >/dev/null 2>&1").c_str()) == 0; }
  static bool write_text(const char* path, const std::string& text) {
    std::ofstream file(path);
    file << text << std::flush;
    return file.good();
  }
  bool go_to(int node) const { return setns(nodes_[node].get(), CLONE_NEWNET) == 0; }
  bool set_up(int node) const {
    return go_to(node) && run("ip link set lo up") &&
           run(fmt::format("ip addr add {}/24 dev {}", address_of(node), kDevice)) &&
           run(fmt::format("ip link set {} up", kDevice));
  }

  std::array<FileDescriptor, 2> nodes_;
};

// What left through a device of this process's network namespace.
uint64_t bytes_through(const std::string& device) {
  std::ifstream table("/proc/self/net/dev");
  for (std::string line; std::getline(table, line);) {
    std::istringstream fields(line);
    std::string name, field;
    if (!(fields >> name) || name != device + ":") continue;
    for (int column = 0; column < 8; column++) fields >> field;  // of what has come
    uint64_t bytes = 0;
    fields >> bytes;
    return bytes;
  }
  return 0;
}

constexpr const char* kNoNodes = "users cannot make network namespaces here, or there is no ip command";

// body(nodes), in a process of its own because that cannot leave its namespaces again. Its answer; none where there can
// be no such nodes.
std::optional<int> with_two_nodes(const std::function<int(const TwoNodes&)>& body) {
  constexpr int kImpossible = 99;
  const int answer = fork_process([&] {
                       TwoNodes nodes;
                       return nodes.make() ? body(nodes) : kImpossible;
                     }).wait();
  return answer == kImpossible ? std::nullopt : std::optional(answer);
}

// body(mesh) on both; the sum of their answers.
std::optional<int> run_on_two_nodes(const RankProcesses::Body& body) {
  return with_two_nodes([&](const TwoNodes& nodes) {
    RankProcesses processes(2, body, [&](int rank) { return nodes.enter(rank); });
    return std::abs(processes.answer(0)) + std::abs(processes.answer(1));
  });
}

TEST(UcxNamespaces, UcxCarriesTheBytesBetweenNodes) {
  const std::optional<int> answer = run_on_two_nodes([](Mesh& mesh) {
    const uint64_t before = bytes_through(TwoNodes::kDevice);
    if (exchange_or_complain(mesh, 40) != 0) return 1;
    const Mesh::Traffic traffic = mesh.traffic()[0];
    const uint64_t through = bytes_through(TwoNodes::kDevice) - before;
    if (traffic.bytes_sent < 100'000 || through < traffic.bytes_sent || through > 2 * traffic.bytes_sent)
      return complain(fmt::format("{} bytes sent, {} through the device", traffic.bytes_sent, through));
    return 0;
  });
  if (!answer) GTEST_SKIP() << kNoNodes;
  EXPECT_EQ(*answer, 0);
}

// A peer that is cut off is silent: nobody hears of it from UCX, and nobody hangs.
TEST(UcxNamespaces, ClosingDoesNotWaitForAPeerThatIsCutOff) {
  const std::optional<int> answer = run_on_two_nodes([](Mesh& mesh) {
    if (exchange_or_complain(mesh, 2) != 0) return 1;
    if (mesh.rank() == 0 && std::system("ip link set node down") != 0) return 2;
    std::vector<std::byte> out(16 << 20);
    std::array sends = {SendOp{.peer = 1 - mesh.rank(), .data = out}};
    mesh.start(sends[0]);
    std::jthread watcher([&] {
      std::this_thread::sleep_for(milliseconds(300));
      mesh.fail({ErrorCode::kUnavailable, "the link is down"});
    });
    const Clock::time_point begin = Clock::now();
    const Status status = mesh.wait(sends, {}, {"cut off"});
    if (Clock::now() - begin > milliseconds(1500)) return complain("closing took long");
    return status ? complain("a message arrived through a link that is down") : 0;
  });
  if (!answer) GTEST_SKIP() << kNoNodes;
  EXPECT_EQ(*answer, 0);
}

TEST(UcxNamespaces, AHostThatDoesNotAnswerIsNamedByTheDeadline) {
  const std::optional<int> answer = with_two_nodes([](const TwoNodes& nodes) {
    std::array<int, 2> pipes{};
    CHECK(pipe(pipes.data()) == 0);
    Process silent = fork_process([&]() -> int {
      const UcxEndpoint endpoint = make_endpoint(nodes.enter(1));
      CHECK(write(pipes[1], endpoint.address().data(), endpoint.address().size()) > 0);
      for (;;) pause();
    });
    std::string address(4096, 0);
    address.resize(static_cast<size_t>(std::max<ssize_t>(read(pipes[0], address.data(), address.size()), 0)));
    UcxEndpointOptions options = nodes.enter(0);
    options.deadline = milliseconds(300);
    // A wrong hardware address, so that nothing arrives and nothing says so.
    CHECK(std::system("ip neigh add 10.77.0.2 lladdr 02:00:00:00:00:77 dev node") == 0);
    const Clock::time_point begin = Clock::now();
    const auto transport = make_endpoint(options).connect(std::array{UcxAddress{1, address}});
    const bool in_time = Clock::now() - begin < milliseconds(2000);
    silent.kill();
    if (transport || !transport.error().message.contains("rank 1")) return 1;
    return in_time ? 0 : complain(transport.error().message + ", late");
  });
  if (!answer) GTEST_SKIP() << kNoNodes;
  EXPECT_EQ(*answer, 0);
}

}  // namespace
}  // namespace cachalot::ucx_test
