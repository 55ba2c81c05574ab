#include "serve/leader.h"

#include <gtest/gtest.h>

namespace cachalot {
namespace {

using namespace std::chrono_literals;  // NOLINT(google-build-using-namespace)

struct LeaderTest : testing::Test {
  LeaderMail mail(RequestId id, int max_tokens) {
    Request request{.id = id, .tokens = {1, 2, 3}, .num_prompt_tokens = 3};
    request.sampling.max_tokens = max_tokens;
    LeaderMail mail;
    mail.num_tokens = 3;
    mail.submissions.push_back({std::move(request), [this](const RequestOutput& output) { heard.push_back(output); }});
    return mail;
  }
  void run_round() {
    leader.begin_round(now);
    StepResult result{.round = leader.plan().round};
    for (const PlannedSequence& sequence : leader.plan().sequences) {
      const int num_generated = static_cast<int>(sequence.tokens.size()) + 1 - sequence.num_prompt_tokens;
      result.sequences.push_back(
          {.id = sequence.id, .tokens = {{.token = 7}}, .finish = finish_reason(*sequence.sampling, num_generated, 7)});
    }
    leader.commit(std::move(result));
    leader.deliver(now);
  }

  const Leader::Time now{1000s};
  Metrics metrics{{.model_name = "toy"}};
  Leader leader{{.max_model_len = 64, .cache = {.num_blocks = 8, .block_size = 16}}, metrics};
  std::vector<RequestOutput> heard;
};

TEST_F(LeaderTest, SaysNothingUntilItHasWorkOrIsCalled) {
  EXPECT_FALSE(leader.next_wish());
  leader.hear_call();
  const auto called = leader.next_wish();
  ASSERT_TRUE(called);
  EXPECT_EQ(called->num_rows, 0);
  EXPECT_FALSE(leader.next_wish()) << "once for each call";
  leader.take(mail(1, 2), now);
  const auto wish = leader.next_wish();
  ASSERT_TRUE(wish);
  EXPECT_EQ(wish->num_rows, 3);
}

TEST_F(LeaderTest, ItsListenersHearTheirTokensAndTheEnd) {
  leader.take(mail(1, 2), now);
  for (int round = 0; round < 2; round++) {
    ASSERT_TRUE(leader.next_wish());
    run_round();
  }
  ASSERT_EQ(heard.size(), 2u);
  EXPECT_EQ(heard[0].finish, FinishReason::kNone);
  EXPECT_EQ(heard[1].finish, FinishReason::kLength);
  EXPECT_EQ(leader.num_streams(), 0u);
  EXPECT_FALSE(leader.next_wish());
}

TEST_F(LeaderTest, WhoIsGoneBeforeItIsLookedAtNeverStarts) {
  LeaderMail both = mail(1, 2);
  both.aborts = {1};
  leader.take(std::move(both), now);
  ASSERT_EQ(heard.size(), 1u);
  EXPECT_EQ(heard[0].finish, FinishReason::kAborted);
  EXPECT_FALSE(leader.has_work());
}

TEST_F(LeaderTest, TellsTheOthersOnceThatItLeaves) {
  leader.take(mail(1, 2), now);
  leader.take({.end_all = true, .leave = true}, now);
  ASSERT_EQ(heard.size(), 1u);
  const auto wish = leader.next_wish();
  ASSERT_TRUE(wish);
  EXPECT_TRUE(wish->leaving);
  leader.take({.leave = true}, now);
  EXPECT_FALSE(leader.next_wish());
  leader.hear_call();
  EXPECT_TRUE(leader.next_wish()->leaving) << "to whoever asks, again";
}

TEST(QueueLimits, WhoCanStartAtOnceDoesNotWait) {
  const QueueLimits limits{.max_requests = 2};
  LeaderMail mailbox;
  EXPECT_TRUE(check_queue(limits, 4, {.num_running = 3}, mailbox, 5));
  EXPECT_TRUE(check_queue(limits, 4, {.num_running = 4, .num_waiting = 1}, mailbox, 5));
  EXPECT_EQ(check_queue(limits, 4, {.num_running = 4, .num_waiting = 2}, mailbox, 5).error().parameter,
            "max_num_queued_reqs");
  EXPECT_TRUE(check_queue(limits, 4, {.num_running = 4, .num_waiting = 2}, mailbox, 5, true))
      << "its client's only one";
  EXPECT_FALSE(check_queue(limits, 4, {.num_running = 4, .num_waiting = 4}, mailbox, 5, true));
  const ReplicaStats full{.num_running = 4, .num_waiting = 1, .num_waiting_tokens = 96};
  EXPECT_EQ(check_queue({.max_tokens = 100}, 4, full, mailbox, 5).error().parameter, "max_num_queued_tokens");
}

}  // namespace
}  // namespace cachalot
