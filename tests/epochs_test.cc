// Changes of epoch: ranks are lost, or their connections are, at any point of a round, and the others go on in the same
// processes. Whole replicas as threads of this one; who lives is said by a script. All answers are those of a run that
// nothing disturbs, to the bit.
#include <gtest/gtest.h>

#include <condition_variable>
#include <future>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "base/log.h"
#include "comm/local_mesh_test_util.h"
#include "engine/participate.h"
#include "epochs_harness.h"
#include "serve/replica.h"

namespace cachalot::test {
namespace {

constexpr uint64_t kNever = ~uint64_t{0};

// What befalls a rank's connections: an error, when so many operations more were started. Used by the rank's thread,
// but for arm().
class Fault {
 public:
  void arm(uint64_t num_operations, ErrorCode code) {
    code_ = code;
    left_ = num_operations;
  }
  void count() {
    num_started_++;
    if (left_ != kNever && left_ > 0) left_--;
  }
  // Once.
  std::optional<Error> take() {
    uint64_t none_left = 0;
    if (!left_.compare_exchange_strong(none_left, kNever)) return std::nullopt;
    return Error{code_, "a test has cut it", {}};
  }
  bool is_armed() const { return left_ != kNever; }
  uint64_t num_started() const { return num_started_; }

 private:
  std::atomic<uint64_t> left_{kNever}, num_started_{0};
  std::atomic<ErrorCode> code_{ErrorCode::kUnavailable};
};

class FaultyTransport : public Transport {
 public:
  FaultyTransport(std::unique_ptr<Transport> inner, std::shared_ptr<Fault> fault)
      : inner_(std::move(inner)), fault_(std::move(fault)) {}
  std::string_view name() const override { return inner_->name(); }
  bool connects(int peer) const override { return inner_->connects(peer); }
  void start(SendOp& op) override {
    fault_->count();
    inner_->start(op);
  }
  void start(ReceiveOp& op) override {
    fault_->count();
    inner_->start(op);
  }
  Result<bool> progress() override {
    if (std::optional<Error> error = fault_->take()) return std::unexpected(std::move(*error));
    return inner_->progress();
  }
  void await(std::span<const ReceiveOp> receives, bool any) override { inner_->await(receives, any); }
  Status prepare_sleep() override { return inner_->prepare_sleep(); }
  int event_fd() const override { return inner_->event_fd(); }
  void end_sleep() override { inner_->end_sleep(); }
  std::unique_ptr<Board> make_board(std::span<const int> members) override { return inner_->make_board(members); }
  void close() override { inner_->close(); }

 private:
  const std::unique_ptr<Transport> inner_;
  const std::shared_ptr<Fault> fault_;
};

// Decides epochs by what the test says: one comes when all who live have left the one before.
class Script {
 public:
  explicit Script(int num_ranks) : num_ranks_(num_ranks), faults_(static_cast<size_t>(num_ranks)) {
    for (int rank = 0; rank < num_ranks; rank++) members_[rank] = 0;
    for (auto& fault : faults_) fault = std::make_shared<Fault>();
  }

  class Seat : public Epochs {
   public:
    Seat(Script& script, int rank) : script_(script), rank_(rank) {}
    Result<Next> next(const Error&) override { return script_.next(rank_); }
    bool may_step() override { return !has_no_lease; }
    void cancel() override { script_.cancel(); }

    std::atomic<bool> has_no_lease{false};

   private:
    Script& script_;
    const int rank_;
  };

  Fault& fault(int rank) { return *faults_[static_cast<size_t>(rank)]; }
  std::vector<std::unique_ptr<Transport>> wrapped(int rank, std::unique_ptr<Transport> transport) {
    std::vector<std::unique_ptr<Transport>> transports;
    transports.push_back(std::make_unique<FaultyTransport>(std::move(transport), faults_[static_cast<size_t>(rank)]));
    return transports;
  }
  void lose(int rank) {
    const std::lock_guard lock(mutex_);
    members_.erase(rank);
    form_if_all_wait();
  }
  void take_in(int rank, uint64_t process) {
    const std::lock_guard lock(mutex_);
    members_[rank] = process;
  }
  uint32_t epoch() {
    const std::lock_guard lock(mutex_);
    return number_;
  }
  void await_epoch(uint32_t number) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return number_ >= number; });
  }
  void cancel() {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
    changed_.notify_all();
  }

 private:
  Result<Epochs::Next> next(int rank) {
    std::unique_lock lock(mutex_);
    waiting_.insert(rank);
    form_if_all_wait();
    changed_.wait(lock, [&] { return cancelled_ || formed_.contains(rank); });
    if (!formed_.contains(rank)) return make_error(ErrorCode::kCancelled, "no epoch any more");
    return std::move(formed_.extract(rank).mapped());
  }
  void form_if_all_wait() {
    for (const auto& [rank, process] : members_)
      if (!waiting_.contains(rank)) return;
    Epoch epoch{.number = number_ + 1};
    std::set<int> living;
    for (const auto& [rank, process] : members_) {
      epoch.members.push_back({rank, process});
      living.insert(rank);
    }
    waiting_.clear();
    number_++;
    auto transports = make_local_shm(num_ranks_, 0, number_).value();
    formed_.clear();
    for (const int rank : living)
      formed_[rank] = {epoch, wrapped(rank, std::move(transports[static_cast<size_t>(rank)]))};
    changed_.notify_all();
  }

  const int num_ranks_;
  std::vector<std::shared_ptr<Fault>> faults_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  uint32_t number_ = 1;
  std::map<int, uint64_t> members_;
  std::set<int> waiting_;
  std::map<int, Epochs::Next> formed_;
  bool cancelled_ = false;
};

class Replicas {
 public:
  explicit Replicas(const GroupLayout& layout) : layout_(layout) {
    log::init("error", "");
    script_ = std::make_unique<Script>(layout.num_ranks());
    auto transports = make_local_shm(layout.num_ranks(), 0, 1).value();
    std::vector<std::future<std::unique_ptr<RankEngine>>> loading;
    for (int rank = 0; rank < layout.num_ranks(); rank++) {
      meshes_.push_back(Mesh::create({.rank = rank, .size = layout.num_ranks()},
                                     script_->wrapped(rank, std::move(transports[static_cast<size_t>(rank)])))
                            .value());
      seats_.push_back(std::make_unique<Script::Seat>(*script_, rank));
      loading.push_back(std::async(std::launch::async, [this, rank] { return load(rank); }));
    }
    leaders_.resize(static_cast<size_t>(layout.dp_size));
    followers_.resize(static_cast<size_t>(layout.num_ranks()));
    for (int rank = 0; rank < layout.num_ranks(); rank++) start(rank, loading[static_cast<size_t>(rank)].get());
  }

  ~Replicas() {
    // Together: each waits for the others' word.
    std::vector<std::thread> leaving;
    for (auto& leader : leaders_)
      if (leader)
        leaving.emplace_back([&] { leader->leave(std::chrono::steady_clock::now() + std::chrono::seconds(5)); });
    for (std::thread& thread : leaving) thread.join();
    script_->cancel();
    for (auto& mesh : meshes_)
      if (mesh) mesh->fail({ErrorCode::kCancelled, "the test is over", {}});
    for (std::thread& follower : followers_)
      if (follower.joinable()) follower.join();
  }

  std::future<Answer> ask(int replica, RequestId id) {
    auto answer = std::make_shared<Answer>();
    auto promise = std::make_shared<std::promise<Answer>>();
    Request request = make_request(id);
    request.id = ++last_id_;
    const Status submitted = leader(replica).submit(std::move(request), [=](const RequestOutput& output) {
      answer->add(output);
      if (output.finish != FinishReason::kNone) promise->set_value(*answer);
    });
    CHECK(submitted, "{}", submitted.error().message);
    return promise->get_future();
  }

  // A new process takes the place of a rank that is lost, and no leader: it loads beside, and enters between two
  // rounds.
  void bring_back(int rank, uint64_t process) {
    const auto idx = static_cast<size_t>(rank);
    followers_[idx].join();
    meshes_[idx] = Mesh::create({.rank = rank, .size = layout_.num_ranks(), .living = {rank}}, {}).value();
    auto engine = load(rank, /*alone=*/true);
    const uint32_t epoch = script_->epoch();
    script_->take_in(rank, process);
    start(rank, std::move(engine), /*is_new=*/true);
    leader(0).end_epoch(epoch);
  }

  Script& script() { return *script_; }
  Script::Seat& seat(int rank) { return *seats_[static_cast<size_t>(rank)]; }
  Replica& leader(int replica) { return *leaders_[static_cast<size_t>(replica)]; }

 private:
  std::unique_ptr<RankEngine> load(int rank, bool alone = false) {
    const Placement placement{.parallel = layout_.of_rank(rank),
                              .mesh = meshes_[static_cast<size_t>(rank)].get(),
                              .num_local_ranks = layout_.num_ranks(),
                              .threads = {.num_threads = 1, .cores = {}, .spin_microseconds = 0},
                              .isa = detect_isa(),
                              .loads_alone = alone,
                              .on_activity = {}};
    auto engine = RankEngine::create(options_, placement, {});
    CHECK(engine, "{}", engine.error().message);
    return std::move(*engine);
  }
  void start(int rank, std::unique_ptr<RankEngine> engine, bool is_new = false) {
    Epochs* const epochs = seats_[static_cast<size_t>(rank)].get();
    if (rank % layout_.tp_size == 0) {
      const MemoryPlan& memory = engine->memory();
      const SchedulerOptions scheduler = make_scheduler_options(options_, memory.num_blocks, memory.max_model_len);
      // A leader that ends by itself is gone from the group, as its process would be.
      const auto on_failure = [this, rank](const Error&) {
        meshes_[static_cast<size_t>(rank)]->abandon();
        script_->lose(rank);
      };
      leaders_[static_cast<size_t>(rank / layout_.tp_size)] =
          std::make_unique<Replica>(std::move(engine), scheduler, metrics_, on_failure, QueueLimits{}, epochs);
      return;
    }
    followers_[static_cast<size_t>(rank)] = std::thread([=, this, engine = std::move(engine)]() mutable {
      Status lived;
      if (is_new) lived = engine->enter_next(*epochs, {ErrorCode::kUnavailable, "it comes", {}});
      if (lived) lived = follow_leader(*engine, [](RankEngine&) {}, epochs);
      if (lived) return;
      engine.reset();
      meshes_[static_cast<size_t>(rank)]->abandon();
      script_->lose(rank);
    });
  }

  const GroupLayout layout_;
  const EngineOptions options_ = layout_.options();
  RequestId last_id_ = 0;
  std::unique_ptr<Script> script_;
  std::vector<std::unique_ptr<Mesh>> meshes_;
  std::vector<std::unique_ptr<Script::Seat>> seats_;
  Metrics metrics_{{.model_name = "test"}};
  std::vector<std::unique_ptr<Replica>> leaders_;  // of each replica
  std::vector<std::thread> followers_;             // of each rank that is no leader
};

constexpr int kRequests = 6;

Answer hear(std::future<Answer>& answer) {
  CHECK(answer.wait_for(std::chrono::seconds(60)) == std::future_status::ready, "an answer does not come");
  return answer.get();
}

// Each request to a replica of its own, one after the other in turn; who is not to be asked gets none.
std::vector<std::future<Answer>> ask_all(Replicas& replicas, int num_replicas) {
  std::vector<std::future<Answer>> answers;
  for (int idx = 0; idx < kRequests; idx++)
    answers.push_back(replicas.ask(idx % num_replicas, static_cast<RequestId>(idx + 1)));
  return answers;
}

std::vector<Answer> undisturbed(const GroupLayout& layout, int num_replicas) {
  Replicas replicas(layout);
  std::vector<Answer> answers;
  for (auto& answer : ask_all(replicas, num_replicas)) answers.push_back(hear(answer));
  for (const Answer& answer : answers) EXPECT_GT(answer.tokens.size(), 0u) << answer.error;
  return answers;
}

void expect_all(std::vector<std::future<Answer>>& answers, const std::vector<Answer>& expected,
                const std::string& when) {
  for (size_t idx = 0; idx < answers.size(); idx++)
    expect_same(hear(answers[idx]), expected[idx], fmt::format("request {}, {}", idx, when));
}

class EveryLayout : public testing::TestWithParam<GroupLayout> {};

// One rank's connections break at every point of its work, in one run after the other: all ranks give the round up,
// meet again in the next epoch, and take it up where it was.
TEST_P(EveryLayout, ARoundThatIsAbandonedAnywhereChangesNoAnswer) {
  const GroupLayout& layout = GetParam();
  const std::vector<Answer> expected = undisturbed(layout, layout.dp_size);
  Replicas replicas(layout);
  uint64_t point = 0, num_hit = 0;
  for (int run = 0; run < 40; run++) {
    Fault& fault = replicas.script().fault(run % layout.num_ranks());
    const uint32_t epoch = replicas.script().epoch();
    fault.arm(point, ErrorCode::kUnavailable);
    auto answers = ask_all(replicas, layout.dp_size);
    expect_all(answers, expected, fmt::format("operation {}", point));
    num_hit += replicas.script().epoch() > epoch;
    fault.arm(kNever, ErrorCode::kUnavailable);
    point += 1 + point / 4;
    if (point > 3000) point = static_cast<uint64_t>(run);
    ASSERT_FALSE(HasFailure());
  }
  EXPECT_GT(num_hit, 20u);
}

INSTANTIATE_TEST_SUITE_P(Layouts, EveryLayout,
                         testing::Values(GroupLayout{2, 1}, GroupLayout{3, 1, "v32-fp8"}, GroupLayout{2, 2},
                                         GroupLayout{1, 4}, GroupLayout{1, 2, "glm52-bf16"}),
                         [](const auto& info) {
                           return fmt::format("DP{}TP{}", info.param.dp_size, info.param.tp_size);
                         });

// A rank dies at a point of its work; the others have copies of its experts, and go on in the same processes.
TEST(Epochs, TheLossOfARankChangesNoAnswerOfTheOtherReplicas) {
  const GroupLayout layout{3, 1, "r1-awq", 32};
  const std::vector<Answer> expected = undisturbed(layout, 2);
  for (const uint64_t point : {0, 1, 2, 7, 19, 40, 90, 200}) {
    Replicas replicas(layout);
    replicas.script().fault(2).arm(point, ErrorCode::kInternal);
    auto answers = ask_all(replicas, 2);
    expect_all(answers, expected, fmt::format("operation {}", point));
    EXPECT_EQ(replicas.script().epoch(), 2u);
  }
}

// A replica that lacks a rank keeps its requests; its other rank serves with its experts. With the rank back it goes on
// where it was, and so again and again.
TEST(Epochs, AReplicaThatLacksARankKeepsItsRequestsUntilItIsBack) {
  const GroupLayout layout{2, 2, "r1-awq", 32};
  const std::vector<Answer> expected = undisturbed(layout, 2);
  Replicas replicas(layout);
  uint32_t epoch = 1;
  for (const uint64_t point : {0, 3, 11, 40, 160, 400}) {
    replicas.script().fault(3).arm(point, ErrorCode::kInternal);
    auto answers = ask_all(replicas, 2);
    replicas.script().await_epoch(++epoch);
    for (size_t idx = 0; idx < answers.size(); idx += 2)
      expect_same(hear(answers[idx]), expected[idx], fmt::format("request {} beside, operation {}", idx, point));
    replicas.bring_back(3, point + 1);
    for (size_t idx = 1; idx < answers.size(); idx += 2)
      expect_same(hear(answers[idx]), expected[idx], fmt::format("request {}, operation {}", idx, point));
    EXPECT_EQ(replicas.script().epoch(), ++epoch);
    ASSERT_FALSE(testing::Test::HasFailure());
  }
}

// Experts without a copy: nobody goes on before they are back, and then all do.
TEST(Epochs, WhereExpertsAreMissingAllWaitForThem) {
  const GroupLayout layout{2, 2};
  const std::vector<Answer> expected = undisturbed(layout, 2);
  Replicas replicas(layout);
  for (const uint64_t point : {2, 60}) {
    replicas.script().fault(3).arm(point, ErrorCode::kInternal);
    auto answers = ask_all(replicas, 2);
    const uint32_t epoch = replicas.script().epoch();
    replicas.bring_back(3, point);
    expect_all(answers, expected, fmt::format("operation {}", point));
    EXPECT_GT(replicas.script().epoch(), epoch);
    EXPECT_LE(replicas.script().epoch(), epoch + 2) << "those who wait do so in one epoch";
    ASSERT_FALSE(testing::Test::HasFailure());
  }
}

// No copies, but slots for those that a lost rank had: they are loaded before anybody steps. The rank comes back, and
// with it copies, so that the next loss finds room again.
TEST(Epochs, LostExpertsAreLoadedIntoSpareSlots) {
  const GroupLayout layout{.dp_size = 2, .tp_size = 2, .survive = Survive::kRank};
  const std::vector<Answer> expected = undisturbed({2, 2}, 2);
  Replicas replicas(layout);
  uint32_t epoch = 1;
  for (const uint64_t point : {0, 3, 11, 40, 160, 400}) {
    const int lost = point % 2 == 0 ? 3 : 1;
    replicas.script().fault(lost).arm(point, ErrorCode::kInternal);
    auto answers = ask_all(replicas, 2);
    replicas.script().await_epoch(++epoch);
    for (size_t idx = lost == 3 ? 0 : 1; idx < answers.size(); idx += 2)
      expect_same(hear(answers[idx]), expected[idx], fmt::format("request {} beside, operation {}", idx, point));
    replicas.bring_back(lost, point + 1);
    for (size_t idx = lost == 3 ? 1 : 0; idx < answers.size(); idx += 2)
      expect_same(hear(answers[idx]), expected[idx], fmt::format("request {}, operation {}", idx, point));
    EXPECT_EQ(replicas.script().epoch(), ++epoch);
    ASSERT_FALSE(testing::Test::HasFailure());
  }
}

// One rank more is lost after the other, also while the others load what the first one had.
TEST(Epochs, ALossWhileLostExpertsAreLoadedLeadsToTheNextEpoch) {
  const GroupLayout layout{.dp_size = 4, .tp_size = 1, .num_redundant_experts = 20, .survive = Survive::kRank};
  const std::vector<Answer> expected = undisturbed(layout, 2);
  for (const uint64_t later : {1, 4, 8, 12, 16, 20, 30, 60, 150}) {
    Replicas replicas(layout);
    replicas.script().fault(3).arm(20, ErrorCode::kInternal);
    replicas.script().fault(2).arm(20 + later, ErrorCode::kInternal);
    auto answers = ask_all(replicas, 2);
    expect_all(answers, expected, fmt::format("{} operations later", later));
    ASSERT_FALSE(testing::Test::HasFailure());
  }
}

// Connections break while experts move, so that some ranks have switched and some have not: what each holds counts.
TEST(Epochs, ExpertsThatWereMovingStayWhereTheyCame) {
  const GroupLayout layout{.dp_size = 3, .tp_size = 1, .num_redundant_experts = 8, .balances = true};
  const std::vector<Answer> expected = undisturbed({.dp_size = 3, .tp_size = 1}, 3);
  Replicas replicas(layout);
  for (int run = 0; run < 24; run++) {
    const auto point = static_cast<uint64_t>(20 + 37 * run % 200);
    for (int round = 0; round < 4; round++) {
      if (round == 3) replicas.script().fault(run % 3).arm(point, ErrorCode::kUnavailable);
      auto answers = ask_all(replicas, 3);
      expect_all(answers, expected, fmt::format("operation {}", point));
    }
    replicas.script().fault(run % 3).arm(kNever, ErrorCode::kUnavailable);
    ASSERT_FALSE(testing::Test::HasFailure());
  }
  // On a busy machine no copy may have been through before its epoch was over.
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (replicas.leader(0).report().placement_switches <= 2 && std::chrono::steady_clock::now() < end)
    for (auto& answer : ask_all(replicas, 3)) hear(answer);
  const RankReport report = replicas.leader(0).report();
  EXPECT_GT(report.epoch_changes, 10u);
  EXPECT_GT(report.placement_switches, 2u) << "experts moved on";
}

// The ranks of a replica without a leader serve with their experts.
TEST(Epochs, ALeaderIsLostAndItsRankGoesOn) {
  const GroupLayout layout{2, 2, "r1-awq", 32};
  const std::vector<Answer> expected = undisturbed(layout, 1);
  for (const uint64_t point : {0, 5, 50, 120}) {
    Replicas replicas(layout);
    replicas.script().fault(2).arm(point, ErrorCode::kInternal);
    auto answers = ask_all(replicas, 1);
    expect_all(answers, expected, fmt::format("operation {}", point));
    EXPECT_EQ(replicas.script().epoch(), 2u);
  }
}

TEST(Epochs, WhomNobodyStandsBehindBeginsNoRound) {
  const GroupLayout layout{2, 1};
  const std::vector<Answer> expected = undisturbed(layout, 2);
  Replicas replicas(layout);
  replicas.seat(1).has_no_lease = true;
  auto answers = ask_all(replicas, 2);
  EXPECT_EQ(answers[0].wait_for(std::chrono::milliseconds(300)), std::future_status::timeout);
  EXPECT_EQ(replicas.leader(0).report().steps, 0u);
  replicas.seat(1).has_no_lease = false;
  expect_all(answers, expected, "with a late lease");
  EXPECT_EQ(replicas.script().epoch(), 1u) << "a lease that comes late ends nothing";
}

}  // namespace
}  // namespace cachalot::test
