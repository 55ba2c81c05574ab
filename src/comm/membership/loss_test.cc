#include <gmock/gmock.h>
#include <sys/socket.h>

#include <atomic>

#include "comm/membership/loopback_test_util.h"
#include "comm/membership/rank_process_test_util.h"

// Ranks that die, stop, pause or are cut off, in processes of their own.
namespace cachalot::control {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::HasSubstr;
using Clock = std::chrono::steady_clock;

std::vector<JoinOptions> quick_options(int size, milliseconds failure_timeout) {
  std::vector<JoinOptions> options = group_options(size);
  for (JoinOptions& rank : options) rank.failure_timeout = failure_timeout;
  return options;
}

// Each survivor reports the one loss once, between the two moments after `begin`.
void expect_one_loss(RankProcesses& processes, int lost, OwnTime& time, Clock::time_point begin, milliseconds earliest,
                     milliseconds latest) {
  for (int rank = 0; rank < static_cast<int>(processes.size()); ++rank) {
    if (rank == lost) continue;
    SCOPED_TRACE(fmt::format("as rank {} reports it", rank));
    const std::vector<LossReport> losses = processes[rank]->losses(1);
    ASSERT_EQ(losses.size(), 1u);
    EXPECT_EQ(losses[0].rank, lost);
    EXPECT_GE(losses[0].at - begin, earliest);
    EXPECT_LE(time.between(begin, losses[0].at), latest);
    EXPECT_THAT(losses[0].text,
                AllOf(HasSubstr(fmt::format("rank {} (replica {}, host {}, pid ", lost, lost, this_host())),
                      HasSubstr("is lost: "), HasSubstr("; it was in step 7")));
  }
}

class KilledRank : public testing::TestWithParam<std::tuple<int, bool>> {};

TEST_P(KilledRank, IsReportedOnceByEveryoneWithin100Milliseconds) {
  const auto [rank, watch] = GetParam();
  RankProcesses processes = start_processes(quick_options(4, milliseconds(1'000)), watch);
  OwnTime time;
  const auto begin = Clock::now();
  processes[rank]->signal(SIGKILL);
  expect_one_loss(processes, rank, time, begin, milliseconds(0), milliseconds(100));
}

INSTANTIATE_TEST_SUITE_P(Membership, KilledRank, testing::Combine(testing::Values(0, 2), testing::Bool()),
                         [](const auto& instance) {
                           return fmt::format("Rank{}{}", std::get<0>(instance.param),
                                              std::get<1>(instance.param) ? "OnTheNode" : "Elsewhere");
                         });

class StoppedRank : public testing::TestWithParam<int> {};

TEST_P(StoppedRank, IsReportedOnceByEveryoneWithinTheTimeoutAndLearnsItWhenItGoesOn) {
  RankProcesses processes = start_processes(quick_options(4, milliseconds(1'000)), true);
  OwnTime time;
  const auto begin = Clock::now();
  processes[GetParam()]->signal(SIGSTOP);
  expect_one_loss(processes, GetParam(), time, begin, milliseconds(600), milliseconds(1'000));

  processes[GetParam()]->signal(SIGCONT);
  const std::vector<LossReport> own = processes[GetParam()]->losses(1);
  ASSERT_EQ(own.size(), 1u);
  EXPECT_EQ(own[0].rank, GetParam());
  EXPECT_THAT(own[0].text,
              AllOf(HasSubstr("the others have given up this rank"), HasSubstr("nothing has come from it")));
}

INSTANTIATE_TEST_SUITE_P(Membership, StoppedRank, testing::Values(0, 3), testing::PrintToStringParamName());

TEST(Membership, EveryLossIsReported) {
  RankProcesses processes = start_processes(quick_options(4, milliseconds(400)), true);
  processes[1]->signal(SIGKILL);
  processes[3]->signal(SIGKILL);
  for (const int rank : {0, 2}) {
    const std::vector<LossReport> losses = processes[rank]->losses(2);
    ASSERT_EQ(losses.size(), 2u);
    EXPECT_EQ(losses[0].rank + losses[1].rank, 4);
    EXPECT_NE(losses[0].rank, losses[1].rank);
  }
}

// As in a virtual machine that was paused: nobody was silent while others listened.
TEST(Membership, AGroupThatIsPausedAsAWholeGoesOn) {
  RankProcesses processes = start_processes(quick_options(4, milliseconds(500)), true);
  for (const auto& process : processes) process->signal(SIGSTOP);
  std::this_thread::sleep_for(milliseconds(900));
  for (const auto& process : processes) process->signal(SIGCONT);
  std::this_thread::sleep_for(milliseconds(600));
  for (const auto& process : processes) EXPECT_TRUE(process->losses(0, milliseconds(1)).empty());
}

// Rank 0 alone misses what comes while it is held up, for less than the others' patience but again and again.
TEST(Membership, AWatcherThatIsHeldUpAgainAndAgainGivesNoFalseAlarm) {
  RankProcesses processes = start_processes(quick_options(3, milliseconds(500)), true);
  for (int i = 0; i < 3; ++i) {
    for (const int rank : {0, 1}) {
      processes[rank]->signal(SIGSTOP);
      std::this_thread::sleep_for(milliseconds(150));
      processes[rank]->signal(SIGCONT);
    }
  }
  for (const auto& process : processes) EXPECT_TRUE(process->losses(0, milliseconds(20)).empty());
}

TEST(Membership, FullLoadOnFewCoresGivesNoFalseAlarm) {
  RankProcesses processes = start_processes(quick_options(8, milliseconds(1'000)), true, 2);
  std::this_thread::sleep_for(milliseconds(1'000));
  for (const auto& process : processes) EXPECT_TRUE(process->losses(0, milliseconds(10)).empty());
}

TEST(Membership, AGoodbyeIsNoLoss) {
  RankProcesses processes = start_processes(quick_options(4, milliseconds(400)), true);
  processes[2]->dismiss();
  processes[2]->wait_for_end();
  for (const int rank : {0, 1, 3}) EXPECT_TRUE(processes[rank]->losses(0, milliseconds(60)).empty());
  // Then all at once, rank 0 among them.
  for (const int rank : {0, 1, 3}) processes[rank]->dismiss();
  for (const int rank : {0, 1, 3}) {
    processes[rank]->wait_for_end();
    EXPECT_TRUE(processes[rank]->losses(0, milliseconds(1)).empty());
  }
}

// A network between a rank and rank 0 that can be cut: no byte comes through then, and no end of the connection.
class CuttableLine {
 public:
  CuttableLine(uint16_t port, uint16_t to) : listener_(loopback_socket(port)), to_(to) {
    CHECK(listen(listener_, 1) == 0);
    thread_ = std::jthread([this](const std::stop_token& stop) { carry(stop); });
  }
  void cut() { cut_ = true; }

 private:
  void carry(const std::stop_token& stop) {
    const int near = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC),
              far = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(to_), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    while (connect(far, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) std::this_thread::yield();
    while (!stop.stop_requested()) {
      std::array<pollfd, 2> ends{pollfd{.fd = near, .events = POLLIN}, pollfd{.fd = far, .events = POLLIN}};
      if (cut_) ends[0].fd = ends[1].fd = -1;
      poll(ends.data(), ends.size(), 10);
      if (ends[0].revents != 0) pass(near, far);
      if (ends[1].revents != 0) pass(far, near);
    }
    for (const int socket : {near, far, listener_}) close(socket);
  }
  static void pass(int from, int to) {
    std::array<char, 4096> bytes;
    const ssize_t size = recv(from, bytes.data(), bytes.size(), 0);
    if (size > 0) send(to, bytes.data(), size, MSG_NOSIGNAL);
  }

  int listener_;
  uint16_t to_;
  std::atomic<bool> cut_{false};
  std::jthread thread_;
};

TEST(Membership, ARankThatIsCutOffIsKnownToTheOthersAndKnowsItself) {
  std::vector<JoinOptions> options = quick_options(3, milliseconds(400));
  const uint16_t rank0_port = options[0].port;
  options[1].port = free_port();
  CuttableLine line(options[1].port, rank0_port);
  std::vector<JoinResult> group = join_all(options);
  std::array<std::atomic<int>, 3> lost{-1, -1, -1};
  for (int rank = 0; rank < 3; ++rank) {
    ASSERT_TRUE(group[rank].has_value());
    (*group[rank])->set_lost_handler([&lost, rank](const LostRank& loss) {
      EXPECT_EQ(lost[rank], -1) << loss.message();
      lost[rank] = loss.rank;
      lost[rank].notify_one();
    });
    (*group[rank])->set_activity(Phase::kIdle, 0);  // loading is given more time
  }
  std::this_thread::sleep_for(milliseconds(250));  // for the heartbeats to tell
  line.cut();
  for (std::atomic<int>& loss : lost) loss.wait(-1);
  EXPECT_EQ(lost[0], 1);
  EXPECT_EQ(lost[1], 0);
  EXPECT_EQ(lost[2], 1);
  const Status ready = (*group[1])->wait_until_all_ready();
  ASSERT_FALSE(ready.has_value());
  EXPECT_THAT(ready.error().message, HasSubstr("it is stopped, or this host is cut off"));
  leave_all(group);
}

}  // namespace
}  // namespace cachalot::control
