#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "scheduler/fake_rank_test_util.h"
#include "scheduler/scheduler.h"

namespace cachalot {
namespace {

// A mask that is there or not, as it pleases; but no longer than three times in a row.
class Moody : public TokenConstraint {
 public:
  explicit Moody(uint32_t seed) : random_(seed) {}
  Status fill_mask(std::span<uint32_t>) override { return {}; }
  Status accept(TokenId) override { return {}; }
  void rollback(int) override {}
  bool is_ready_by(std::chrono::steady_clock::time_point) override {
    num_refusals_ = random_() % 2 == 0 ? (num_refusals_ + 1) % 4 : 0;
    return num_refusals_ == 0;
  }

 private:
  std::mt19937 random_;
  int num_refusals_ = 0;  // in a row
};

// One run of random requests under random settings against the fake rank: arrivals, aborts between and during rounds,
// answers cut above the scheduler (stop strings), failures, rounds shorter than planned.
class RandomSchedule {
 public:
  explicit RandomSchedule(uint32_t seed)
      : random_(seed),
        options_(random_options()),
        model_(random_model()),
        scheduler_(options_),
        rank_(options_, model_) {
    max_steps_agreed_ = below(2) ? 1000 : 1 + below(4);
    for (int idx = 0, count = 1 + below(50); idx < count; idx++) arrivals_.insert(below(60));
  }

  void run() {
    for (int tick = 0; scheduler_.has_work() || !arrivals_.empty(); tick++) {
      ASSERT_LT(tick, 5000) << "somebody starves";
      for (; !arrivals_.empty() && *arrivals_.begin() <= tick; arrivals_.erase(arrivals_.begin())) arrive();
      if (one_in(40) && !alive_.empty()) deliver_if(scheduler_.abort(any_alive()));
      run_round();
      if (testing::Test::HasFailure()) return;
    }
    EXPECT_TRUE(alive_.empty());
    EXPECT_EQ(scheduler_.stats().kv_usage, 0);
  }

  int num_completed() const { return num_completed_; }
  int num_deferred() const { return num_deferred_; }
  int num_abandoned() const { return num_abandoned_; }
  ReplicaStats stats() const { return scheduler_.stats(); }

 private:
  struct Client {
    Request request;  // as it was sent
    std::vector<TokenId> expected;
    std::vector<TokenId> received;
    std::vector<SampledToken> prompt_logprobs;
    int num_computed = -1;  // by the plans so far; -1: never planned
    bool is_cut = false;    // its stop string was found
  };

  int below(int bound) { return static_cast<int>(random_() % bound); }
  bool one_in(int count) { return below(count) == 0; }

  SchedulerOptions random_options() {
    SchedulerOptions options;
    options.cache.block_size = 1 + below(6);
    options.cache.num_blocks = 8 + below(one_in(3) ? 200 : 40);
    options.cache.enabled = !one_in(5);
    options.cache.across_roles = one_in(4);
    options.max_num_batched_tokens = 1 + below(one_in(2) ? 60 : 12);
    options.max_num_seqs = 1 + below(16);
    options.max_model_len = 12 + below(80);
    options.num_scheduler_steps = one_in(2) ? 1 : 2 + below(6);
    options.policy = one_in(2) ? SchedulingPolicy::kFcfs : SchedulingPolicy::kPriority;
    return options;
  }

  FakeModel random_model() {
    FakeModel model;
    model.vocab_size = 2 + below(60);
    model.sees_roles = !options_.cache.across_roles;
    return model;
  }

  // Prompts grow from few stems, so that prefixes are shared, also with answers: some repeat what another request said.
  Request random_request() {
    Request request{.id = ++last_id_};
    if (one_in(3) && !finished_.empty()) {
      request.tokens = finished_[below(static_cast<int>(finished_.size()))];
    } else {
      request.tokens.assign(1 + below(30), below(3));
    }
    for (int count = below(6); count > 0; count--) request.tokens.push_back(below(model_.vocab_size));
    const int num_tokens = static_cast<int>(request.tokens.size());
    request.num_prompt_tokens = one_in(4) ? 1 + below(num_tokens) : num_tokens;
    request.sampling.max_tokens = num_tokens - request.num_prompt_tokens + 1 + below(40);
    request.sampling.num_prompt_logprobs = one_in(5) ? 0 : -1;
    if (one_in(2)) request.sampling.stop_token_ids = {0};
    request.priority = below(3);
    request.arrival_ns = static_cast<int64_t>(request.id);
    request.cache_salt = one_in(4) ? "tenant" : "";
    return request;
  }

  static Request copy(const Request& request) {
    return {.id = request.id,
            .tokens = request.tokens,
            .num_prompt_tokens = request.num_prompt_tokens,
            .sampling = request.sampling,
            .priority = request.priority,
            .arrival_ns = request.arrival_ns,
            .cache_salt = request.cache_salt};
  }

  void arrive() {
    Client client{.request = random_request()};
    Request request = copy(client.request);
    if (masks_are_slow_ && one_in(2)) request.constraint = std::make_unique<Moody>(random_());
    const Status status = scheduler_.add(std::move(request));
    if (!status) {
      EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
      return;
    }
    SamplingParams& sampling = client.request.sampling;
    sampling.max_tokens = std::min(sampling.max_tokens, options_.max_model_len - client.request.num_prompt_tokens);
    client.expected = model_.answer(client.request.tokens, client.request.num_prompt_tokens, sampling);
    alive_.emplace(client.request.id, std::move(client));
  }

  RequestId any_alive() { return std::next(alive_.begin(), below(static_cast<int>(alive_.size())))->first; }

  bool comes_before(const Client& left, const Client& right) const {
    const bool by_priority = options_.policy == SchedulingPolicy::kPriority;
    if (by_priority && left.request.priority != right.request.priority)
      return left.request.priority < right.request.priority;
    return left.request.id < right.request.id;
  }

  // Such have a part of each step among themselves.
  static bool is_resumed(const Client& client) {
    return static_cast<int>(client.request.tokens.size()) > client.request.num_prompt_tokens;
  }

  void run_round() {
    const StepPlan plan = scheduler_.plan(max_steps_agreed_);
    EXPECT_LE(plan.num_steps, max_steps_agreed_);
    if (plan.sequences.empty() && masks_are_slow_) return;
    ASSERT_EQ(plan.sequences.empty(), alive_.empty()) << "who has work does some of it in each round";
    check_order(plan);
    StepResult result = rank_.run(scheduler_, plan, one_in(4) ? 1 : 1000);
    for (size_t idx = 0; idx < plan.sequences.size(); idx++) {
      SequenceResult& sequence = result.sequences[idx];
      Client& client = alive_.at(sequence.id);
      client.num_computed = plan.sequences[idx].first_position + plan.sequences[idx].num_tokens +
                            (plan.sequences[idx].sample ? std::ssize(sequence.tokens) - 1 : 0);
      num_deferred_ += sequence.is_deferred;
      if (one_in(400)) sequence = {.id = sequence.id, .finish = FinishReason::kError, .error = "broken"};
    }
    if (one_in(40) && !alive_.empty()) {
      const RequestId id = any_alive();
      const bool is_planned =
          std::ranges::any_of(plan.sequences, [&](const PlannedSequence& sequence) { return sequence.id == id; });
      std::optional<RequestOutput> output = scheduler_.abort(id);
      EXPECT_EQ(output.has_value(), !is_planned);
      if (is_planned) aborted_in_flight_ = id;
      deliver_if(output);
    }
    if (one_in(20)) {
      for (const RequestOutput& output : scheduler_.abandon_round()) deliver(output);
      num_abandoned_++;
      for (const PlannedSequence& sequence : plan.sequences)
        if (const auto client = alive_.find(sequence.id); client != alive_.end())
          client->second.num_computed = sequence.first_position;
      if (one_in(4)) {
        scheduler_.forget_blocks();
        rank_.lose_cache();
        for (auto& [id, client] : alive_) client.num_computed = -1;
      }
    } else if (one_in(1000)) {
      for (const RequestOutput& output : scheduler_.finish_all(FinishReason::kError, "the step failed"))
        deliver(output);
    } else {
      for (const RequestOutput& output : scheduler_.commit(std::move(result))) deliver(output);
    }
    const Status status = check_integrity(scheduler_);
    EXPECT_TRUE(status) << status.error().message;
    cut_answers();
  }

  void check_order(const StepPlan& plan) {
    if (masks_are_slow_) return;  // who sits out is overtaken
    std::set<RequestId> planned;
    for (const PlannedSequence& sequence : plan.sequences) planned.insert(sequence.id);
    const bool is_fcfs = options_.policy == SchedulingPolicy::kFcfs;
    EXPECT_TRUE(!is_fcfs || alive_.empty() || planned.contains(alive_.begin()->first) ||
                is_resumed(alive_.begin()->second))
        << "the first always gets on";
    for (const PlannedSequence& sequence : plan.sequences) {
      const Client& client = alive_.at(sequence.id);
      const bool is_admitted = client.num_computed != sequence.first_position;
      const bool decodes = sequence.first_position + 1 == static_cast<int>(sequence.tokens.size());
      if (decodes || !(is_fcfs || is_admitted)) continue;
      for (const auto& [id, other] : alive_)
        EXPECT_TRUE(!comes_before(other, client) || planned.contains(id) || is_resumed(other) || is_resumed(client))
            << "request " << sequence.id << " overtakes " << id;
    }
    if (scheduler_.stats().num_preemptions > 0) return;
    for (const auto& [id, client] : alive_)
      EXPECT_TRUE(client.received.empty() || planned.contains(id)) << "request " << id << " decodes and was left out";
  }

  void deliver_if(const std::optional<RequestOutput>& output) {
    if (output) deliver(*output);
  }

  void deliver(const RequestOutput& output) {
    ASSERT_TRUE(alive_.contains(output.id)) << "an output behind the last";
    Client& client = alive_.at(output.id);
    for (const SampledToken& sampled : output.tokens) client.received.push_back(sampled.token);
    for (const SampledToken& entry : output.prompt_logprobs) client.prompt_logprobs.push_back(entry);
    EXPECT_LT(output.num_cached_tokens, std::max<int>(client.request.tokens.size(), 1));
    ASSERT_LE(client.received.size(), client.expected.size());
    EXPECT_TRUE(std::equal(client.received.begin(), client.received.end(), client.expected.begin()))
        << "request " << output.id;
    if (!client.received.empty()) check_prompt_logprobs(client);
    if (output.finish == FinishReason::kNone) return;
    check_finish(client, output);
    std::vector<TokenId> tokens = client.request.tokens;
    tokens.insert(tokens.end(), client.received.begin(), client.received.end());
    finished_.push_back(std::move(tokens));
    alive_.erase(output.id);
  }

  void check_finish(const Client& client, const RequestOutput& output) {
    const bool is_complete = output.finish == FinishReason::kStop || output.finish == FinishReason::kLength;
    EXPECT_TRUE(!is_complete || output.id != aborted_in_flight_) << "an aborted request goes on";
    if (!is_complete) return;
    num_completed_++;
    EXPECT_EQ(client.received, client.expected) << "request " << output.id;
    const int num_generated =
        static_cast<int>(client.request.tokens.size() + client.received.size()) - client.request.num_prompt_tokens;
    EXPECT_EQ(output.finish, finish_reason(client.request.sampling, num_generated, client.received.back()));
  }

  void check_prompt_logprobs(const Client& client) {
    const bool wanted = client.request.sampling.num_prompt_logprobs >= 0;
    ASSERT_EQ(client.prompt_logprobs.size(), wanted ? client.request.num_prompt_tokens - 1 : 0)
        << "complete before the first token";
    uint64_t state = FakeModel::kStart;
    for (size_t idx = 0; idx < client.prompt_logprobs.size(); idx++) {
      state = model_.next_state(state, client.request.tokens[idx], true);
      EXPECT_EQ(client.prompt_logprobs[idx].token, client.request.tokens[idx + 1]);
      EXPECT_EQ(client.prompt_logprobs[idx].logprob, FakeModel::logprob(state, client.request.tokens[idx + 1]));
    }
  }

  // As the owner of the answers does when it finds a stop string in what it heard.
  void cut_answers() {
    std::vector<RequestId> cut;
    for (const auto& [id, client] : alive_)
      if (!client.received.empty() && client.received.back() == 1 && id % 2 == 0) cut.push_back(id);
    for (const RequestId id : cut) deliver_if(scheduler_.abort(id));
  }

  std::mt19937 random_;
  SchedulerOptions options_;
  FakeModel model_;
  Scheduler scheduler_;
  FakeRank rank_;
  int max_steps_agreed_ = 1;
  const bool masks_are_slow_ = one_in(4);
  int num_completed_ = 0, num_deferred_ = 0, num_abandoned_ = 0;
  std::multiset<int> arrivals_;
  RequestId last_id_ = 0;
  RequestId aborted_in_flight_ = 0;
  std::map<RequestId, Client> alive_;
  std::vector<std::vector<TokenId>> finished_;
};

class RandomSchedules : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Thousands, RandomSchedules, testing::Range(0, 8));

TEST_P(RandomSchedules, GiveEveryRequestTheAnswerThatItGetsAlone) {
  constexpr int kSchedules = 500;
  ReplicaStats total;
  int num_completed = 0, num_deferred = 0, num_abandoned = 0;
  for (int idx = 0; idx < kSchedules; idx++) {
    const uint32_t seed = GetParam() * kSchedules + idx;
    RandomSchedule schedule(seed);
    schedule.run();
    ASSERT_FALSE(HasFailure()) << "seed " << seed;
    const ReplicaStats stats = schedule.stats();
    num_completed += schedule.num_completed();
    num_deferred += schedule.num_deferred();
    num_abandoned += schedule.num_abandoned();
    total.num_preemptions += stats.num_preemptions;
    total.prefix_hit_tokens += stats.prefix_hit_tokens;
    total.num_rounds += stats.num_rounds;
    total.num_steps += stats.num_steps;
  }
  // The schedules meet what they are about.
  EXPECT_GT(num_completed, 5 * kSchedules);
  EXPECT_GT(num_deferred, kSchedules);
  EXPECT_GT(num_abandoned, kSchedules);
  EXPECT_GT(total.num_preemptions, kSchedules);
  EXPECT_GT(total.prefix_hit_tokens, 10 * kSchedules);
  EXPECT_GT(total.num_steps, total.num_rounds + 10 * kSchedules);
}

}  // namespace
}  // namespace cachalot
