// The router as a program before two replicas of one rank each, as an operator would start them.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>

#include <array>
#include <atomic>
#include <boost/json.hpp>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <regex>
#include <thread>
#include <vector>

#include "base/process_test_util.h"
#include "base/text.h"
#include "http/client.h"
#include "http/server.h"
#include "processes/api_client.h"
#include "processes/program.h"
#include "processes/served_group.h"

namespace cachalot::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;
using testing::HasSubstr;
using End = StreamedAnswer::End;

class Router : public testing::Test {
 protected:
  Router() {
    std::vector<std::string> words{"router", "--server-urls"};
    for (const uint16_t port : ports_) words.push_back(fmt::format("http://127.0.0.1:{}", port));
    for (const std::string& word : {std::string("--host"), std::string("127.0.0.1"), std::string("--port"),
                                    std::to_string(port_), std::string("--model"), nano_folder()})
      words.push_back(word);
    router_ = std::make_unique<Program>(words);
    for (size_t idx = 0; idx < ports_.size(); idx++) start_replica(idx);
    EXPECT_TRUE(wait_until_up(2)) << output();
  }

  void start_replica(size_t idx) {
    replicas_[idx] = std::make_unique<Program>(std::vector<std::string>{
        "serve", "--model", nano_folder(), "--host", "127.0.0.1", "--port", std::to_string(ports_[idx]), "--threads",
        "1", "--num-gpu-blocks-override", "256", "--max-model-len", "2048", "--tool-call-parser", "deepseek_v31"});
  }
  // Until so many are up, no more and no less.
  bool wait_until_up(int64_t num_replicas) {
    const auto deadline = steady_clock::now() + seconds(60);
    while (steady_clock::now() < deadline) {
      if (num_up() == num_replicas) return true;
      std::this_thread::sleep_for(milliseconds(20));
    }
    return false;
  }
  int64_t num_up() {
    const auto page = client_.get(port_, "/replicas");
    if (!page) return -1;
    int64_t num_up = 0;
    const boost::json::value status = boost::json::parse(page->body);
    for (const auto& replica : status.at("replicas").as_array()) num_up += replica.at("healthy").as_bool() ? 1 : 0;
    return num_up;
  }
  std::string output() const {
    std::string all = "router:\n" + router_->output();
    for (const auto& replica : replicas_) all += "replica:\n" + (replica ? replica->output() : "");
    return all;
  }

  const ApiClient client_;
  const uint16_t port_ = free_port();
  const std::array<uint16_t, 2> ports_{free_port(), free_port()};
  std::array<std::unique_ptr<Program>, 2> replicas_;
  std::unique_ptr<Program> router_;
};

TEST_F(Router, GivesTheReplicasAnswers) {
  const boost::json::object question = completion_body("Which one is larger? 3.8 or 3.11", 48);
  const auto direct = client_.stream(ports_[0], question);
  ASSERT_EQ(direct.end, End::kComplete);
  for (int request = 0; request < 4; request++) {
    const auto routed = client_.stream(port_, question);
    EXPECT_EQ(routed.end, End::kComplete);
    EXPECT_EQ(routed.text, direct.text);
  }
  for (const uint16_t port : ports_) EXPECT_GT(client_.metric(port, "vllm:prompt_tokens_total"), 0);
  EXPECT_THAT(client_.get(port_, "/v1/models")->body, HasSubstr(nano_folder()));
  boost::json::object other = question;
  other["model"] = "other";
  const auto unknown = client_.complete(port_, other);
  ASSERT_TRUE(unknown);
  EXPECT_EQ(unknown->status, 404);
  EXPECT_THAT(unknown->body, HasSubstr("model_not_found"));
  EXPECT_EQ(client_.get(port_, "/health")->status, 200);
}

// Clients that ask one thing after the other until they are told to stop.
struct Crowd {
  Crowd(const ApiClient& client, uint16_t port, int num_clients) {
    for (int idx = 0; idx < num_clients; idx++)
      threads.emplace_back([this, &client, port, idx](const std::stop_token& stopped) {
        for (int request = 0; !stopped.stop_requested(); request++) {
          const auto body = completion_body(boost::json::value(fmt::format("What is {} + {}?", idx, request)), 24);
          if (idx % 2 == 0)
            ask(client, port, body);
          else
            stream(client, port, body);
        }
      });
  }
  void ask(const ApiClient& client, uint16_t port, const boost::json::object& body) {
    const auto answer = client.complete(port, body);
    num_answers++;
    if (!answer || answer->status != 200) {
      num_lost++;
      ADD_FAILURE() << "a request was lost: "
                    << (answer ? fmt::format("{} {}", answer->status, answer->body) : answer.error().message);
    }
  }
  void stream(const ApiClient& client, uint16_t port, const boost::json::object& body) {
    const auto answer = client.stream(port, body);
    num_answers++;
    if (answer.end == End::kErrorEvent && !answer.text.empty())
      num_broken++;
    else if (answer.end != End::kComplete) {
      num_lost++;
      ADD_FAILURE() << "a stream was lost: end " << static_cast<int>(answer.end) << ", text '" << answer.text << "'";
    }
  }

  std::atomic<int> num_answers{0};
  std::atomic<int> num_broken{0};  // streams that had begun, and ended with an event that says so
  std::atomic<int> num_lost{0};    // anything else but a whole answer
  std::vector<std::jthread> threads;
};

TEST_F(Router, LosesNoUnansweredRequestWhenAReplicaIsKilledAndStartedAgain) {
  Crowd crowd(client_, port_, 8);
  const auto wait_for_answers = [&](int number) {
    const int enough = crowd.num_answers + number;
    for (int time = 0; crowd.num_answers < enough && time < 1000; time++) std::this_thread::sleep_for(milliseconds(10));
  };
  for (int round = 0; round < 2; round++) {
    wait_for_answers(12);
    replicas_[0]->signal(SIGKILL);
    ASSERT_TRUE(replicas_[0]->wait(seconds(5)));
    wait_for_answers(12);
    ASSERT_TRUE(wait_until_up(1)) << output();
    start_replica(0);
    ASSERT_TRUE(wait_until_up(2)) << output();
  }
  wait_for_answers(12);
  crowd.threads.clear();
  EXPECT_EQ(crowd.num_lost, 0) << output();
  EXPECT_EQ(crowd.num_broken, 0) << "another replica goes on with them";
  EXPECT_GT(crowd.num_answers, 5 * 12 - 1);
  EXPECT_GE(client_.metric(port_, "cachalot:router_ejections_total"), 2);
}

// Requests whose answers take a while.
struct LongKind {
  const char* path;
  std::string body;
};
std::vector<LongKind> long_kinds() {
  const std::string stream = R"("stream":true,)", prompt = R"({"prompt":"Count from one to fifty in words: ",)";
  const std::string chat = R"({"messages":[{"role":"user","content":"Which one is larger? 3.8 or 3.11"}],)";
  const std::string schema =
      R"({"type":"object","properties":{"a":{"type":"array","items":{"type":"integer"},"minItems":30,
      "maxItems":40}},"required":["a"],"additionalProperties":false})";
  const std::string tool = R"("name":"weather","description":"Of a city","parameters":{"type":"object","properties":
      {"city":{"type":"string","minLength":60}},"required":["city"]})";
  const char *completions = "/v1/completions", *chats = "/v1/chat/completions";
  return {
      {completions, prompt + stream + R"("max_tokens":120,"temperature":0,"ignore_eos":true})"},
      {completions, prompt + stream + R"("max_tokens":120,"seed":5,"temperature":1.2,"ignore_eos":true,"logprobs":2})"},
      {completions, prompt + stream + R"("max_tokens":80,"n":2,"seed":6,"ignore_eos":true,"return_token_ids":true})"},
      {completions, prompt + stream + R"("max_tokens":80,"echo":true,"logprobs":1,"temperature":0,"ignore_eos":true})"},
      {completions, prompt + stream + R"("max_tokens":100,"seed":7,"repetition_penalty":1.3,"frequency_penalty":0.4,
          "presence_penalty":0.2,"logit_bias":{"100":2},"min_tokens":90,"bad_words":["two"],
          "stream_options":{"include_usage":true,"continuous_usage_stats":true}})"},
      {completions,
       prompt + stream + R"("max_tokens":100,"temperature":0.9,"seed":8,"guided_regex":"([a-z]{3} ){40}x"})"},
      {completions, prompt + R"("max_tokens":120,"temperature":0,"ignore_eos":true})"},
      {completions, prompt + R"("max_tokens":60,"temperature":0.8,"seed":3,"n":2,"best_of":3,"ignore_eos":true})"},
      {completions, prompt + R"("max_tokens":60,"temperature":0,"prompt_logprobs":1,"logprobs":1,"ignore_eos":true})"},
      {chats, chat + stream + R"("max_tokens":160,"temperature":0,"min_tokens":100,"logprobs":true,"top_logprobs":1})"},
      {chats, chat + stream + R"("max_tokens":160,"seed":9,"thinking_token_budget":40,"response_format":
          {"type":"json_schema","json_schema":{"name":"a","schema":)" +
                  schema + "}}}"},
      {chats, chat + stream +
                  R"("max_tokens":160,"seed":10,"tool_choice":"required","tools":[{"type":"function","function":{)" +
                  tool + "}}]}"},
      {chats, chat + R"("max_tokens":100,"seed":11,"ignore_eos":true})"},
      {"/v1/responses",
       R"({"input":"Which one is larger? 3.8 or 3.11","max_output_tokens":120,"temperature":0,"ignore_eos":true,
          "include":["message.output_text.logprobs"],"stream":true})"},
      {"/v1/messages", R"({"messages":[{"role":"user","content":"Which one is larger? 3.8 or 3.11"}],"max_tokens":120,
          "temperature":0,"stream":true})"},
  };
}

// What a client gets, without what is each run's own, and each choice's events by themselves.
std::string comparable(const http::Response& response) {
  std::string text = response.body;
  for (const auto& [what, name] :
       {std::pair("\"(created|created_at|completed_at|cached_tokens|input_tokens|cache_read_input_tokens)\":[0-9]+",
                  "own"),
        std::pair("(resp|msg|rs|fc|fco)_[0-9a-f]{20,}", "id"), std::pair("(call|toolu)_[0-9a-f]{24}", "call")})
    text = std::regex_replace(text, std::regex(what), name);
  if (!text.contains("\"index\":1,\"text\"") || !text.starts_with("data:")) return text;
  text = std::regex_replace(text, std::regex(",\"usage\":\\{[^}]*\\}[^}]*\\}[^}]*\\}"), "");
  std::vector<std::string> events;
  for (size_t at = 0; at < text.size(); at = text.find("\n\n", at) + 2)
    events.push_back(text.substr(at, text.find("\n\n", at) - at));
  std::ranges::stable_sort(events, {}, [](const std::string& event) {
    const size_t at = event.find("\"index\":");
    return at == event.npos ? 'z' : event[at + 8];
  });
  return fmt::format("{}", fmt::join(events, "\n"));
}

// CACHALOT_TAKEOVER_KILLS: how often; 3 unless given.
TEST_F(Router, AnswersOfEveryKindOutliveTheirReplica) {
  const http::IoThreads threads(1);
  const http::Client http(threads, {.idle_timeout = seconds(60)});
  const std::vector<LongKind> kinds = long_kinds();
  const auto ask = [&](size_t idx) {
    auto url = *http::parse_url(fmt::format("http://127.0.0.1:{}{}", port_, kinds[idx].path));
    return http.start({.method = "POST",
                       .url = url,
                       .headers = {{"X-Request-Id", fmt::format("kind-{}", idx)}},
                       .body = kinds[idx].body});
  };
  std::vector<std::string> undisturbed;
  for (size_t idx = 0; idx < kinds.size(); idx++) {
    const auto answer = ask(idx).wait();
    ASSERT_TRUE(answer) << idx;
    ASSERT_EQ(answer->status, 200) << idx << ": " << answer->body;
    undisturbed.push_back(comparable(*answer));
  }
  const char* wish = std::getenv("CACHALOT_TAKEOVER_KILLS");
  const int num_kills = parse_number<int>(wish ? wish : "").value_or(3);
  for (int kill = 0; kill < num_kills; kill++) {
    const size_t victim = static_cast<size_t>(kill / 3 + kill) % 2;
    std::vector<http::Running<Result<http::Response>>> running;
    for (size_t idx = 0; idx < kinds.size(); idx++) running.push_back(ask(idx));
    std::this_thread::sleep_for(milliseconds(60 + 90 * kill % 500));
    // Killed; silent; told to end, and not to wait for its answers.
    const int how = std::array{SIGKILL, SIGSTOP, SIGTERM}[static_cast<size_t>(kill) % 3];
    replicas_[victim]->signal(how);
    if (how == SIGTERM) {
      std::this_thread::sleep_for(milliseconds(20));
      replicas_[victim]->signal(SIGTERM);
    }
    for (size_t idx = 0; idx < kinds.size(); idx++) {
      const auto answer = running[idx].wait();
      ASSERT_TRUE(answer) << idx << ": " << answer.error().message << output();
      EXPECT_EQ(comparable(*answer), undisturbed[idx]) << "kind " << idx;
    }
    if (how == SIGSTOP) replicas_[victim]->signal(SIGKILL);
    ASSERT_TRUE(replicas_[victim]->wait(seconds(5)));
    ASSERT_TRUE(wait_until_up(1)) << output();
    start_replica(victim);
    ASSERT_TRUE(wait_until_up(2)) << output();
  }
  EXPECT_GT(client_.metric(port_, "cachalot:router_takeovers_total"), 0) << output();
}

TEST_F(Router, AnswersWithin2SecondsWhenEveryReplicaIsStopped) {
  for (const auto& replica : replicas_) replica->signal(SIGSTOP);
  std::this_thread::sleep_for(
      milliseconds(200));  // until they stand still: an answer that had begun would wait for them
  OwnTime time;
  const auto start = steady_clock::now();
  const auto answer = client_.complete(port_, completion_body("What is 17 + 25?", 8));
  EXPECT_LT(time.since(start), seconds(2));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 503);
  EXPECT_TRUE(answer->headers.contains("Retry-After"));
  EXPECT_EQ(client_.get(port_, "/health")->status, 503);
  EXPECT_THAT(client_.get(port_, "/replicas")->body, HasSubstr("no answer to /load within 1000 ms"));
  for (const auto& replica : replicas_) replica->signal(SIGCONT);
  EXPECT_TRUE(wait_until_up(2)) << output();
  EXPECT_EQ(client_.complete(port_, completion_body("What is 17 + 25?", 8))->status, 200);
}

TEST_F(Router, DrainsWhenItIsToldToStop) {
  std::jthread reader;
  StreamedAnswer answer;
  std::atomic<bool> has_begun = false;
  reader = std::jthread([&] {
    answer = client_.stream(port_, completion_body("What is 17 + 25?", 200), [&](int) { return has_begun = true; });
  });
  while (!has_begun) std::this_thread::sleep_for(milliseconds(10));
  router_->signal(SIGTERM);
  reader.join();
  EXPECT_EQ(answer.end, End::kComplete);
  EXPECT_EQ(router_->wait(seconds(10)), 0) << output();
}

// A virtual machine that is paused, say: the answers came meanwhile.
TEST(RouterProcess, HoldsNobodySilentForATimeInWhichItWasHeldUpItself) {
  const http::IoThreads threads(1);
  http::Server replica(threads, {.host = "127.0.0.1"});
  replica.route("GET", "/load", [](http::ServerCall& call) -> http::awaitable<void> {
    boost::asio::steady_timer timer(co_await boost::asio::this_coro::executor, milliseconds(50));
    co_await timer.async_wait(http::kResult);  // so that a question is under way at nearly all times
    co_await call.respond(http::Response::json(200, "{}"));
  });
  ASSERT_TRUE(replica.start());
  Program router({"router", "--host", "127.0.0.1", "--port", "0", "--health-interval", "0.001", "--health-timeout",
                  "0.5", "--server-urls", fmt::format("http://127.0.0.1:{}", replica.port())});
  ASSERT_TRUE(router.wait_for_line("takes requests", seconds(60))) << router.output();
  for (int round = 0; round < 5; round++) {
    router.signal(SIGSTOP);
    std::this_thread::sleep_for(milliseconds(700));
    router.signal(SIGCONT);
    std::this_thread::sleep_for(milliseconds(100));
  }
  EXPECT_THAT(router.output(), testing::Not(HasSubstr("gets no more requests")));
}

}  // namespace
}  // namespace cachalot::test
