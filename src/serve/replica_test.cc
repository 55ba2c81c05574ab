#include "serve/replica.h"

#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "scheduler/scheduler.h"

namespace cachalot {
namespace {

const std::string kNano = std::string(CACHALOT_SOURCE_DIR) + "/models/nano";

struct Heard {
  std::vector<TokenId> tokens;
  FinishReason finish = FinishReason::kNone;
  std::string error;
};

class ReplicaTest : public testing::Test {
 protected:
  void start(EngineOptions options, const QueueLimits& queue = {}) {
    options.model = kNano;
    options.threads = 1;
    auto engine = RankEngine::create(options, {});
    ASSERT_TRUE(engine) << engine.error().message;
    const MemoryPlan& memory = (*engine)->memory();
    const SchedulerOptions scheduler = make_scheduler_options(options, memory.num_blocks, memory.max_model_len);
    replica_ = std::make_unique<Replica>(std::move(*engine), scheduler, metrics_, nullptr, queue);
  }
  static Request request(RequestId id, int max_tokens) {
    Request request;
    request.id = id;
    request.tokens = {496, 499, 440, 75, 75, 78, 0, 500, 501, 198};  // "Hello!" in nano's chat format
    request.num_prompt_tokens = static_cast<int>(request.tokens.size());
    request.sampling.temperature = 0;
    request.sampling.max_tokens = max_tokens;
    return request;
  }
  // Submits, and gives what the listener heard in the end.
  std::future<Heard> ask(Request request, const std::function<void(const Heard&)>& on_output = {}) {
    auto heard = std::make_shared<Heard>();
    auto promise = std::make_shared<std::promise<Heard>>();
    const Status status = replica_->submit(std::move(request), [=](const RequestOutput& output) {
      for (const SampledToken& token : output.tokens) heard->tokens.push_back(token.token);
      heard->finish = output.finish;
      heard->error = output.error;
      if (on_output) on_output(*heard);
      if (output.finish != FinishReason::kNone) promise->set_value(*heard);
    });
    EXPECT_TRUE(status) << status.error().message;
    return promise->get_future();
  }

  Metrics metrics_{{.model_name = "nano", .engine = 3}};
  std::unique_ptr<Replica> replica_;
};

TEST_F(ReplicaTest, AnswersSeveralRequestsTogetherAndCountsThem) {
  start({});
  std::vector<std::future<Heard>> answers;
  for (int idx = 0; idx < 4; idx++) answers.push_back(ask(request(replica_->next_id(), 20)));
  const Heard first = answers[0].get();
  EXPECT_EQ(first.tokens.size(), 20u);
  EXPECT_EQ(first.finish, FinishReason::kLength);
  for (size_t idx = 1; idx < answers.size(); idx++) EXPECT_EQ(answers[idx].get().tokens, first.tokens);
  replica_->drain(std::chrono::steady_clock::now() + std::chrono::seconds(10));
  const ReplicaStats stats = replica_->stats();
  EXPECT_EQ(stats.generation_tokens, 80u);
  EXPECT_EQ(stats.num_running, 0);
  EXPECT_EQ(stats.kv_usage, 0);
  const std::string text = metrics_.render(stats, replica_->healthy());
  EXPECT_NE(text.find("vllm:generation_tokens_total{engine=\"3\",model_name=\"nano\"} 80"), std::string::npos) << text;
  EXPECT_NE(text.find("vllm:request_success_total{engine=\"3\",finished_reason=\"length\",model_name=\"nano\"} 4"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("vllm:time_to_first_token_seconds_count{engine=\"3\",model_name=\"nano\"} 4"), std::string::npos)
      << text;
}

TEST_F(ReplicaTest, AnAbortedRequestStopsAndGivesItsBlocksBack) {
  start({});
  Request endless = request(replica_->next_id(), 3000);
  const RequestId id = endless.id;
  std::future<Heard> answer = ask(std::move(endless), [&](const Heard& heard) {
    if (heard.tokens.size() == 5) replica_->abort(id);
  });
  const Heard heard = answer.get();
  EXPECT_EQ(heard.finish, FinishReason::kAborted);
  EXPECT_LT(heard.tokens.size(), 10u);
  replica_->drain(std::chrono::steady_clock::now() + std::chrono::seconds(10));
  EXPECT_EQ(replica_->stats().kv_usage, 0);
}

TEST_F(ReplicaTest, ARequestWhoseClientIsGoneEntersNoRound) {
  start({.max_num_batched_tokens = 2048});
  // A round that takes long enough.
  Request long_prompt = request(replica_->next_id(), 1);
  long_prompt.tokens.resize(2000, 1);
  long_prompt.num_prompt_tokens = 2000;
  std::future<Heard> first = ask(std::move(long_prompt));
  std::vector<std::future<Heard>> gone;
  for (int idx = 0; idx < 50; idx++) {
    Request request = ReplicaTest::request(replica_->next_id(), 100);
    const RequestId id = request.id;
    gone.push_back(ask(std::move(request)));
    replica_->abort(id);
  }
  for (auto& answer : gone) EXPECT_EQ(answer.get().finish, FinishReason::kAborted);
  first.get();
  replica_->drain(std::chrono::steady_clock::now() + std::chrono::seconds(10));
  EXPECT_LE(replica_->stats().prefix_queried_tokens, 2010u);  // one may be looked at before it is aborted
}

// Lets everything through, when it is told to.
class SlowMask : public TokenConstraint {
 public:
  explicit SlowMask(std::shared_ptr<std::atomic<bool>> is_ready) : is_ready_(std::move(is_ready)) {}
  Status fill_mask(std::span<uint32_t>) override { return {}; }
  Status accept(TokenId) override { return {}; }
  void rollback(int) override {}
  bool is_ready_by(std::chrono::steady_clock::time_point) override { return *is_ready_; }
  void set_wake(std::function<void()> wake) override { *wake_ = std::move(wake); }
  std::shared_ptr<std::function<void()>> wake() const { return wake_; }

 private:
  const std::shared_ptr<std::atomic<bool>> is_ready_;
  const std::shared_ptr<std::function<void()>> wake_ = std::make_shared<std::function<void()>>();
};

TEST_F(ReplicaTest, NobodyWaitsForTheMaskOfAnother) {
  for (const int num_steps : {1, 4}) {
    start({.num_scheduler_steps = num_steps});
    const Heard expected = ask(request(replica_->next_id(), 50)).get();
    const auto is_ready = std::make_shared<std::atomic<bool>>(false);
    Request slow = request(replica_->next_id(), 50);
    auto mask = std::make_unique<SlowMask>(is_ready);
    const std::shared_ptr<std::function<void()>> wake = mask->wake();
    slow.constraint = std::move(mask);
    std::future<Heard> answer = ask(std::move(slow));
    for (int idx = 0; idx < 3; idx++) EXPECT_EQ(ask(request(replica_->next_id(), 50)).get().tokens, expected.tokens);
    EXPECT_EQ(answer.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
    const uint64_t num_steps_then = replica_->report().steps;
    EXPECT_EQ(answer.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
    EXPECT_EQ(replica_->report().steps, num_steps_then) << "it sleeps";
    *is_ready = true;
    (*wake)();
    EXPECT_EQ(answer.get().tokens, expected.tokens);
  }
}

TEST_F(ReplicaTest, WhoWaitsForAMaskCanGo) {
  start({});
  const auto ask_slow = [&](RequestId id) {
    Request slow = request(id, 50);
    slow.constraint = std::make_unique<SlowMask>(std::make_shared<std::atomic<bool>>(false));
    std::future<Heard> answer = ask(std::move(slow));
    EXPECT_EQ(answer.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
    return answer;
  };
  const RequestId id = replica_->next_id();
  std::future<Heard> answer = ask_slow(id);
  EXPECT_EQ(replica_->stats().num_running, 1);
  replica_->abort(id);
  EXPECT_EQ(answer.get().finish, FinishReason::kAborted);
  answer = ask_slow(replica_->next_id());
  replica_->drain(std::chrono::steady_clock::now() + std::chrono::milliseconds(50));
  EXPECT_EQ(answer.get().finish, FinishReason::kAborted);
  EXPECT_EQ(replica_->stats().kv_usage, 0);
}

TEST_F(ReplicaTest, ADrainFinishesWhatRunsAndRefusesWhatComes) {
  start({});
  std::promise<void> begun;
  std::future<Heard> answer = ask(request(replica_->next_id(), 200), [&](const Heard& heard) {
    if (heard.tokens.size() == 1) begun.set_value();
  });
  begun.get_future().wait();
  EXPECT_TRUE(replica_->healthy());
  replica_->drain(std::chrono::steady_clock::now() + std::chrono::seconds(30));
  EXPECT_FALSE(replica_->healthy());
  EXPECT_EQ(answer.get().finish, FinishReason::kLength);
  const Status refused = replica_->submit(request(99, 5), [](const RequestOutput&) { FAIL(); });
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
}

TEST_F(ReplicaTest, ADrainThatTakesTooLongEndsTheRest) {
  start({});
  std::future<Heard> answer = ask(request(replica_->next_id(), 3000));
  replica_->drain(std::chrono::steady_clock::now());
  EXPECT_EQ(answer.get().finish, FinishReason::kAborted);
}

TEST_F(ReplicaTest, WhoHearsTheEndOfAnAnswerFindsItsPlaceFree) {
  start({});
  std::promise<int> num_running;
  ask(request(replica_->next_id(), 3), [&](const Heard& heard) {
    if (heard.finish != FinishReason::kNone) num_running.set_value(replica_->stats().num_running);
  }).get();
  EXPECT_EQ(num_running.get_future().get(), 0);
}

TEST_F(ReplicaTest, OnlySoManyRequestsWait) {
  start({.max_num_seqs = 1}, {.max_requests = 3, .max_tokens = 1000});
  std::promise<void> begun;
  std::vector<std::future<Heard>> answers;
  answers.push_back(ask(request(replica_->next_id(), 2000), [&](const Heard& heard) {
    if (heard.tokens.size() == 1 && heard.finish == FinishReason::kNone) begun.set_value();
  }));
  begun.get_future().wait();
  for (int idx = 0; idx < 3; idx++) answers.push_back(ask(request(replica_->next_id(), 5)));
  const Status refused = replica_->submit(request(99, 5), [](const RequestOutput&) { FAIL(); });
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kOutOfMemory);
  EXPECT_NE(refused.error().message.find("--max-num-queued-reqs"), std::string::npos) << refused.error().message;
  EXPECT_EQ(replica_->stats().num_waiting, 3);
  EXPECT_EQ(replica_->stats().num_waiting_tokens, 30);
  replica_->abort(1);
  for (auto& answer : answers) answer.get();
  while (replica_->stats().num_running > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  // Where there is room nobody waits, however long.
  Request long_prompt = request(100, 5);
  long_prompt.tokens.resize(1500, 1);
  long_prompt.num_prompt_tokens = 1500;
  ask(std::move(long_prompt)).get();
}

TEST_F(ReplicaTest, OnlySoManyTokensWait) {
  start({.max_num_seqs = 1}, {.max_requests = 0, .max_tokens = 25});
  std::promise<void> begun;
  std::future<Heard> first = ask(request(replica_->next_id(), 2000), [&](const Heard& heard) {
    if (heard.tokens.size() == 1 && heard.finish == FinishReason::kNone) begun.set_value();
  });
  begun.get_future().wait();
  std::future<Heard> second = ask(request(replica_->next_id(), 5)), third = ask(request(replica_->next_id(), 5));
  const Status refused = replica_->submit(request(99, 5), [](const RequestOutput&) { FAIL(); });
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("--max-num-queued-tokens"), std::string::npos) << refused.error().message;
  replica_->abort(1);
  first.get(), second.get(), third.get();
}

TEST_F(ReplicaTest, ARequestThatCanNeverRunIsRefusedAtOnce) {
  start({.num_gpu_blocks_override = 2});
  Request long_prompt = request(2, 5);
  long_prompt.tokens.resize(500, 1);
  long_prompt.num_prompt_tokens = 500;
  const Status too_long = replica_->submit(std::move(long_prompt), [](const RequestOutput&) { FAIL(); });
  ASSERT_FALSE(too_long);
  EXPECT_EQ(too_long.error().parameter, "prompt");
}

}  // namespace
}  // namespace cachalot
