// Ranks that an agent has started, as processes that serve over HTTP; this one plays the agents of the whole group.
// Ranks are killed under streams: the others go on, who was killed comes back, and no answer changes.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <csignal>
#include <future>
#include <map>
#include <mutex>
#include <random>
#include <set>

#include "agents/rank_link.h"
#include "processes/api_client.h"
#include "processes/served_group.h"

namespace cachalot::test {
namespace {

using agents::RankPhase;
using std::chrono::milliseconds;
using std::chrono::seconds;
using Clock = std::chrono::steady_clock;
using End = StreamedAnswer::End;

// Starts ranks, decides on epochs as agents do, and gives leases. A thread of its own, whose children they are.
class ScriptedAgent {
 public:
  ScriptedAgent(const Layout& layout, std::vector<std::string> more_flags)
      : layout_(layout), more_flags_(std::move(more_flags)) {
    for (int replica = 0; replica < layout.dp_size; replica++) ports_.push_back(free_port());
    thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
  }

  uint16_t port(int replica) const { return ports_[static_cast<size_t>(replica)]; }
  uint32_t epoch() const { return epoch_; }
  void kill(int rank) {
    const std::lock_guard lock(mutex_);
    if (const auto child = children_.find(rank); child != children_.end()) child->second.program->signal(SIGKILL);
  }
  // Whom it starts again when they have ended.
  void restart(bool on) { restarts_ = on; }
  // Whether all ranks are members of that epoch, or a later one.
  bool is_whole(uint32_t epoch) {
    const std::lock_guard lock(mutex_);
    return epoch_ >= epoch && std::ssize(children_) == layout_.num_ranks() &&
           std::ranges::all_of(children_, [&](const auto& child) { return is_in(child.second, epoch_); });
  }
  std::string output() {
    const std::lock_guard lock(mutex_);
    std::string all = past_output_;
    for (const auto& [rank, child] : children_) all += fmt::format("--- rank {}\n{}", rank, child.program->output());
    return all;
  }

 private:
  struct Child {
    std::unique_ptr<Program> program;
    FileDescriptor link;
    agents::FrameReader reader;
    agents::RankReport report;
    uint64_t process = 0;
    std::string used_card;  // by the last epoch
    bool is_member = false;
  };
  static bool is_in(const Child& child, uint32_t epoch) {
    return child.report.phase == RankPhase::kMember && child.report.epoch == epoch;
  }

  void run(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      {
        const std::lock_guard lock(mutex_);
        for (auto& [rank, child] : children_) hear(child);
        for (int rank = 0; rank < layout_.num_ranks(); rank++) look_after(rank);
        decide();
        if (Clock::now() >= next_order_) tell_all();
      }
      std::this_thread::sleep_for(milliseconds(5));
    }
    const std::lock_guard lock(mutex_);
    children_.clear();
  }

  void start(int rank) {
    auto [own, theirs] = agents::make_rank_link().value();
    const int replica = rank / layout_.tp_size;
    std::vector<std::string> flags{"serve",
                                   "--model",
                                   nano_folder(),
                                   "--host=127.0.0.1",
                                   fmt::format("--port={}", port(replica)),
                                   "--data-parallel-address=127.0.0.1",
                                   fmt::format("--data-parallel-size={}", layout_.dp_size),
                                   fmt::format("--data-parallel-rank={}", replica),
                                   fmt::format("--tensor-parallel-size={}", layout_.tp_size),
                                   fmt::format("--tensor-parallel-rank={}", rank % layout_.tp_size),
                                   "--num-gpu-blocks-override=256",
                                   "--max-model-len=2048",
                                   "--threads=1",
                                   fmt::format("--agent-fd={}", theirs.get()),
                                   fmt::format("--process={}", next_process_),
                                   fmt::format("--local-ranks={}", layout_.num_ranks()),
                                   fmt::format("--local-rank={}", rank)};
    if (layout_.expert_parallel && layout_.dp_size > 1) flags.emplace_back("--enable-expert-parallel");
    flags.insert(flags.end(), more_flags_.begin(), more_flags_.end());
    ProcessOptions options;
    options.kept = {theirs.get()};
    Child child{.program = std::make_unique<Program>(std::move(options), flags),
                .link = std::move(own),
                .reader = {},
                .report = {},
                .process = next_process_++,
                .used_card = {}};
    children_.emplace(rank, std::move(child));
  }

  static void hear(Child& child) {
    std::array<char, 4096> bytes;
    for (ssize_t count; (count = recv(child.link.get(), bytes.data(), bytes.size(), MSG_DONTWAIT)) > 0;)
      child.reader.add({bytes.data(), static_cast<size_t>(count)});
    for (;;) {
      const auto fields = child.reader.next().value();
      if (!fields) return;
      child.report = agents::decode_report(*fields).value();
    }
  }

  void look_after(int rank) {
    const auto child = children_.find(rank);
    if (child != children_.end() && child->second.program->wait(milliseconds(0))) {
      past_output_ += fmt::format("--- rank {}, which ended\n{}", rank, child->second.program->output());
      is_due_ |= child->second.is_member;
      children_.erase(child);
    }
    if (!children_.contains(rank) && restarts_) start(rank);
  }

  void decide() {
    bool is_settled = true, is_over = false, comes = false, is_found = true, is_found_anew = true;
    for (const auto& [rank, child] : children_) {
      const bool is_ready = child.report.phase != RankPhase::kLoading;
      if (child.is_member) is_settled &= is_in(child, epoch_);
      comes |= !child.is_member && is_ready;
      if (epoch_ == 0) is_settled &= is_ready;
      is_over |= child.is_member && child.report.phase == RankPhase::kReady && child.report.epoch == epoch_;
      if (child.is_member || is_ready) {
        is_found &= !child.report.card.empty();
        is_found_anew &= child.report.card != child.used_card;
      }
    }
    if (epoch_ == 0 && std::ssize(children_) < layout_.num_ranks()) return;
    // As agents do: who is held up by the lost in the epoch before shows no other card; who cannot come in wants
    // another.
    if (is_found_anew || !is_due_) held_up_since_ = Clock::now();
    if (!is_over) over_since_ = Clock::now();
    is_due_ |= Clock::now() - over_since_ > milliseconds(500);
    if (!is_found || !(is_due_ || (comes && is_settled))) return;
    if (!is_found_anew && (!is_due_ || Clock::now() - held_up_since_ < milliseconds(100))) return;
    is_due_ = false;
    decided_ = {.number = ++epoch_, .placement_version = 0, .members = {}, .given_up = {}};
    for (auto& [rank, child] : children_) {
      child.is_member |= child.report.phase != RankPhase::kLoading;
      if (!child.is_member) continue;
      child.used_card = child.report.card;
      decided_.members.push_back({.process = child.process, .rank = rank, .server = 0, .card = child.report.card});
    }
    tell_all();
  }

  void tell_all() {
    next_order_ = Clock::now() + milliseconds(100);
    const std::string frame =
        agents::encode_frame({.epoch = decided_, .serve_until = Clock::now() + milliseconds(600)});
    for (const auto& [rank, child] : children_) send(child.link.get(), frame.data(), frame.size(), MSG_NOSIGNAL);
  }

  const Layout layout_;
  const std::vector<std::string> more_flags_;
  std::vector<uint16_t> ports_;
  std::atomic<bool> restarts_{true};
  std::atomic<uint32_t> epoch_{0};
  std::mutex mutex_;  // guards what follows
  std::map<int, Child> children_;
  std::string past_output_;
  agents::Epoch decided_;
  bool is_due_ = false;
  uint64_t next_process_ = 1000;
  Clock::time_point next_order_, held_up_since_ = Clock::now(), over_since_ = Clock::now();
  std::jthread thread_;
};

template <class Done>
bool comes_true(Done done, milliseconds patience = seconds(60)) {
  for (const auto deadline = Clock::now() + patience; Clock::now() < deadline;) {
    if (done()) return true;
    std::this_thread::sleep_for(milliseconds(5));
  }
  return false;
}

class Healing : public testing::Test {
 protected:
  bool serves(ScriptedAgent& agent, int replica) {
    const auto answer = client_.get(agent.port(replica), "/load");
    return answer && answer->status == 200;
  }
  bool all_serve(ScriptedAgent& agent, int num_replicas, uint32_t epoch = 1) {
    return comes_true([&] {
      bool all = agent.is_whole(epoch);
      for (int replica = 0; replica < num_replicas; replica++) all = all && serves(agent, replica);
      return all;
    });
  }
  bool is_healing(ScriptedAgent& agent, int replica) {
    const auto answer = client_.get(agent.port(replica), "/load");
    return answer && boost::json::parse(answer->body).at("healing").as_bool();
  }
  // Answers that come meanwhile, from each of these replicas.
  std::vector<std::future<StreamedAnswer>> ask(ScriptedAgent& agent, const std::vector<int>& replicas) {
    std::vector<std::future<StreamedAnswer>> answers;
    for (const int replica : replicas) {
      answers.push_back(std::async(std::launch::async, [this, port = agent.port(replica)] {
        return client_.stream(port, completion_body("Tell me about 17 + 25.", kTokens), [this](int num_tokens) {
          num_tokens_ = num_tokens;
          return true;
        });
      }));
    }
    return answers;
  }

  static constexpr int kTokens = 400;
  const ApiClient client_;
  std::atomic<int> num_tokens_{0};
};

TEST_F(Healing, AStreamWaitsForAFollowerThatWasKilledAndGoesOn) {
  ScriptedAgent agent({.dp_size = 1, .tp_size = 2}, {});
  ASSERT_TRUE(all_serve(agent, 1)) << agent.output();
  const std::string expected = ask(agent, {0})[0].get().text;
  ASSERT_GT(expected.size(), 0u);
  for (const int after : {30, 200}) {
    num_tokens_ = 0;
    agent.restart(false);
    auto answers = ask(agent, {0});
    ASSERT_TRUE(comes_true([&] { return num_tokens_ >= after; })) << agent.output();
    const uint32_t epoch = agent.epoch();
    agent.kill(1);
    EXPECT_TRUE(comes_true([&] { return is_healing(agent, 0); })) << agent.output();
    EXPECT_EQ(answers[0].wait_for(milliseconds(100)), std::future_status::timeout) << "it waits";
    agent.restart(true);
    const StreamedAnswer answer = answers[0].get();
    EXPECT_EQ(answer.end, End::kComplete) << answer.error << agent.output();
    EXPECT_EQ(answer.text, expected);
    EXPECT_EQ(agent.epoch(), epoch + 2) << "one without the rank, one with it";
    EXPECT_FALSE(is_healing(agent, 0));
    ASSERT_FALSE(HasFailure()) << agent.output();
  }
  EXPECT_EQ(client_.metric(agent.port(0), "cachalot:living_ranks", R"(rank="0")"), 2);
  EXPECT_EQ(client_.metric(agent.port(0), "cachalot:lost_ranks_total", R"(rank="0")"), 2);
  EXPECT_EQ(client_.metric(agent.port(0), "cachalot:epoch_changes_total", R"(rank="0")"), 5) << "the first among them";
}

class HealingOver : public Healing, public testing::WithParamInterface<const char*> {};

TEST_P(HealingOver, AReplicaThatIsKilledLeavesItsExpertsToTheOthersAndComesBack) {
  ScriptedAgent agent({.dp_size = 2, .tp_size = 1}, {"--survive=rank", fmt::format("--transports={}", GetParam())});
  ASSERT_TRUE(all_serve(agent, 2)) << agent.output();
  const std::string expected = ask(agent, {0})[0].get().text;
  ASSERT_GT(expected.size(), 0u);
  for (const int killed : {1, 0}) {
    num_tokens_ = 0;
    const int other = 1 - killed;
    auto answers = ask(agent, {other, killed});
    ASSERT_TRUE(comes_true([&] { return num_tokens_ >= 30; })) << agent.output();
    const uint32_t epoch = agent.epoch();
    agent.kill(killed);
    const StreamedAnswer answer = answers[0].get();
    EXPECT_EQ(answer.end, End::kComplete) << answer.error << agent.output();
    EXPECT_EQ(answer.text, expected);
    EXPECT_EQ(answers[1].get().end, End::kCut) << "its own streams are for the router to take over";
    EXPECT_TRUE(all_serve(agent, 2, epoch + 2)) << agent.output();
    EXPECT_EQ(ask(agent, {killed})[0].get().text, expected) << "by whom has come back";
    EXPECT_EQ(ask(agent, {other})[0].get().text, expected);
    ASSERT_FALSE(HasFailure()) << agent.output();
  }
  EXPECT_GT(client_.metric(agent.port(1), "cachalot:lost_experts_loaded_total", R"(rank="1")"), 0);
}

INSTANTIATE_TEST_SUITE_P(Transports, HealingOver, testing::Values("shm", "ucx"),
                         [](const auto& info) { return std::string(info.param); });

// Any rank at any time, leaders too, one or two at once, while streams run: whose own server lives loses none.
TEST_F(Healing, RanksAreKilledAgainAndAgainAndNoAnswerChanges) {
  const Layout layout{.dp_size = 2, .tp_size = 2};
  ScriptedAgent agent(layout, {"--survive=rank"});
  ASSERT_TRUE(all_serve(agent, 2)) << agent.output();
  const std::string expected = ask(agent, {0})[0].get().text;
  std::mt19937 random(7);
  for (int round = 0; round < 8; round++) {
    num_tokens_ = 0;
    auto answers = ask(agent, {0, 1});
    const int after = static_cast<int>(random() % 120);
    ASSERT_TRUE(comes_true([&] { return num_tokens_ >= after; })) << agent.output();
    const uint32_t epoch = agent.epoch();
    std::set<int> killed;
    for (uint32_t kill = 0; kill <= random() % 2; kill++) {
      killed.insert(static_cast<int>(random() % 4));
      agent.kill(*killed.begin());
      agent.kill(*killed.rbegin());
      std::this_thread::sleep_for(milliseconds(random() % 60));
    }
    for (int replica = 0; replica < 2; replica++) {
      const StreamedAnswer answer = answers[static_cast<size_t>(replica)].get();
      if (killed.contains(replica * layout.tp_size) && answer.end != End::kComplete) continue;  // its server
      EXPECT_EQ(answer.end, End::kComplete) << answer.error;
      EXPECT_EQ(answer.text, expected);
    }
    EXPECT_TRUE(all_serve(agent, 2, epoch + 1));
    ASSERT_FALSE(HasFailure()) << "round " << round << "\n" << agent.output();
  }
}

}  // namespace
}  // namespace cachalot::test
