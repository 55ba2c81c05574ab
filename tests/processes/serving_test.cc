// Replicas that step together, served and asked over HTTP.
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <future>

#include "processes/api_client.h"
#include "processes/served_group.h"

namespace cachalot::test {
namespace {

using std::chrono::seconds;
using End = StreamedAnswer::End;

const std::vector<std::string> kQuestions{
    "Which one is larger? 3.8 or 3.11",
    "What is 17 + 25?",
    "What is 4 + 4?",
    "Which one is larger? 9.9 or 9.11",
    "12 + 7 =",
    "The answer is",
    "Equal decimals:",
    "What is 250 + 250?",
};

// What a server says to every question, all asked at once, the questions dealt out to its replicas.
std::vector<std::string> answers_of(const ServedGroup& group, const ApiClient& client) {
  std::vector<std::future<StreamedAnswer>> asked;
  for (size_t idx = 0; idx < kQuestions.size(); idx++) {
    const uint16_t port = group.port(static_cast<int>(idx) % group.num_replicas());
    asked.push_back(std::async(std::launch::async, [&client, port, idx] {
      return client.stream(port, completion_body(boost::json::value(kQuestions[idx]), 40 + 5 * static_cast<int>(idx)));
    }));
  }
  std::vector<std::string> texts;
  for (auto& answer : asked) {
    const StreamedAnswer got = answer.get();
    EXPECT_EQ(got.end, End::kComplete) << got.error;
    texts.push_back(got.text);
  }
  return texts;
}

TEST(ServedGroup, AnswersConcurrentRequestsAsOneRankDoes) {
  const std::vector<std::string> flags{"--dtype", "float32", "--max-num-batched-tokens", "64"};
  const ApiClient client;
  std::vector<std::string> alone;
  {
    const ServedGroup one({.layout = {.dp_size = 1, .tp_size = 1}, .more_flags = flags});
    ASSERT_TRUE(one.ready());
    alone = answers_of(one, client);
  }
  for (const Layout layout : {Layout{2, 2}, Layout{2, 2, false}, Layout{4, 1}}) {
    const ServedGroup group({.layout = layout, .more_flags = flags});
    ASSERT_TRUE(group.ready());
    EXPECT_EQ(answers_of(group, client), alone) << "DP " << layout.dp_size << ", TP " << layout.tp_size;
  }
}

TEST(ServedGroup, AgreesOnceForEachRoundOfSeveralStepsAlsoWhereAReplicaIsIdle) {
  ServedGroup group({.more_flags = {"--num-scheduler-steps", "8"}});
  ASSERT_TRUE(group.ready());
  const ApiClient client;
  const std::vector<std::string> ranks{R"(rank="0")", R"(rank="1")", R"(rank="2")", R"(rank="3")"};
  const auto read = [&](const char* name) {
    std::vector<double> values;
    for (size_t rank = 0; rank < ranks.size(); rank++)
      values.push_back(client.metric(group.port(static_cast<int>(rank) / 2), name, ranks[rank]));
    return values;
  };
  const std::vector<double> agreements = read("cachalot:agreements_total"), steps = read("cachalot:steps_total"),
                            brought = read("cachalot:moe_rows_total");
  // The prompt's step gives the first token, eight rounds of eight steps the others.
  const auto answer = client.complete(group.port(1), completion_body(boost::json::value("What is 17 + 25?"), 65));
  ASSERT_TRUE(answer && answer->status == 200);
  // Each rank writes down its last round a moment after the answer.
  const auto lags_behind = [&] {
    const std::vector<double> now = read("cachalot:steps_total");
    return !std::ranges::equal(now, steps, [](double after, double before) { return after >= before + 65; });
  };
  for (int attempt = 0; attempt < 100 && lags_behind(); attempt++)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const std::vector<double> agreements_after = read("cachalot:agreements_total"),
                            steps_after = read("cachalot:steps_total"), brought_after = read("cachalot:moe_rows_total");
  for (size_t rank = 0; rank < ranks.size(); rank++) {
    EXPECT_EQ(agreements_after[rank] - agreements[rank], 1 + 8) << rank;
    EXPECT_EQ(steps_after[rank] - steps[rank], 1 + 64) << rank;
  }
  EXPECT_EQ(brought_after[0] + brought_after[1], brought[0] + brought[1]) << "the idle replica brings nothing";
  EXPECT_GT(brought_after[2], brought[2]);
}

TEST(ServedGroup, EndsTheRequestOfAClientThatGoesAway) {
  ServedGroup group({});
  ASSERT_TRUE(group.ready());
  const ApiClient client;
  for (const int dp_rank : {0, 1}) {
    const StreamedAnswer left = client.stream(group.port(dp_rank), completion_body(boost::json::value("What is"), 1900),
                                              [](int count) { return count < 5; });
    EXPECT_EQ(left.num_tokens, 5);
    double running = -1;
    for (int attempt = 0; attempt < 250 && running != 0; attempt++) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      running = client.metric(group.port(dp_rank), "vllm:num_requests_running");
    }
    EXPECT_EQ(running, 0);
    EXPECT_LT(client.metric(group.port(dp_rank), "vllm:generation_tokens_total"), 1900);
  }
  EXPECT_EQ(client.stream(group.port(0), completion_body(boost::json::value("What is"), 5)).end, End::kComplete);
}

TEST(ServedGroup, EndsInOrderWhenAllAreToldTo) {
  ServedGroup group({});
  ASSERT_TRUE(group.ready());
  const ApiClient client;
  std::promise<void> running;
  auto answer = std::async(std::launch::async, [&] {
    return client.stream(group.port(1), completion_body(boost::json::value("What is"), 200), [&](int count) {
      if (count == 1) running.set_value();
      return true;
    });
  });
  running.get_future().wait();
  for (int dp_rank = 0; dp_rank < 2; dp_rank++) group.replica(dp_rank).signal(SIGTERM);
  EXPECT_EQ(answer.get().end, End::kComplete) << "a running answer is finished first";
  for (int dp_rank = 0; dp_rank < 2; dp_rank++) {
    EXPECT_EQ(group.replica(dp_rank).wait(seconds(20)), 0) << group.output();
    EXPECT_TRUE(group.replica(dp_rank).wait_for_silence(seconds(2))) << "a rank was left behind";
  }
  EXPECT_EQ(group.output().find(" E "), std::string::npos) << group.output();
}

TEST(ServedGroup, RefusesWorkAfterALossUntilSomebodyStopsIt) {
  ServedGroup group({.more_flags = {"--wait-on-failure"}});
  ASSERT_TRUE(group.ready());
  const ApiClient client;
  kill(group.pid_of(3), SIGKILL);
  for (int dp_rank = 0; dp_rank < 2; dp_rank++) {
    Program& replica = group.replica(dp_rank);
    ASSERT_TRUE(replica.wait_for_line("rank 3 (replica 1, tp 1", seconds(5))) << group.output();
    for (int attempt = 0; attempt < 100 && client.get(group.port(dp_rank), "/health")->status == 200; attempt++)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    const auto health = client.get(group.port(dp_rank), "/health");
    ASSERT_TRUE(health) << group.output();
    EXPECT_EQ(health->status, 503);
    const StreamedAnswer refused = client.stream(group.port(dp_rank), completion_body(boost::json::value("What"), 5));
    EXPECT_EQ(refused.end, End::kRefused);
    EXPECT_EQ(refused.status, 503);
    EXPECT_TRUE(refused.has_retry_after);
    EXPECT_FALSE(replica.wait(std::chrono::milliseconds(0))) << "it waits";
    replica.signal(SIGTERM);
    EXPECT_TRUE(replica.wait(seconds(10))) << group.output();
    EXPECT_TRUE(replica.wait_for_silence(seconds(2))) << "a rank was left behind";
  }
}

}  // namespace
}  // namespace cachalot::test
