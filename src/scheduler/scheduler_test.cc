#include "scheduler/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <numeric>
#include <vector>

#include "scheduler/fake_rank_test_util.h"

namespace cachalot {
namespace {

using testing::Test;

constexpr int kBlockSize = 4;

SchedulerOptions small_options() {
  return {.max_num_batched_tokens = 64,
          .max_num_seqs = 8,
          .max_model_len = 256,
          .cache = {.num_blocks = 64, .block_size = kBlockSize}};
}

// A scheduler with a fake rank behind it, and what its clients heard.
struct House {
  SchedulerOptions options;
  Scheduler scheduler{options};
  FakeRank rank{options, FakeModel{}};
  std::map<RequestId, RequestOutput> heard;  // tokens of all outputs; the rest from the last
  StepPlan plan;                             // of the latest round

  explicit House(const SchedulerOptions& options = small_options()) : options(options) {}

  // Prompts of different requests share no prefix unless `first` says so.
  static Request request(RequestId id, int num_prompt_tokens, int max_tokens, int priority = 0, TokenId first = -1) {
    Request request{
        .id = id, .tokens = std::vector<TokenId>(num_prompt_tokens), .num_prompt_tokens = num_prompt_tokens};
    std::iota(request.tokens.begin(), request.tokens.end(), first >= 0 ? first : static_cast<TokenId>(id) * 1000);
    request.sampling.max_tokens = max_tokens;
    request.priority = priority;
    request.arrival_ns = static_cast<int64_t>(id);
    return request;
  }
  void add(Request request) {
    const Status status = scheduler.add(std::move(request));
    ASSERT_TRUE(status) << status.error().message;
  }

  void hear(std::vector<RequestOutput> outputs) {
    for (RequestOutput& output : outputs) {
      RequestOutput& all = heard[output.id];
      std::vector<SampledToken> tokens = std::move(all.tokens);
      tokens.insert(tokens.end(), output.tokens.begin(), output.tokens.end());
      all = std::move(output);
      all.tokens = std::move(tokens);
    }
  }
  void start_round(int max_num_steps = 1000) { plan = scheduler.plan(max_num_steps); }
  void finish_round(int num_steps = 1000) {
    hear(scheduler.commit(rank.run(scheduler, plan, num_steps)));
    const Status status = check_integrity(scheduler);
    EXPECT_TRUE(status) << status.error().message;
  }
  void round() {
    start_round();
    finish_round();
  }
  void run_to_the_end() {
    for (int count = 0; scheduler.has_work(); count++) {
      ASSERT_LT(count, 10'000);
      round();
    }
  }

  // Tokens that a request brings to the latest round.
  int brings(RequestId id) const {
    for (const PlannedSequence& sequence : plan.sequences)
      if (sequence.id == id) return sequence.num_tokens;
    return 0;
  }
  int num_heard(RequestId id) { return static_cast<int>(heard[id].tokens.size()); }
};

TEST(Scheduler, CutsAPrefillIntoChunksOfTheBudgetAndSamplesAtItsEnd) {
  House house;
  house.add(House::request(1, 150, 5));
  for (const int expected : {64, 64, 22}) {
    house.start_round();
    EXPECT_EQ(house.brings(1), expected);
    EXPECT_EQ(house.plan.sequences[0].sample, expected == 22);
    house.finish_round();
  }
  EXPECT_EQ(house.num_heard(1), 1);
}

TEST(Scheduler, RunningDecodesGetTheirTokenBesideALongPrefill) {
  House house;
  for (RequestId id = 1; id <= 3; id++) house.add(House::request(id, 4, 20));
  house.round();
  house.add(House::request(4, 200, 5));
  for (const int chunk : {61, 61, 61, 17}) {
    house.start_round();
    for (RequestId id = 1; id <= 3; id++) EXPECT_EQ(house.brings(id), 1);
    EXPECT_EQ(house.brings(4), chunk);
    EXPECT_EQ(house.plan.sequences.back().id, 4u);
    house.finish_round();
  }
  EXPECT_EQ(house.num_heard(1), 5);
}

TEST(Scheduler, SeveralPrefillsShareTheBudgetInOrder) {
  House house;
  house.add(House::request(1, 50, 5));
  house.add(House::request(2, 50, 5));
  house.add(House::request(3, 50, 5));
  house.round();
  EXPECT_EQ(house.brings(1), 50);
  EXPECT_EQ(house.brings(2), 14);
  EXPECT_EQ(house.brings(3), 0);
  house.round();
  EXPECT_EQ(house.brings(2), 36);
  EXPECT_EQ(house.brings(3), 27);
}

TEST(Scheduler, DecodesNeverFillTheWholeBudget) {
  SchedulerOptions options = small_options();
  options.max_num_batched_tokens = 4;
  House house(options);
  for (RequestId id = 1; id <= 5; id++) house.add(House::request(id, 1, 100));
  house.round();
  house.round();
  EXPECT_EQ(house.scheduler.stats().num_running, 3);
  EXPECT_EQ(house.plan.num_tokens(), 3);
}

TEST(Scheduler, NoMoreThanMaxNumSeqsRun) {
  SchedulerOptions options = small_options();
  options.max_num_seqs = 2;
  House house(options);
  for (RequestId id = 1; id <= 3; id++) house.add(House::request(id, 4, static_cast<int>(2 * id)));
  house.round();
  EXPECT_EQ(house.scheduler.stats().num_running, 2);
  EXPECT_EQ(house.scheduler.stats().num_waiting, 1);
  EXPECT_EQ(house.scheduler.stats().num_pending_tokens, 1 + 1 + 4) << "a new token each, and a prompt";
  house.round();
  EXPECT_EQ(house.heard[1].finish, FinishReason::kLength);
  house.round();
  EXPECT_EQ(house.brings(3), 4);
}

TEST(Scheduler, ReusesThePrefixOfAnEarlierPromptAndSaysHowMuch) {
  House house;
  house.add(House::request(1, 18, 3, 0, 500));
  house.run_to_the_end();
  house.add(House::request(2, 30, 3, 0, 500));
  house.start_round();
  EXPECT_EQ(house.plan.sequences[0].first_position, 16);
  EXPECT_EQ(house.brings(2), 14);
  house.finish_round();
  EXPECT_EQ(house.heard[2].num_cached_tokens, 16);
  EXPECT_EQ(house.scheduler.stats().prefix_queried_tokens, 48u);
  EXPECT_EQ(house.scheduler.stats().prefix_hit_tokens, 16u);
}

TEST(Scheduler, TheChoicesOfAPromptShareItsPrefill) {
  House house;
  for (RequestId id : {1, 2, 3}) {
    Request choice = House::request(id, 150, 3, 0, 7);
    choice.arrival_ns = 1;
    choice.parent = 1;
    choice.num_choices = 3;
    choice.sampling.choice = static_cast<uint32_t>(id - 1);
    house.add(std::move(choice));
  }
  house.add(House::request(4, 10, 3));
  int num_computed = 0;
  for (int round = 0; house.scheduler.has_work() && round < 50; ++round) {
    house.round();
    for (const RequestId id : {1, 2, 3}) num_computed += house.brings(id);
  }
  // Each choice computes what lies behind the last whole block itself, and its own answer.
  EXPECT_LE(num_computed, 150 + 2 * (kBlockSize + 2) + 3 * 3);
  for (const RequestId id : {1, 2, 3, 4}) EXPECT_EQ(house.heard.at(id).tokens.size(), 3u);
}

TEST(Scheduler, TellsHowFarTheyAreThoseThatAsk) {
  House house;
  for (RequestId id = 1; id <= 11; ++id) {
    Request request = House::request(id, id == 10 ? 200 : 8, id < 9 ? 2 : 3);
    request.wants_progress = id >= 10;
    house.add(std::move(request));
  }
  std::vector<RequestProgress> told;
  for (int round = 0; house.scheduler.has_work() && round < 50; ++round) {
    house.start_round();
    for (RequestOutput& output : house.scheduler.commit(house.rank.run(house.scheduler, house.plan, 1000))) {
      if (!output.progress) continue;
      EXPECT_GE(output.id, 10u);
      EXPECT_TRUE(output.tokens.empty());
      if (output.id == 10) told.push_back(*output.progress);
    }
  }
  // Eight run; then one is before it, then it computes its prompt in pieces.
  ASSERT_GE(told.size(), 3u);
  EXPECT_EQ(told.front(), (RequestProgress{.queue_place = 2}));
  for (size_t i = 1; i < told.size(); ++i)
    EXPECT_TRUE(told[i].queue_place < told[i - 1].queue_place ||
                told[i].num_computed_tokens > told[i - 1].num_computed_tokens);
  EXPECT_EQ(told.back().queue_place, 0);
  EXPECT_GT(told.back().num_computed_tokens, 0);
}

TEST(Scheduler, ComputesTheLastPromptTokenEvenWhenAllIsCached) {
  House house;
  house.add(House::request(1, 16, 3, 0, 500));
  house.run_to_the_end();
  house.add(House::request(2, 16, 3, 0, 500));
  house.start_round();
  EXPECT_EQ(house.plan.sequences[0].first_position, 12);
  EXPECT_TRUE(house.plan.sequences[0].sample);
  house.finish_round();
  EXPECT_EQ(house.num_heard(2), 1);
}

TEST(Scheduler, AnAnswerInTheNextPromptIsComputedOnceMore) {
  House house;
  house.add(House::request(1, 8, 9, 0, 500));
  house.run_to_the_end();
  Request next = House::request(2, 8, 3, 0, 500);
  for (const SampledToken& sampled : house.heard[1].tokens) next.tokens.push_back(sampled.token);
  next.num_prompt_tokens = static_cast<int>(next.tokens.size());
  house.add(std::move(next));
  house.start_round();
  EXPECT_EQ(house.plan.sequences[0].first_position, 8);
}

TEST(Scheduler, AResumedRequestFindsItsAnswerInTheCache) {
  House house;
  house.add(House::request(1, 8, 9, 0, 500));
  house.run_to_the_end();
  Request resumed = House::request(2, 8, 20, 0, 500);
  for (const SampledToken& sampled : house.heard[1].tokens) resumed.tokens.push_back(sampled.token);
  house.add(std::move(resumed));
  house.start_round();
  EXPECT_EQ(house.plan.sequences[0].first_position, 16);
  EXPECT_EQ(house.plan.sequences[0].num_prompt_tokens, 8);
  house.finish_round();
  EXPECT_EQ(house.heard[2].num_cached_tokens, 8) << "of the prompt";
}

// Of requests that other servers began, with so many tokens of an answer.
Request resumed(RequestId id, int num_prompt_tokens, int num_generated) {
  Request request = House::request(id, num_prompt_tokens + num_generated, num_generated + 5);
  request.num_prompt_tokens = num_prompt_tokens;
  return request;
}

TEST(Scheduler, WhatOthersBeganIsComputedAgainInAPartOfEachStepTheNearestFirst) {
  House house;
  house.add(House::request(1, 8, 90));
  house.round();
  house.add(resumed(2, 20, 20));
  house.add(resumed(3, 10, 10));
  house.add(House::request(4, 40, 5));
  const auto brought = [&] { return std::vector{house.brings(1), house.brings(2), house.brings(3), house.brings(4)}; };
  house.start_round();
  EXPECT_EQ(brought(), (std::vector{1, 16, 0, 40})) << "who is there is served first, who comes takes his place";
  house.finish_round();
  house.start_round();
  EXPECT_EQ(brought(), (std::vector{1, 0, 16, 1})) << "20 tokens are fewer than 24";
  house.finish_round();
  house.start_round();
  EXPECT_EQ(brought(), (std::vector{1, 12, 4, 1}));
  house.finish_round();
  house.start_round();
  EXPECT_EQ(brought(), (std::vector{1, 12, 1, 1}));
  house.finish_round();
  house.run_to_the_end();
  for (const RequestId id : {2, 3}) EXPECT_EQ(house.num_heard(id), 5);
}

TEST(Scheduler, WhatOthersBeganHasTheWholeBudgetWhereNobodyElseIs) {
  House house;
  house.add(resumed(1, 40, 40));
  house.start_round();
  EXPECT_EQ(house.brings(1), 64);
}

TEST(Scheduler, APromptWithLogprobsIsComputedWhole) {
  House house;
  house.add(House::request(1, 16, 3, 0, 500));
  house.run_to_the_end();
  Request request = House::request(2, 16, 3, 0, 500);
  request.sampling.num_prompt_logprobs = 0;
  house.add(std::move(request));
  house.start_round();
  EXPECT_EQ(house.plan.sequences[0].first_position, 0);
  house.finish_round();
  EXPECT_EQ(house.heard[2].prompt_logprobs.size(), 15u);
}

TEST(Scheduler, PreemptsTheLastWhenBlocksRunOutAndComputesItAgainInOneBatch) {
  SchedulerOptions options = small_options();
  options.cache.num_blocks = 10;
  options.cache.enabled = false;
  House house(options);
  house.add(House::request(1, 12, 25));
  house.add(House::request(2, 12, 12));
  int num_rounds = 0;
  for (; house.scheduler.stats().num_preemptions == 0; num_rounds++) house.round();
  EXPECT_EQ(house.brings(1), 1) << "the first goes on";
  EXPECT_EQ(house.brings(2), 0);
  const int num_known = 12 + house.num_heard(2);
  EXPECT_EQ(num_known, 12 + num_rounds - 1);
  while (house.brings(2) == 0) house.round();
  EXPECT_EQ(house.brings(2), num_known) << "prompt and generated tokens together";
  EXPECT_EQ(house.plan.sequences.back().num_prompt_tokens, 12);
  house.run_to_the_end();
  EXPECT_EQ(house.num_heard(1), 25);
  EXPECT_EQ(house.num_heard(2), 12);
  EXPECT_EQ(house.scheduler.stats().num_preemptions, 1u);
}

TEST(Scheduler, PromptLogprobsAreHandedOutOnceDespiteAPreemption) {
  SchedulerOptions options = small_options();
  options.cache.num_blocks = 10;
  options.max_num_batched_tokens = 10;
  options.policy = SchedulingPolicy::kPriority;
  House house(options);
  Request request = House::request(1, 30, 2, 1);
  request.sampling.num_prompt_logprobs = 0;
  house.add(std::move(request));
  house.round();
  EXPECT_EQ(house.heard[1].prompt_logprobs.size(), 10u);
  house.add(House::request(2, 12, 2, 0));
  house.start_round();
  EXPECT_EQ(house.brings(1), 0);
  house.finish_round();
  std::vector<SampledToken> entries = house.heard[1].prompt_logprobs;
  for (int count = 0; house.scheduler.has_work() && count < 100; count++) {
    house.start_round();
    for (RequestOutput& output : house.scheduler.commit(house.rank.run(house.scheduler, house.plan, 1)))
      if (output.id == 1) entries.insert(entries.end(), output.prompt_logprobs.begin(), output.prompt_logprobs.end());
  }
  ASSERT_EQ(entries.size(), 29u);
  for (int idx = 0; idx < 29; idx++) EXPECT_EQ(entries[idx].token, 1000 + idx + 1);
}

TEST(Scheduler, NobodyOvertakesTheFirstThatWaits) {
  SchedulerOptions options = small_options();
  options.cache.num_blocks = 12;
  House house(options);
  house.add(House::request(1, 20, 10));
  house.round();
  house.add(House::request(2, 40, 2));
  house.add(House::request(3, 1, 1));
  house.round();
  EXPECT_EQ(house.brings(2) + house.brings(3), 0);
  while (house.brings(2) == 0) house.round();
  EXPECT_EQ(house.heard[1].finish, FinishReason::kLength);
}

TEST(Scheduler, ANewcomerLeavesABlockForEverybodyWhoRuns) {
  for (const bool fits : {true, false}) {
    SchedulerOptions options = small_options();
    options.cache.num_blocks = 2 + 3 + (fits ? 1 : 0);
    House house(options);
    house.add(House::request(1, 7, 2));
    house.round();
    house.add(House::request(2, 12, 2));
    house.round();
    EXPECT_EQ(house.brings(2), fits ? 12 : 0);
    house.run_to_the_end();
  }
}

TEST(Scheduler, PriorityServesTheLowestValueFirst) {
  SchedulerOptions options = small_options();
  options.policy = SchedulingPolicy::kPriority;
  options.max_num_seqs = 1;
  House house(options);
  house.add(House::request(1, 4, 2, 5));
  house.add(House::request(2, 4, 2, -1));
  house.add(House::request(3, 4, 2, 5));
  std::vector<RequestId> order;
  while (house.scheduler.has_work()) {
    house.round();
    if (order.empty() || order.back() != house.plan.sequences[0].id) order.push_back(house.plan.sequences[0].id);
  }
  EXPECT_EQ(order, (std::vector<RequestId>{2, 1, 3}));
}

TEST(Scheduler, FcfsHeedsNoPriority) {
  SchedulerOptions options = small_options();
  options.max_num_seqs = 1;
  House house(options);
  house.add(House::request(1, 4, 2, 5));
  house.add(House::request(2, 4, 2, -1));
  house.round();
  EXPECT_EQ(house.brings(1), 4);
}

TEST(Scheduler, ABetterPriorityPreemptsTheWorstThatRunsWhenSeatsRunOut) {
  SchedulerOptions options = small_options();
  options.policy = SchedulingPolicy::kPriority;
  options.max_num_seqs = 2;
  House house(options);
  house.add(House::request(1, 4, 10, 1));
  house.add(House::request(2, 4, 10, 2));
  house.round();
  house.add(House::request(3, 4, 10, 0));
  house.round();
  EXPECT_EQ(house.brings(1), 1);
  EXPECT_EQ(house.brings(2), 0);
  EXPECT_EQ(house.brings(3), 4);
  house.add(House::request(4, 4, 10, 1));
  house.round();
  EXPECT_EQ(house.brings(4), 0) << "equals do not preempt each other";
  house.run_to_the_end();
  for (RequestId id = 1; id <= 4; id++) EXPECT_EQ(house.num_heard(id), 10);
}

TEST(Scheduler, TheBudgetOfAPreemptedSequenceGoesToTheNewcomer) {
  SchedulerOptions options = small_options();
  options.policy = SchedulingPolicy::kPriority;
  options.max_num_seqs = 2;
  options.max_num_batched_tokens = 10;
  House house(options);
  house.add(House::request(1, 4, 10, 1));
  house.add(House::request(2, 4, 10, 1));
  house.round();
  house.add(House::request(3, 40, 10, 0));
  house.round();
  EXPECT_EQ(house.brings(1), 1);
  EXPECT_EQ(house.brings(3), 9);
}

TEST(Scheduler, ABetterPriorityPreemptsWhenBlocksRunOut) {
  SchedulerOptions options = small_options();
  options.policy = SchedulingPolicy::kPriority;
  options.cache.num_blocks = 20;
  House house(options);
  for (RequestId id = 1; id <= 3; id++) house.add(House::request(id, 20, 10, 1));
  house.round();
  house.add(House::request(4, 30, 10, 0));
  house.round();
  EXPECT_EQ(house.brings(4), 30);
  EXPECT_EQ(house.brings(3), 0);
  EXPECT_EQ(house.brings(1), 1);
}

TEST(Scheduler, NobodyIsPreemptedInVain) {
  SchedulerOptions options = small_options();
  options.policy = SchedulingPolicy::kPriority;
  options.cache.num_blocks = 20;
  House house(options);
  house.add(House::request(1, 40, 20, 0));
  house.add(House::request(2, 8, 20, 2));
  house.round();
  house.add(House::request(3, 50, 2, 1));
  house.round();
  EXPECT_EQ(house.brings(2), 1) << "its blocks would not be enough";
  EXPECT_EQ(house.scheduler.stats().num_preemptions, 0u);
}

SchedulerOptions multi_step_options(int num_steps) {
  SchedulerOptions options = small_options();
  options.num_scheduler_steps = num_steps;
  return options;
}

TEST(Scheduler, ARoundOfDecodesAloneHasAllSteps) {
  House house(multi_step_options(4));
  house.add(House::request(1, 4, 20));
  house.add(House::request(2, 4, 20));
  house.round();
  EXPECT_EQ(house.plan.num_steps, 1) << "prompts";
  house.start_round();
  EXPECT_EQ(house.plan.num_steps, 4);
  EXPECT_GE(house.plan.sequences[0].blocks.size() * kBlockSize, 5u + 3u);
  house.finish_round();
  EXPECT_EQ(house.num_heard(1), 5);
  house.add(House::request(3, 4, 20));
  house.round();
  EXPECT_EQ(house.plan.num_steps, 1) << "a newcomer";
  house.round();
  EXPECT_EQ(house.plan.num_steps, 4);
  EXPECT_EQ(house.scheduler.stats().num_rounds, 4u);
  EXPECT_EQ(house.scheduler.stats().num_steps, 10u);
}

TEST(Scheduler, ARoundIsNoLongerThanAnybodyCanGoOn) {
  House house(multi_step_options(8));
  house.add(House::request(1, 4, 4));
  house.add(House::request(2, 4, 6));
  house.round();
  house.start_round();
  EXPECT_EQ(house.plan.num_steps, 5);
  EXPECT_EQ(house.plan.sequences[0].blocks.size(), 2u) << "slots up to its max_tokens only";
  house.finish_round();
  EXPECT_EQ(house.num_heard(1), 4);
  EXPECT_EQ(house.num_heard(2), 6);
  EXPECT_FALSE(house.scheduler.has_work());
}

TEST(Scheduler, TheAgreementMayShortenARoundBeforeOrAfterItIsPlanned) {
  House house(multi_step_options(8));
  house.add(House::request(1, 4, 20));
  house.round();
  house.start_round(3);
  EXPECT_EQ(house.plan.num_steps, 3);
  house.finish_round();
  EXPECT_EQ(house.num_heard(1), 4);
  house.start_round();
  EXPECT_EQ(house.plan.num_steps, 8);
  house.finish_round(2);
  EXPECT_EQ(house.num_heard(1), 6);
  house.run_to_the_end();
  EXPECT_EQ(house.num_heard(1), 20);
}

TEST(Scheduler, NobodyIsPreemptedForMoreThanOneStep) {
  SchedulerOptions options = multi_step_options(16);
  options.cache.num_blocks = 7;
  House house(options);
  house.add(House::request(1, 8, 9));
  house.add(House::request(2, 4, 9));
  house.round();
  house.start_round();
  EXPECT_EQ(house.plan.sequences.size(), 2u);
  EXPECT_EQ(house.plan.num_steps, 8);
  house.finish_round();
  House tight([&] {
    options.cache.num_blocks = 5;
    return options;
  }());
  tight.add(House::request(1, 8, 9));
  tight.add(House::request(2, 4, 9));
  tight.round();
  tight.round();
  EXPECT_EQ(tight.plan.sequences.size(), 2u);
  EXPECT_EQ(tight.plan.num_steps, 4);
  EXPECT_EQ(tight.scheduler.stats().num_preemptions, 0u);
}

TEST(Scheduler, TokensBehindAStopStringAreNeverFoundInTheCache) {
  House house(multi_step_options(16));
  house.add(House::request(1, 8, 40, 0, 500));
  house.round();
  house.round();  // 16 tokens in one round; the owner finds a stop string in the first of them
  ASSERT_EQ(house.num_heard(1), 17);
  ASSERT_TRUE(house.scheduler.abort(1));
  Request resumed = House::request(2, 8, 40, 0, 500);
  for (const SampledToken& sampled : house.heard[1].tokens) resumed.tokens.push_back(sampled.token);
  house.add(std::move(resumed));
  house.start_round();
  EXPECT_EQ(house.plan.sequences[0].first_position, 8);
}

// Tells how many tokens it is told to keep.
class Listening : public TokenConstraint {
 public:
  explicit Listening(int& num_kept) : num_kept_(num_kept) {}
  Status fill_mask(std::span<uint32_t>) override { return {}; }
  Status accept(TokenId) override { return {}; }
  void rollback(int num_tokens) override { num_kept_ = num_tokens; }

 private:
  int& num_kept_;
};

TEST(Scheduler, AnAbandonedRoundLeavesNothing) {
  SchedulerOptions options = small_options();
  options.num_scheduler_steps = 4;
  House house(options), undisturbed(options);
  int num_kept = -1;
  for (House* each : {&house, &undisturbed}) {
    each->add(House::request(1, 70, 20));
    each->add(House::request(2, 10, 30));
  }
  Request last = House::request(3, 9, 40);
  last.constraint = std::make_unique<Listening>(num_kept);
  house.add(std::move(last));
  undisturbed.add(House::request(3, 9, 40));
  undisturbed.run_to_the_end();
  for (int round = 0; house.scheduler.has_work(); round++) {
    house.start_round();
    const StepPlan before = house.plan;
    // Up to the last step, and not even begun.
    if (round % 3 > 0) house.rank.run(house.scheduler, house.plan, round % 3 * 2);
    num_kept = -1;
    EXPECT_TRUE(house.scheduler.abandon_round().empty());
    if (house.brings(3) > 0) {
      EXPECT_EQ(num_kept, house.num_heard(3));
    }
    house.start_round();
    ASSERT_EQ(house.plan.sequences.size(), before.sequences.size());
    EXPECT_EQ(house.plan.num_steps, before.num_steps);
    for (size_t idx = 0; idx < before.sequences.size(); idx++) {
      EXPECT_EQ(house.plan.sequences[idx].id, before.sequences[idx].id);
      EXPECT_EQ(house.plan.sequences[idx].first_position, before.sequences[idx].first_position);
      EXPECT_EQ(house.plan.sequences[idx].num_tokens, before.sequences[idx].num_tokens);
    }
    house.finish_round();
  }
  for (const RequestId id : {1, 2, 3}) {
    ASSERT_EQ(house.num_heard(id), undisturbed.num_heard(id));
    for (int idx = 0; idx < house.num_heard(id); idx++)
      EXPECT_EQ(house.heard[id].tokens[static_cast<size_t>(idx)].token,
                undisturbed.heard[id].tokens[static_cast<size_t>(idx)].token);
  }
}

TEST(Scheduler, WhoIsAbortedInARoundThatIsAbandonedHearsItsEnd) {
  House house;
  house.add(House::request(1, 10, 20));
  house.round();
  house.start_round();
  EXPECT_FALSE(house.scheduler.abort(1));
  const std::vector<RequestOutput> outputs = house.scheduler.abandon_round();
  ASSERT_EQ(outputs.size(), 1u);
  EXPECT_EQ(outputs[0].finish, FinishReason::kAborted);
  EXPECT_FALSE(house.scheduler.has_work());
  EXPECT_EQ(house.scheduler.stats().kv_usage, 0);
}

TEST(Scheduler, LostBlocksAreComputedAgainAndNeverFound) {
  House house, undisturbed;
  for (House* each : {&house, &undisturbed}) {
    each->add(House::request(1, 30, 20, 0, 500));
    for (int count = 0; count < 5; count++) each->round();
  }
  house.scheduler.forget_blocks();
  house.rank.lose_cache();
  house.start_round();
  EXPECT_EQ(house.brings(1), 30 + 5) << "prompt and answer";
  house.finish_round();
  house.add(House::request(2, 30, 1, 0, 500));  // finds what was computed since
  house.run_to_the_end();
  undisturbed.run_to_the_end();
  ASSERT_EQ(house.num_heard(1), 20);
  for (size_t idx = 0; idx < 20; idx++)
    EXPECT_EQ(house.heard[1].tokens[idx].token, undisturbed.heard[1].tokens[idx].token);
  EXPECT_EQ(house.heard[2].num_cached_tokens, 28);
}

class SwitchedMask : public TokenConstraint {
 public:
  explicit SwitchedMask(const bool& is_ready) : is_ready_(is_ready) {}
  Status fill_mask(std::span<uint32_t>) override { return {}; }
  Status accept(TokenId) override { return {}; }
  void rollback(int) override {}
  bool is_ready_by(std::chrono::steady_clock::time_point) override { return is_ready_; }

 private:
  const bool& is_ready_;
};

TEST(Scheduler, WhoseMaskIsSlowSitsOutAndHoldsNobodyUp) {
  for (const int num_rounds_before : {0, 3}) {  // its first token is the one that waits, or a later one
    SchedulerOptions options = small_options();
    options.num_scheduler_steps = 4;
    House house(options), undisturbed(options);
    bool is_ready = num_rounds_before > 0;
    Request slow = House::request(1, 10, 40);
    slow.constraint = std::make_unique<SwitchedMask>(is_ready);
    house.add(std::move(slow));
    house.add(House::request(2, 10, 30));
    undisturbed.add(House::request(1, 10, 40));
    undisturbed.run_to_the_end();
    for (int idx = 0; idx < num_rounds_before; idx++) house.round();
    is_ready = false;
    house.round();  // in which the mask is found to be missing
    const int num_before = house.num_heard(1);
    while (house.heard[2].finish == FinishReason::kNone) {
      house.start_round();
      EXPECT_EQ(house.brings(1), 0);
      house.finish_round();
    }
    EXPECT_EQ(house.num_heard(1), num_before);
    house.start_round();
    EXPECT_TRUE(house.plan.sequences.empty() && house.scheduler.has_work()) << "nothing but to wait";
    is_ready = true;
    house.run_to_the_end();
    ASSERT_EQ(house.num_heard(1), 40);
    for (size_t idx = 0; idx < 40; idx++)
      EXPECT_EQ(house.heard[1].tokens[idx].token, undisturbed.heard[1].tokens[idx].token);
  }
}

TEST(Scheduler, AnAbortDuringARoundDropsItsTokensAtTheEnd) {
  House house;
  house.add(House::request(1, 4, 20));
  house.add(House::request(2, 4, 20));
  house.round();
  house.start_round();
  EXPECT_FALSE(house.scheduler.abort(1));
  house.finish_round();
  EXPECT_EQ(house.heard[1].finish, FinishReason::kAborted);
  EXPECT_EQ(house.num_heard(1), 1);
  EXPECT_EQ(house.num_heard(2), 2);
  EXPECT_EQ(house.scheduler.blocks().num_held(), 2);
}

TEST(Scheduler, AnAbortBetweenRoundsIsHeardAtOnceAndReturnsTheBlocks) {
  House house;
  house.add(House::request(1, 4, 20));
  house.round();
  house.add(House::request(2, 4, 20));
  for (const RequestId id : {1, 2}) {
    const std::optional<RequestOutput> output = house.scheduler.abort(id);
    ASSERT_TRUE(output);
    EXPECT_EQ(output->finish, FinishReason::kAborted);
  }
  EXPECT_FALSE(house.scheduler.abort(1)) << "finished";
  EXPECT_FALSE(house.scheduler.abort(99)) << "unknown";
  EXPECT_FALSE(house.scheduler.has_work());
  EXPECT_EQ(house.scheduler.blocks().num_held(), 0);
}

TEST(Scheduler, AFailedSequenceEndsAlone) {
  House house;
  house.add(House::request(1, 4, 20));
  house.add(House::request(2, 4, 20));
  house.start_round();
  StepResult result = house.rank.run(house.scheduler, house.plan, 1);
  result.sequences[0] = {.id = 1, .finish = FinishReason::kError, .error = "its logits are not numbers"};
  house.hear(house.scheduler.commit(std::move(result)));
  EXPECT_EQ(house.heard[1].finish, FinishReason::kError);
  EXPECT_EQ(house.heard[1].error, "its logits are not numbers");
  EXPECT_TRUE(house.heard[1].is_own_fault);
  house.run_to_the_end();
  EXPECT_EQ(house.num_heard(2), 20);
}

TEST(Scheduler, AFailedStepCanEndEverybody) {
  House house;
  for (RequestId id = 1; id <= 12; id++) house.add(House::request(id, 4, 20));
  house.round();
  house.start_round();
  house.hear(house.scheduler.finish_all(FinishReason::kError, "the device is gone"));
  for (RequestId id = 1; id <= 12; id++) {
    EXPECT_EQ(house.heard[id].error, "the device is gone");
    EXPECT_FALSE(house.heard[id].is_own_fault);
  }
  EXPECT_FALSE(house.scheduler.has_work());
  EXPECT_EQ(house.scheduler.blocks().num_held(), 0);
  house.add(House::request(13, 4, 5));
  house.run_to_the_end();
  EXPECT_EQ(house.num_heard(13), 5);
}

TEST(Scheduler, DrainingItRefusesNewcomersAndServesTheRest) {
  House house;
  house.add(House::request(1, 4, 5));
  house.scheduler.drain();
  const Status status = house.scheduler.add(House::request(2, 4, 5));
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kUnavailable);
  house.run_to_the_end();
  EXPECT_EQ(house.num_heard(1), 5);
}

void expect_refused(House& house, Request request, const std::string& parameter,
                    const std::vector<std::string>& numbers) {
  const Status status = house.scheduler.add(std::move(request));
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(status.error().parameter, parameter);
  for (const std::string& number : numbers)
    EXPECT_NE(status.error().message.find(number), std::string::npos) << status.error().message;
  EXPECT_FALSE(house.scheduler.has_work());
}

TEST(Scheduler, RefusesWithNumbersWhatCanNeverRun) {
  SchedulerOptions options = small_options();
  options.cache.num_blocks = 20;
  House house(options);
  expect_refused(house, House::request(1, 256, 5), "prompt", {"256"});
  expect_refused(house, House::request(1, 60, 22), "max_tokens", {"60", "22", "21 cache blocks", "20"});
  expect_refused(house, House::request(1, 0, 5), "prompt", {"0"});
  Request done = House::request(1, 10, 5);
  done.num_prompt_tokens = 5;
  expect_refused(house, std::move(done), "max_tokens", {"5"});
  house.add(House::request(1, 60, 21));
  house.run_to_the_end();
  EXPECT_EQ(house.num_heard(1), 21);
}

TEST(Scheduler, MaxModelLenEndsAnAnswer) {
  House house;
  house.add(House::request(1, 200, 1000));
  house.run_to_the_end();
  EXPECT_EQ(house.num_heard(1), 56);
  EXPECT_EQ(house.heard[1].finish, FinishReason::kLength);
}

TEST(Scheduler, AStopIdEndsAnAnswer) {
  House house;
  Request request = House::request(1, 8, 100);
  const std::vector<TokenId> answer = FakeModel{}.answer(request.tokens, 8, request.sampling);
  request.sampling.stop_token_ids = {answer[5]};
  const auto expected = std::ranges::find(answer, answer[5]) - answer.begin() + 1;
  house.add(std::move(request));
  house.run_to_the_end();
  EXPECT_EQ(house.num_heard(1), expected);
  EXPECT_EQ(house.heard[1].finish, FinishReason::kStop);
}

TEST(Scheduler, ARankThatGoesOnBehindTheEndIsCaught) {
  House house;
  Request request = House::request(1, 4, 5);
  request.sampling.stop_token_ids = {7};
  house.add(std::move(request));
  house.start_round();
  StepResult result{.round = house.plan.round, .sequences = {{.id = 1, .tokens = {{.token = 7}}}}};
  EXPECT_DEATH(house.scheduler.commit(std::move(result)), "request 1 ends with 0, and should with 1");
}

TEST(Scheduler, CountsWhatItDoes) {
  House house;
  house.add(House::request(1, 10, 5));
  house.add(House::request(2, 20, 3));
  house.round();
  const ReplicaStats stats = house.scheduler.stats();
  EXPECT_EQ(stats.num_running, 2);
  EXPECT_EQ(stats.num_waiting, 0);
  EXPECT_DOUBLE_EQ(stats.kv_usage, 8.0 / 64);
  house.run_to_the_end();
  const ReplicaStats end = house.scheduler.stats();
  EXPECT_EQ(end.prompt_tokens, 30u);
  EXPECT_EQ(end.generation_tokens, 8u);
  EXPECT_EQ(end.num_rounds, 5u);
  EXPECT_EQ(end.num_steps, 5u);
  EXPECT_EQ(end.kv_usage, 0);
}

// It takes 10; the bound leaves room for sanitizers and neighbours.
TEST(Scheduler, PlansAndCommits256SequencesInMicroseconds) {
  using Clock = std::chrono::steady_clock;
  SchedulerOptions options{.max_num_batched_tokens = 2048,
                           .max_num_seqs = 256,
                           .max_model_len = 4096,
                           .cache = {.num_blocks = 8192, .block_size = 64}};
  Scheduler scheduler(options);
  for (RequestId id = 1; id <= 256; id++) ASSERT_TRUE(scheduler.add(House::request(id, 8, 1000)));
  Clock::duration fastest = std::chrono::hours(1);
  for (int count = 0; count < 300; count++) {
    const Clock::time_point start = Clock::now();
    const StepPlan plan = scheduler.plan();
    const Clock::duration planned = Clock::now() - start;
    ASSERT_EQ(plan.sequences.size(), 256u);
    StepResult result{.round = plan.round};
    for (const PlannedSequence& sequence : plan.sequences)
      result.sequences.push_back({.id = sequence.id, .tokens = {{.token = 1}}});
    const Clock::time_point commit = Clock::now();
    ASSERT_EQ(scheduler.commit(std::move(result)).size(), 256u);
    fastest = std::min(fastest, planned + (Clock::now() - commit));
  }
  EXPECT_LT(fastest, std::chrono::microseconds(1000));
}

// How many of a thousand requests of one client end before the one of another, which came after them all.
int num_served_before(uint64_t many, uint64_t one) {
  SchedulerOptions options = small_options();
  options.max_num_seqs = 4;
  House house(options);
  for (RequestId id = 1; id <= 1000; id++) {
    Request request = House::request(id, 8, 4);
    request.client = many;
    house.add(std::move(request));
  }
  for (int round = 0; round < 20; round++) house.round();
  Request last = House::request(5000, 8, 4);
  last.client = one;
  house.add(std::move(last));
  while (!house.heard.contains(5000) || house.heard[5000].finish == FinishReason::kNone) house.round();
  return static_cast<int>(std::ranges::count_if(house.heard, [](const auto& heard) {
    return heard.first != 5000 && heard.second.finish != FinishReason::kNone;
  }));
}

TEST(Scheduler, AThousandRequestsOfOneClientDoNotStarveTheOneOfAnother) {
  EXPECT_EQ(num_served_before(0, 0), 1000) << "without clients it is by arrival";
  EXPECT_EQ(num_served_before(1, 1), 1000) << "a client's own stay in their order";
  EXPECT_LT(num_served_before(1, 2), 40);
}

TEST(Scheduler, ClientsShareTheirTurnsHoweverManyTheyBring) {
  SchedulerOptions options = small_options();
  options.max_num_seqs = 1;
  House house(options);
  std::vector<RequestId> order;
  for (RequestId id = 1; id <= 30; id++) {
    Request request = House::request(id, 8, 2);
    request.client = id <= 20 ? 1 : id <= 28 ? 2 : 3;  // 20, 8 and 2 requests
    house.add(std::move(request));
  }
  std::map<uint64_t, int> among_first;
  for (int num_ended = 0; num_ended < 9;) {
    house.round();
    for (const auto& [id, output] : house.heard)
      if (output.finish != FinishReason::kNone && std::ranges::find(order, id) == order.end()) {
        order.push_back(id);
        among_first[id <= 20 ? 1 : id <= 28 ? 2 : 3]++;
        num_ended++;
      }
  }
  EXPECT_LE(among_first[1], 4);
  EXPECT_LE(among_first[2], 4);
  EXPECT_EQ(among_first[3], 2);
}

}  // namespace
}  // namespace cachalot
