#include "agents/agent.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <set>

namespace cachalot::agents {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// One or more agents whose words and writes arrive at the next step, and ranks that do what a test says.
class AgentTest : public testing::Test {
 protected:
  struct Host : AgentHost {
    AgentTest* test = nullptr;
    int server = 0;
    std::string disk;
    std::map<int, uint64_t> running;
    std::map<int, Order> orders;
    std::vector<int> killed;

    void send(int to, std::string message) override { test->letters.push_back({server, to, std::move(message)}); }
    void start_rank(int rank, uint64_t process) override { running[rank] = process; }
    void kill_rank(int rank, uint64_t) override { killed.push_back(rank); }
    void tell_rank(int rank, uint64_t, const Order& order) override { orders[rank] = order; }
    uint64_t random() override { return test->seed = test->seed * 6364136223846793005u + 1442695040888963407u; }
    void write(std::string state, std::function<void(Status)> done) override {
      test->writes.push_back([this, state = std::move(state), done = std::move(done)] {
        disk = state;
        done({});
      });
    }
  };
  struct Letter {
    int from, to;
    std::string message;
  };

  void start(int num_servers, int ranks_per_server = 1) {
    options = {.num_servers = num_servers, .ranks_per_server = ranks_per_server};
    for (int server = 0; server < num_servers; server++) {
      hosts.push_back(std::make_unique<Host>());
      hosts.back()->test = this;
      hosts.back()->server = server;
      agents.emplace_back();
      begin(server);
    }
  }
  void begin(int server) {
    Host& host = *hosts[static_cast<size_t>(server)];
    AgentOptions own = options;
    own.server = server;
    std::optional<LogState> state;
    if (!host.disk.empty()) state = *decode_state(host.disk);
    agents[static_cast<size_t>(server)] = std::make_unique<Agent>(own, state, host, now);
  }
  // Ranks say what they have been told; silent ones say nothing.
  void run_for(milliseconds length) {
    for (const auto end = now + length; now < end; now += milliseconds(10)) {
      for (const auto& write : std::exchange(writes, {})) write();
      for (const Letter& letter : std::exchange(letters, {})) {
        if (Agent* const agent = agents[static_cast<size_t>(letter.to)].get())
          agent->receive(now, letter.from, letter.message);
      }
      for (size_t server = 0; server < agents.size(); server++) {
        if (!agents[server]) continue;
        for (const auto& [rank, process] : hosts[server]->running) {
          if (silent.contains(rank)) continue;
          const auto order = hosts[server]->orders.find(rank);
          const bool is_decided =
              order != hosts[server]->orders.end() && order->second.epoch.member(process) != nullptr;
          const uint32_t epoch = is_decided ? order->second.epoch.number : 0;
          const bool is_member = is_decided && !(left.contains(rank) && epoch == 1);
          agents[server]->rank_said(now, {.process = process,
                                          .rank = rank,
                                          .phase = is_member ? RankPhase::kMember : RankPhase::kReady,
                                          .epoch = epoch,
                                          .card = is_slow.contains(rank) ? "card 0" : fmt::format("card {}", epoch)});
        }
        if (now.time_since_epoch() / milliseconds(10) % 5 == 0) agents[server]->tick(now);
      }
    }
  }
  Host& host(int server) { return *hosts[static_cast<size_t>(server)]; }
  Agent& agent(int server) { return *agents[static_cast<size_t>(server)]; }

  AgentOptions options;
  Agent::Time now{seconds(100)};
  uint64_t seed = 1;
  std::set<int> silent;
  std::set<int> left;     // the first epoch
  std::set<int> is_slow;  // to be found anew
  std::vector<std::unique_ptr<Host>> hosts;
  std::vector<std::unique_ptr<Agent>> agents;
  std::vector<Letter> letters;
  std::vector<std::function<void()>> writes;
};

TEST_F(AgentTest, OneServerDecidesAlone) {
  start(1, 3);
  run_for(seconds(1));
  EXPECT_EQ(agent(0).epoch().number, 1u);
  EXPECT_EQ(agent(0).epoch().members.size(), 3u);
  EXPECT_GT(host(0).orders.at(2).serve_until, now);
  EXPECT_EQ(host(0).orders.at(2).epoch, agent(0).epoch());
}

TEST_F(AgentTest, AnEpochThatAMemberIsThroughWithIsFollowedByAnotherOfTheSameMembers) {
  start(1, 2);
  run_for(seconds(1));
  ASSERT_EQ(agent(0).epoch().number, 1u);
  left = {1};
  run_for(milliseconds(700));
  EXPECT_EQ(agent(0).epoch().number, 1u) << "there may have been a loss";
  run_for(milliseconds(700));
  const Epoch& epoch = agent(0).epoch();
  EXPECT_EQ(epoch.number, 2u);
  ASSERT_EQ(epoch.members.size(), 2u);
  for (const EpochMember& member : epoch.members) EXPECT_EQ(member.card, "card 1") << "as it is found now";
  run_for(seconds(3));
  EXPECT_EQ(agent(0).epoch().number, 2u);
}

TEST_F(AgentTest, AnEpochWaitsAMomentForAllOfItToBeFoundAnew) {
  for (const bool is_held_up : {false, true}) {
    hosts.clear(), agents.clear(), letters.clear();
    start(1, 3);
    is_slow = {2};
    run_for(seconds(1));
    ASSERT_EQ(agent(0).epoch().number, 1u);
    agent(0).rank_ended(now, 1, host(0).running.at(1), "a test");
    run_for(milliseconds(60));
    EXPECT_EQ(agent(0).epoch().number, 1u);
    if (!is_held_up) is_slow.clear();  // else the lost one holds it up in the epoch before: it waits for this one
    run_for(milliseconds(200));
    EXPECT_EQ(agent(0).epoch().number, 2u);
    ASSERT_EQ(agent(0).epoch().members.size(), 2u);
    EXPECT_EQ(agent(0).epoch().members[1].card, is_held_up ? "card 0" : "card 1");
  }
}

TEST_F(AgentTest, ASilentRankIsKilledLeftOutAndStartedAgain) {
  start(1, 2);
  run_for(seconds(1));
  const uint64_t lost = host(0).running.at(1);
  silent = {1};
  run_for(milliseconds(800));
  EXPECT_TRUE(host(0).killed.empty());
  run_for(milliseconds(300));
  EXPECT_EQ(host(0).killed, std::vector{1});
  EXPECT_EQ(agent(0).epoch().number, 1u) << "that it has ended is not known yet";
  host(0).running.erase(1);
  agent(0).rank_ended(now, 1, lost, "it was killed");
  run_for(milliseconds(200));
  EXPECT_EQ(agent(0).epoch().number, 2u);
  EXPECT_FALSE(agent(0).epoch().member(lost));
  EXPECT_FALSE(host(0).running.contains(1)) << "whoever ends soon after its start waits";
  silent = {};
  run_for(seconds(2));
  EXPECT_EQ(agent(0).epoch().number, 3u);
  EXPECT_NE(host(0).running.at(1), lost) << "another process, by another id";
  EXPECT_TRUE(agent(0).epoch().member(host(0).running.at(1)));
}

TEST_F(AgentTest, AGroupBeginsWhenAllAreThere) {
  start(3);
  agents[2].reset();
  run_for(seconds(5));
  EXPECT_EQ(agent(0).epoch().number, 0u);
  EXPECT_FALSE(agent(0).leads() || agent(1).leads());
  begin(2);
  run_for(seconds(4));
  for (int server = 0; server < 3; server++) EXPECT_EQ(agent(server).epoch().members.size(), 3u) << server;
}

TEST_F(AgentTest, AGroupGoesOnFromWhatItsFoldersHold) {
  start(3);
  run_for(seconds(4));
  const Epoch before = agent(0).epoch();
  ASSERT_EQ(before.members.size(), 3u);
  letters.clear();
  writes.clear();
  for (int server = 0; server < 3; server++) {
    agents[static_cast<size_t>(server)].reset();
    host(server).running.clear();
    host(server).orders.clear();
  }
  for (int server = 0; server < 3; server++) begin(server);
  run_for(seconds(5));
  EXPECT_GT(agent(0).epoch().number, before.number);
  EXPECT_EQ(agent(1).epoch(), agent(0).epoch());
  EXPECT_EQ(agent(0).epoch().members.size(), 3u);
}

TEST_F(AgentTest, WithoutAMajorityRanksWaitUntilAPersonConfirmsTheLoss) {
  start(2);
  run_for(seconds(4));
  ASSERT_EQ(agent(0).epoch().members.size(), 2u);
  EXPECT_EQ(agent(0).confirm_lost(now, {1}).error().message, "server 1 is not lost: it was heard just now");
  EXPECT_EQ(agent(0).confirm_lost(now, {0}).error().message, "0 is no other server of this group");
  agents[1].reset();
  run_for(seconds(5));
  EXPECT_EQ(agent(0).epoch().members.size(), 2u);
  EXPECT_FALSE(agent(0).has_majority(now));
  EXPECT_LT(host(0).orders.at(0).serve_until, now) << "it serves no more";
  ASSERT_TRUE(agent(0).confirm_lost(now, {1}));
  run_for(seconds(3));
  EXPECT_EQ(agent(0).epoch().members.size(), 1u);
  EXPECT_EQ(agent(0).epoch().generation(), 1u);
  EXPECT_EQ(agent(0).epoch().given_up, std::vector{1});
  EXPECT_GT(host(0).orders.at(0).serve_until, now);
}

TEST_F(AgentTest, APersonNamesAllThatAreSilent) {
  start(4);
  run_for(seconds(4));
  ASSERT_EQ(agent(1).epoch().members.size(), 4u);
  agents[2].reset();
  agents[3].reset();
  run_for(seconds(3));
  EXPECT_EQ(agent(1).confirm_lost(now, {2}).error().message, "server 3 is silent, too: it must be named if it is lost");
  ASSERT_TRUE(agent(1).confirm_lost(now, {2, 3}));
  run_for(seconds(8));
  EXPECT_EQ(agent(1).epoch().members.size(), 2u) << "server 0 was not lost, and joins";
  EXPECT_EQ(agent(0).epoch(), agent(1).epoch());
}

TEST_F(AgentTest, WordsThatNobodyCanReadChangeNothing) {
  start(2);
  run_for(seconds(4));
  const Epoch before = agent(0).epoch();
  ASSERT_EQ(before.members.size(), 2u);
  for (int length = 0; length < 40; length++) {
    for (int kind = 0; kind < 8; kind++) {
      std::string word(static_cast<size_t>(length), static_cast<char>(length));
      agent(0).receive(now, 1, static_cast<char>(kind) + word);
    }
  }
  agent(0).receive(now, 7, "x");
  run_for(seconds(1));
  EXPECT_EQ(agent(0).epoch(), before);
  EXPECT_TRUE(agent(0).has_majority(now));
}

}  // namespace
}  // namespace cachalot::agents
