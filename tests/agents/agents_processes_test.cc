#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "agents/running_agent.h"
#include "base/folder_test_util.h"
#include "base/ports.h"
#include "base/process_test_util.h"
#include "base/stop_signals.h"
#include "base/text.h"

namespace cachalot::agents {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Clock = std::chrono::steady_clock;

// When a rank's process was in an epoch, as it has written itself.
struct Stay {
  uint64_t process = 0;
  int rank = 0;
  uint32_t epoch = 0;
  int64_t begin = 0, end = 0;
  std::vector<uint64_t> members;
};

std::vector<Stay> stays_in(const std::string& folder) {
  std::vector<Stay> stays;
  for (const std::string& name : names_in_folder(folder)) {
    std::ifstream file(folder + "/" + name);
    for (std::string line; std::getline(file, line) && !file.eof();) {  // the last may be half a one
      std::istringstream words(line);
      std::string kind;
      uint32_t epoch = 0;
      words >> kind >> epoch;
      if (kind == "in") {
        Stay& stay = stays.emplace_back(Stay{.process = leading_number<uint64_t>(name), .epoch = epoch});
        size_t num_members = 0;
        words >> stay.rank >> num_members >> stay.begin;
        stay.end = stay.begin;
        for (uint64_t member = 0; words >> member;) stay.members.push_back(member);
        EXPECT_EQ(stay.members.size(), num_members);
      } else if (int64_t at = 0; words >> at) {
        EXPECT_EQ(stays.back().epoch, epoch);
        stays.back().end = at;
      }
    }
  }
  return stays;
}

// Of agents that are processes.
class AgentsTest : public testing::Test {
 protected:
  // Every agent that ever was has ended: what its ranks have written is whole.
  void TearDown() override {
    agents_.clear();
    check_epochs();
    if (HasFailure()) {
      std::filesystem::copy(
          folder_.path(), fmt::format("{}/agents_processes_test_{}", testing::TempDir(), test_info_name()),
          std::filesystem::copy_options::recursive | std::filesystem::copy_options::overwrite_existing);
    }
  }

  void start(int num_servers, int ranks_per_server, bool has_witness = false) {
    num_servers_ = num_servers;
    ranks_per_server_ = ranks_per_server;
    has_witness_ = has_witness;
    std::filesystem::create_directory(folder_.path("ranks"));
    for (int server = 0; server < num_servers; server++) {
      ports_.push_back(KeptPort::keep().value());
      addresses_.push_back({.host = "127.0.0.1", .port = ports_.back().port()});
    }
    for (int server = 0; server < num_servers + (has_witness ? 1 : 0); server++) start_agent(server);
  }
  void start_agent(int server) {
    std::string addresses;
    for (const AgentAddress& address : addresses_) addresses += (addresses.empty() ? "" : " ") + address.text();
    agents_.erase(server);
    agents_.emplace(
        server, Process::start({.words = {AGENTS_NODE, "agent", std::to_string(server), std::to_string(num_servers_),
                                          std::to_string(ranks_per_server_), has_witness_ ? "1" : "0", addresses,
                                          folder_.path("ranks"), state_dir(server)},
                                .log = folder_.path(fmt::format("agent-{}.log", server))})
                    .value());
  }
  void kill_agent(int server) {
    agents_.at(server).kill();
    agents_.at(server).wait();
  }
  std::string state_dir(int server) const { return folder_.path(fmt::format("state-{}", server)); }
  Process& agent(int server) { return agents_.at(server); }
  std::vector<pid_t> ranks_of(int server) { return descendants_of(agents_.at(server).pid()); }
  Result<OperatorAnswer> ask(int server, std::vector<int> lost = {}) {
    return ask_agent(addresses_[static_cast<size_t>(server)], "a secret", {.lost = std::move(lost)}, seconds(5));
  }

  // Ranks of these servers serve together, no others, and have begun to do so since.
  testing::AssertionResult serve(const std::set<int>& servers, Clock::time_point since,
                                 seconds patience = seconds(20)) {
    const Clock::time_point end = Clock::now() + patience;
    std::string seen;
    while (Clock::now() < end) {
      std::map<uint32_t, std::set<int>> in;  // by epoch: ranks that are in it now
      const auto now = Clock::now().time_since_epoch().count();
      uint32_t newest = 0;
      for (const Stay& stay : stays_in(folder_.path("ranks"))) {
        if (now - stay.end > 100'000'000 || stay.end < since.time_since_epoch().count()) continue;
        in[stay.epoch].insert(stay.rank);
        newest = std::max(newest, stay.epoch);
      }
      std::set<int> wanted;
      for (const int server : servers)
        for (int idx = 0; idx < ranks_per_server_; idx++) wanted.insert(server * ranks_per_server_ + idx);
      if (newest != 0 && in[newest] == wanted && in.size() == 1) return testing::AssertionSuccess();
      seen = fmt::format("epoch {}: {} of {} ranks", newest, in[newest].size(), wanted.size());
      std::this_thread::sleep_for(milliseconds(10));
    }
    return testing::AssertionFailure() << seen;
  }
  bool nobody_serves_for(milliseconds time) {
    const auto count = [&] {
      int64_t last = 0;
      for (const Stay& stay : stays_in(folder_.path("ranks"))) last = std::max(last, stay.end);
      return last;
    };
    const int64_t before = count();
    std::this_thread::sleep_for(time);
    return count() == before;
  }

 private:
  static std::string test_info_name() { return testing::UnitTest::GetInstance()->current_test_info()->name(); }

  // What must never be: an epoch that is known in two ways, two that serve at the same time, one that begins before who
  // is left out of it has ended.
  void check_epochs() const {
    const std::vector<Stay> stays = stays_in(folder_.path("ranks"));
    std::map<uint32_t, std::vector<Stay>> by_epoch;
    for (const Stay& stay : stays) by_epoch[stay.epoch].push_back(stay);
    int64_t served_until = 0;
    for (const auto& [number, members] : by_epoch) {
      for (const Stay& stay : members) {
        EXPECT_EQ(stay.members, members[0].members) << "epoch " << number;
        EXPECT_NE(std::ranges::find(stay.members, stay.process), stay.members.end()) << "epoch " << number;
      }
      const int64_t first = std::ranges::min(members, {}, &Stay::begin).begin;
      for (const Stay& before : stays) {
        if (before.epoch >= number || std::ranges::find(members[0].members, before.process) != members[0].members.end())
          continue;
        EXPECT_LE(before.end, first) << "rank " << before.rank << " of epoch " << before.epoch << ", epoch " << number;
      }
      if (members.size() != members[0].members.size()) continue;  // never served
      const int64_t begin = std::ranges::max(members, {}, &Stay::begin).begin;
      const int64_t end = std::ranges::min(members, {}, &Stay::end).end;
      if (begin > end) continue;
      EXPECT_GE(begin, served_until) << "epoch " << number << " began while an older one served";
      served_until = std::max(served_until, end);
    }
    EXPECT_FALSE(by_epoch.empty());
  }

  const TestFolder folder_;
  int num_servers_ = 0, ranks_per_server_ = 0;
  bool has_witness_ = false;
  std::vector<KeptPort> ports_;
  std::vector<AgentAddress> addresses_;
  std::map<int, Process> agents_;
};

TEST_F(AgentsTest, OneStartsItsRanksAnewHoweverTheyEnd) {
  start(1, 4);
  ASSERT_TRUE(serve({0}, {}));
  for (const int signal : {SIGKILL, SIGSTOP, SIGABRT}) {
    const std::vector<pid_t> before = ranks_of(0);
    ASSERT_EQ(before.size(), 4u);
    const ProcessHandle lost(before[1]);
    lost.signal(signal);
    EXPECT_TRUE(lost.ends_within(seconds(10)));
    EXPECT_TRUE(serve({0}, Clock::now()));
    const std::vector<pid_t> after = ranks_of(0);
    EXPECT_EQ(std::ranges::count_if(after, [&](pid_t pid) { return std::ranges::find(before, pid) != before.end(); }),
              3)
        << "the others go on";
  }
}

TEST_F(AgentsTest, RanksEndWithTheirAgent) {
  start(1, 2);
  ASSERT_TRUE(serve({0}, {}));
  const std::vector<ProcessHandle> ranks = [&] {
    std::vector<ProcessHandle> all;
    for (const pid_t pid : ranks_of(0)) all.emplace_back(pid);
    return all;
  }();
  kill_agent(0);
  for (const ProcessHandle& rank : ranks) EXPECT_TRUE(rank.ends_within(seconds(5)));
  start_agent(0);
  EXPECT_TRUE(serve({0}, Clock::now()));
  agent(0).signal(SIGTERM);
  EXPECT_EQ(agent(0).wait_for(seconds(10)), 0);
  EXPECT_TRUE(nobody_serves_for(milliseconds(200)));
}

TEST_F(AgentsTest, ThreeGoOnWithoutOneAndTakeItBack) {
  start(3, 2);
  ASSERT_TRUE(serve({0, 1, 2}, {}));
  for (const int lost : {0, 2}) {
    kill_agent(lost);
    std::set<int> others{0, 1, 2};
    others.erase(lost);
    EXPECT_TRUE(serve(others, Clock::now()));
    if (lost == 2) std::filesystem::remove_all(state_dir(lost));
    start_agent(lost);
    EXPECT_TRUE(serve({0, 1, 2}, Clock::now()));
  }
}

TEST_F(AgentsTest, OneThatIsStoppedLosesItsRanksAndComesBack) {
  start(3, 1);
  ASSERT_TRUE(serve({0, 1, 2}, {}));
  agent(1).signal(SIGSTOP);
  EXPECT_TRUE(serve({0, 2}, Clock::now()));
  std::this_thread::sleep_for(seconds(2));
  agent(1).signal(SIGCONT);
  EXPECT_TRUE(serve({0, 1, 2}, Clock::now()));
}

TEST_F(AgentsTest, AllComeBackWithWhatTheyRemember) {
  start(3, 1);
  ASSERT_TRUE(serve({0, 1, 2}, {}));
  for (int server = 0; server < 3; server++) kill_agent(server);
  for (int server = 0; server < 3; server++) start_agent(server);
  EXPECT_TRUE(serve({0, 1, 2}, Clock::now()));
}

TEST_F(AgentsTest, OfTwoWithAWitnessEitherGoesOn) {
  start(2, 2, true);
  ASSERT_TRUE(serve({0, 1}, {}));
  for (const int lost : {0, 1}) {
    kill_agent(lost);
    EXPECT_TRUE(serve({1 - lost}, Clock::now()));
    start_agent(lost);
    EXPECT_TRUE(serve({0, 1}, Clock::now()));
  }
  kill_agent(2);
  std::this_thread::sleep_for(seconds(2));
  EXPECT_TRUE(serve({0, 1}, Clock::now())) << "the two are a majority";
}

TEST_F(AgentsTest, OfTwoAloneNoneGoesOnUntilAPersonSaysThatTheOtherIsLost) {
  start(2, 1);
  ASSERT_TRUE(serve({0, 1}, {}));
  EXPECT_TRUE(ask(0, {1})->is_refused) << "it is there";
  kill_agent(0);
  std::this_thread::sleep_for(seconds(2));
  EXPECT_TRUE(nobody_serves_for(seconds(2)));
  const auto seen = ask(1);
  ASSERT_TRUE(seen) << seen.error().message;
  EXPECT_FALSE(seen->view.has_majority);
  EXPECT_FALSE(seen->view.servers[0].is_heard);
  const auto answer = ask(1, {0});
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_FALSE(answer->is_refused) << answer->why;
  EXPECT_TRUE(serve({1}, Clock::now()));
  // It comes back as one of the group that went on.
  start_agent(0);
  EXPECT_TRUE(serve({0, 1}, Clock::now()));
}

}  // namespace
}  // namespace cachalot::agents
