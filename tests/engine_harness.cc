#include "engine_harness.h"

#include <gtest/gtest.h>

#include "scheduler/integrity_test_util.h"

namespace cachalot::test {

EngineRun::EngineRun(const EngineOptions& options) {
  auto engine = RankEngine::create(options, {});
  if (!engine) {
    ADD_FAILURE() << engine.error().message;
    return;
  }
  engine_ = std::move(*engine);
  scheduler_ = std::make_unique<Scheduler>(
      make_scheduler_options(options, engine_->memory().num_blocks, engine_->memory().max_model_len));
}

void EngineRun::submit(Request request) {
  const Status added = scheduler_->add(std::move(request));
  ASSERT_TRUE(added) << added.error().message;
}

void EngineRun::step() {
  const StepPlan plan = scheduler_->plan();
  auto result = engine_->run(plan);
  ASSERT_TRUE(result) << result.error().message;
  for (RequestOutput& output : scheduler_->commit(std::move(*result))) {
    Answer& answer = answers_[output.id];
    answer.tokens.insert(answer.tokens.end(), output.tokens.begin(), output.tokens.end());
    answer.num_cached_tokens = std::max(answer.num_cached_tokens, output.num_cached_tokens);
    answer.finish = output.finish;
    answer.error = output.error;
  }
}

void EngineRun::finish() {
  while (scheduler_->has_work() && !testing::Test::HasFatalFailure()) step();
  const Status status = check_integrity(*scheduler_);
  EXPECT_TRUE(status) << status.error().message;
}

Request greedy_request(RequestId id, std::vector<TokenId> prompt, int max_tokens) {
  Request request;
  request.id = id;
  request.num_prompt_tokens = static_cast<int>(prompt.size());
  request.tokens = std::move(prompt);
  request.sampling.temperature = 0;
  request.sampling.max_tokens = max_tokens;
  return request;
}

}  // namespace cachalot::test
