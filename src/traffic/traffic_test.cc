#include "traffic/traffic.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cmath>
#include <fstream>
#include <map>
#include <mutex>
#include <numeric>

#include "base/folder_test_util.h"
#include "http/server.h"
#include "traffic/instant_server.h"
#include "traffic/serving_figure.h"

namespace cachalot {
namespace {

namespace json = boost::json;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(Arrivals, ComeAtTheirRate) {
  for (const double burstiness : {0.2, 1.0, 5.0, kInfinity}) {
    const std::vector<double> times = arrival_times({.rate = 10, .burstiness = burstiness}, 1000, 7);
    ASSERT_EQ(times.size(), 1000u);
    EXPECT_TRUE(std::ranges::is_sorted(times));
    EXPECT_NEAR(times.back(), 100, 1e-6);
    // The gaps' deviation over their mean is 1 / sqrt(burstiness).
    double square_sum = 0;
    for (size_t idx = 1; idx < times.size(); idx++) square_sum += std::pow(times[idx] - times[idx - 1] - 0.1, 2);
    EXPECT_NEAR(std::sqrt(square_sum / 999) / 0.1, std::isinf(burstiness) ? 0 : 1 / std::sqrt(burstiness),
                0.25 / std::sqrt(burstiness) + 1e-9);
  }
  EXPECT_EQ(arrival_times({}, 3, 7), std::vector<double>(3, 0.0));
  const std::vector<double> ramp =
      arrival_times({.burstiness = kInfinity, .ramp = Arrivals::Ramp{.from = 1, .to = 3}}, 3, 7);
  EXPECT_NEAR(ramp[0], 1, 1e-9);
  EXPECT_NEAR(ramp[1], 1.5, 1e-9);
  EXPECT_NEAR(ramp[2], 1.5 + 1.0 / 3, 1e-9);
  const std::vector<double> steep =
      arrival_times({.burstiness = kInfinity, .ramp = Arrivals::Ramp{.exponential = true, .from = 1, .to = 4}}, 3, 7);
  EXPECT_NEAR(steep[1] - steep[0], 0.5, 1e-9);
}

size_t length_of(const json::value& prompt) {
  return prompt.as_array().size();
}

TEST(Workload, RandomPromptsHaveTheirLengthsAndShareAPrefix) {
  const PromptSource source{.ids = {5, 6, 7, 8, 9}};
  const RandomPrompts set{.input = {100, 0.5}, .output = {20, 0.5}, .prefix_len = 10, .num_turns = 2};
  const auto conversations = make_conversations(set, source, 200, 3);
  ASSERT_EQ(conversations.size(), 200u);
  size_t least = SIZE_MAX, most = 0;
  for (const Conversation& conversation : conversations) {
    ASSERT_EQ(conversation.size(), 2u);
    least = std::min(least, length_of(conversation[0].prompt));
    most = std::max(most, length_of(conversation[0].prompt));
    EXPECT_LE(length_of(conversation[1].prompt), 150u) << "a later turn has no prefix";
    EXPECT_GE(conversation[0].max_tokens, 10);
    EXPECT_LE(conversation[0].max_tokens, 30);
    for (size_t idx = 0; idx < 10; idx++)
      EXPECT_EQ(conversation[0].prompt.as_array()[idx], conversations[0][0].prompt.as_array()[idx]);
  }
  EXPECT_GE(least, 60u);
  EXPECT_LE(least, 70u);
  EXPECT_LE(most, 160u);
  EXPECT_GE(most, 150u);
  EXPECT_EQ(make_conversations(set, source, 5, 3)[4][1].prompt, make_conversations(set, source, 5, 3)[4][1].prompt);
  EXPECT_NE(make_conversations(set, source, 5, 3)[4][1].prompt, make_conversations(set, source, 5, 4)[4][1].prompt);
  const auto texts = make_conversations(RandomPrompts{.input = {130}}, {.tokens_per_word = 1.3}, 1, 3);
  const std::string text(texts[0][0].prompt.as_string());
  EXPECT_EQ(std::ranges::count(text, ' '), 99);
}

TEST(Workload, PrefixesAreRepeated) {
  const auto conversations = make_conversations(RepeatedPrefixes{.prefix_len = 8, .suffix_len = 4, .num_prefixes = 3},
                                                {.ids = {1, 2, 3, 4}}, 30, 1);
  std::map<std::string, int> prefixes;
  for (const Conversation& conversation : conversations) {
    json::array ids = conversation[0].prompt.as_array();
    EXPECT_EQ(ids.size(), 12u);
    ids.resize(8);
    prefixes[json::serialize(ids)]++;
  }
  ASSERT_EQ(prefixes.size(), 3u);
  for (const auto& [prefix, count] : prefixes) EXPECT_EQ(count, 10);
}

TEST(Workload, FilesOfPrompts) {
  const TestFolder folder;
  const std::string lines = folder.path() + "/lines.jsonl", share = folder.path() + "/share.json";
  std::ofstream(lines) << "{\"prompt\": \"a\", \"output_tokens\": 7}\n\n{\"prompt\": \"b\"}\n";
  std::ofstream(share) << R"([{"conversations": [{"from": "human", "value": "q1"}, {"from": "gpt", "value": "one two"},
      {"from": "human", "value": "q2"}, {"from": "gpt", "value": "three"}, {"from": "human", "value": "q3"}]},
      {"conversations": [{"from": "human", "value": "alone"}]}])";
  const PromptSource source{.tokens_per_word = 2};
  auto read = read_conversations({.path = lines}, source, 5, 1);
  ASSERT_TRUE(read) << read.error().message;
  ASSERT_EQ(read->size(), 5u) << "again from the start";
  for (const Conversation& conversation : *read)
    EXPECT_EQ(conversation[0].max_tokens, conversation[0].prompt == "a" ? 7 : 256);
  read = read_conversations({.path = lines, .output_len = 3}, source, 1, 1);
  EXPECT_EQ((*read)[0][0].max_tokens, 3);
  read = read_conversations({.path = share, .form = PromptFile::Form::kShareGpt, .num_turns = 5}, source, 2, 1);
  ASSERT_TRUE(read) << read.error().message;
  ASSERT_EQ((*read)[1].size(), 2u) << "the last question has no answer; who has none is left out";
  EXPECT_EQ((*read)[0][0].max_tokens, 4);
  EXPECT_EQ((*read)[0][1].prompt, "q2");

  struct Wrong {
    std::string text, message;
    PromptFile::Form form;
  };
  for (const Wrong& wrong :
       {Wrong{"{\"prompt\": \"a\"}\n{\"text\": 1}\n", "prompts:2", PromptFile::Form::kLines},
        Wrong{"\n", "holds no prompts", PromptFile::Form::kLines}, Wrong{"{}", "no list", PromptFile::Form::kShareGpt},
        Wrong{"[{\"x\": 1}]", "entry 0", PromptFile::Form::kShareGpt}}) {
    const std::string path = folder.path() + "/prompts";
    std::ofstream(path) << wrong.text;
    const auto result = read_conversations({.path = path, .form = wrong.form}, source, 1, 1);
    ASSERT_FALSE(result) << wrong.text;
    EXPECT_NE(result.error().message.find(wrong.message), std::string::npos) << result.error().message;
  }
}

class TrafficTest : public testing::Test {
 protected:
  TrafficResult run(const http::Server& server, const TrafficOptions& options,
                    const std::vector<Conversation>& conversations) {
    const openai::ApiAddress address(fmt::format("127.0.0.1:{}", server.port()), "");
    size_t num_done = 0;
    TrafficResult result =
        run_traffic(threads_, client_, address, options, conversations, [&](size_t done) { num_done = done; });
    EXPECT_EQ(num_done, conversations.size());
    return result;
  }

  const http::IoThreads threads_{1}, server_threads_{1};
  const http::Client client_{threads_, {.max_idle_connections = 100}};
};

TEST_F(TrafficTest, EveryRequestIsAnsweredAndTimed) {
  const auto server = start_instant_server(server_threads_);
  ASSERT_TRUE(server) << server.error().message;
  const auto conversations =
      make_conversations(RandomPrompts{.input = {50}, .output = {8}}, {.ids = {1, 2, 3}}, 100, 1);
  for (const bool is_chat : {false, true}) {
    const TrafficResult result = run(**server, {.is_chat = is_chat, .max_concurrency = 7}, conversations);
    const ServingFigure figure = summarize(result, {});
    EXPECT_EQ(figure.completed, 100);
    EXPECT_EQ(figure.output_tokens, 800);
    EXPECT_EQ(figure.input_tokens, is_chat ? 0 : 5000);
    EXPECT_LE(figure.most_concurrent, 100);
    for (const Timing& timing : result.timings) {
      EXPECT_GT(timing.ttft, 0);
      EXPECT_EQ(timing.gaps.size(), 7u);
      EXPECT_EQ(timing.text, "a a a a a a a a ");
      EXPECT_NEAR(timing.latency, std::accumulate(timing.gaps.begin(), timing.gaps.end(), timing.ttft), 1e-9);
    }
  }
}

// A server that keeps what it was asked, and answers "yes".
class Witness {
 public:
  explicit Witness(const http::IoThreads& threads, int status = 200) : server_(threads, {.host = "127.0.0.1"}) {
    const auto answer = [this, status](http::ServerCall& call) -> http::awaitable<void> {
      {
        const std::lock_guard lock(mutex_);
        bodies_.push_back(json::parse(call.request.body).as_object());
        most_at_once_ = std::max(most_at_once_, ++num_at_once_);
      }
      boost::asio::steady_timer timer(co_await boost::asio::this_coro::executor, std::chrono::milliseconds(5));
      co_await timer.async_wait(boost::asio::use_awaitable);
      {
        const std::lock_guard lock(mutex_);
        num_at_once_--;
      }
      const bool is_chat = bodies_[0].contains("messages");
      http::Headers headers;
      headers.set("Content-Type", "text/event-stream");
      const std::string opening = http::format_sse(R"({"choices":[{"delta":{"role":"assistant","content":""}}]})");
      const std::string event = http::format_sse(is_chat ? R"({"choices":[{"delta":{"content":"yes"}}]})"
                                                         : R"({"choices":[{"text":"yes"}]})");
      const std::string last = event +
                               http::format_sse(R"({"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}})") +
                               http::format_sse("[DONE]");
      if (status != 200) {
        http::Response refusal{.status = status, .body = R"({"error":{"message":"not today"}})"};
        co_await call.respond(std::move(refusal));
        co_return;
      }
      call.begin(200, std::move(headers));
      if (is_chat) co_await call.send(": waits\n\n" + opening);
      co_await call.end(last);
    };
    for (const char* path : {"/v1/completions", "/v1/chat/completions"}) server_.route("POST", path, answer);
    EXPECT_TRUE(server_.start());
  }
  const http::Server& server() const { return server_; }
  std::vector<json::object> bodies() const {
    const std::lock_guard lock(mutex_);
    return bodies_;
  }
  int most_at_once() const { return most_at_once_; }

 private:
  mutable std::mutex mutex_;
  std::vector<json::object> bodies_;
  int num_at_once_ = 0, most_at_once_ = 0;
  http::Server server_;
};

TEST_F(TrafficTest, TurnsFollowEachOtherWithWhatWasSaid) {
  const std::vector<Conversation> one = {{{json::string("q1"), 9}, {json::string("q2"), 9}}};
  Witness chats(server_threads_), completions(server_threads_);
  TrafficOptions options{.is_chat = true, .model = "m", .body = {{"temperature", 0.5}}};
  const TrafficResult result = run(chats.server(), options, one);
  EXPECT_TRUE(result.timings[0].gaps.empty()) << "the chat's opening is no token";
  ASSERT_EQ(chats.bodies().size(), 2u);
  EXPECT_EQ(chats.bodies()[1],
            json::parse(R"({"temperature":0.5,"model":"m","max_tokens":9,"stream":true,"stream_options":
              {"include_usage":true},"messages":[{"role":"user","content":"q1"},{"role":"assistant","content":"yes"},
              {"role":"user","content":"q2"}]})"));
  options.is_chat = false;
  run(completions.server(), options, one);
  EXPECT_EQ(completions.bodies()[1].at("prompt"), "q1yes\nq2");
  run(completions.server(), options, {{{json::array{1, 2}, 9}, {json::array{3}, 9}}});
  EXPECT_EQ(completions.bodies()[3].at("prompt"), (json::array{1, 2, 3}));
}

TEST_F(TrafficTest, NoMoreThanTheBoundAreUnderWay) {
  Witness witness(server_threads_);
  const std::vector<Conversation> many(30, {{json::string("q"), 1}});
  const TrafficResult result = run(witness.server(), {.max_concurrency = 4}, many);
  EXPECT_EQ(witness.most_at_once(), 4);
  EXPECT_GT(result.timings.back().queued, 0.015);
  Witness open(server_threads_);
  run(open.server(), {}, many);
  EXPECT_GT(open.most_at_once(), 4);
}

TEST_F(TrafficTest, WhatFailsSaysWhyAndAsksNoFurther) {
  Witness witness(server_threads_, 429);
  const TrafficResult result = run(witness.server(), {}, {{{json::string("q1"), 9}, {json::string("q2"), 9}}});
  EXPECT_EQ(witness.bodies().size(), 1u);
  EXPECT_EQ(result.timings[0].error, "the server answers 429: not today");
  EXPECT_EQ(result.timings[1].error, "not asked: the turn before failed");
  EXPECT_EQ(summarize(result, {}).failed, 2);
}

TEST_F(TrafficTest, WhoIsStoppedKeepsWhatWasMeasured) {
  http::Server server(server_threads_, {.host = "127.0.0.1"});
  std::stop_source stop;
  std::atomic<int> num_asked = 0;
  server.route("POST", "/v1/completions", [&](http::ServerCall& call) -> http::awaitable<void> {
    http::Headers headers;
    headers.set("Content-Type", "text/event-stream");
    call.begin(200, std::move(headers));
    if (++num_asked <= 4) co_return co_await call.end("data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: [DONE]\n\n");
    if (num_asked == 7) stop.request_stop();  // while three wait for an answer that never comes
    boost::asio::steady_timer never(co_await boost::asio::this_coro::executor, std::chrono::seconds(600));
    co_await never.async_wait(http::kResult);
  });
  ASSERT_TRUE(server.start());
  const openai::ApiAddress address(fmt::format("127.0.0.1:{}", server.port()), "");
  const std::vector<Conversation> many(20, {{json::string("q"), 1}, {json::string("r"), 1}});
  const TrafficResult result =
      run_traffic(threads_, client_, address, {.max_concurrency = 3, .stop = stop.get_token()}, many, [](size_t) {});
  EXPECT_FALSE(result.is_whole);
  EXPECT_EQ(result.timings.size(), 4u);
  EXPECT_EQ(summarize(result, {}).completed, 4);
  EXPECT_EQ(summarize(result, {}).failed, 0);
  stop = {};
  stop.request_stop();
  EXPECT_TRUE(run_traffic(threads_, client_, address, {.stop = stop.get_token()}, many, [](size_t) {}).timings.empty());
}

TEST_F(TrafficTest, ASilentServerIsNotWaitedForWithoutEnd) {
  http::Server server(server_threads_, {.host = "127.0.0.1"});
  server.route("POST", "/v1/completions", [&](http::ServerCall&) -> http::awaitable<void> {
    boost::asio::steady_timer never(co_await boost::asio::this_coro::executor, std::chrono::seconds(600));
    co_await never.async_wait(http::kResult);
  });
  ASSERT_TRUE(server.start());
  const openai::ApiAddress address(fmt::format("127.0.0.1:{}", server.port()), "");
  const http::Client impatient(threads_, {.idle_timeout = std::chrono::milliseconds(500)});
  const TrafficResult result = run_traffic(threads_, impatient, address, {}, {{{json::string("q"), 1}}}, [](size_t) {});
  EXPECT_NE(result.timings[0].error.find("no word within 0.5 s"), std::string::npos) << result.timings[0].error;
}

TEST_F(TrafficTest, WhatServersSendInsteadOfAnAnswerIsNone) {
  const std::string piece = "data: {\"choices\":[{\"text\":\"a\"}]}\n\n", done = "data: [DONE]\n\n",
                    ends = R"(data: {"choices":[{"text":"","finish_reason":"stop"}]})"
                           "\n\n";
  struct Sent {
    std::string body, type, error;
    int num_tokens = 0;
  };
  for (const Sent& sent : std::vector<Sent>{
           {piece + piece + done, "text/event-stream", "", 2},  // its server does not count
           {piece + ends, "text/event-stream; charset=utf-8", "", 2},
           {piece + "data: {\"choices\":[],\"usage\":{\"completion_tokens\":-1}}\n\n" + done, "text/event-stream", "",
            1},
           {piece + R"(data: {"choices":[],"usage":{"completion_tokens":99999999999}})" + "\n\n" + done,
            "text/event-stream", "", 1},
           {R"(data: {"choices":[{"text":""}],"usage":{"completion_tokens":0}})"
            "\n\n" +
                done,
            "text/event-stream", "", 0},
           {piece, "text/event-stream", "the answer broke off: its stream has no end"},
           {done, "text/event-stream", "the server ended the stream without an answer"},
           {"", "text/event-stream", "the server ended the stream without an answer"},
           {R"({"choices":[{"text":"a"}]})", "application/json",
            "the server answers with application/json, and no text/event-stream"},
           {piece + R"(data: {"error":"boom"})" + "\n\n" + done, "text/event-stream", "\"boom\""},
           {piece + R"(data: {"error":{"message":"bo\nom"}})" + "\n\n" + done, "text/event-stream", "bo\\nom"},
           {piece + R"(data: {"error":{"code":5}})" + "\n\n" + done, "text/event-stream", R"({"code":5})"},
           {"data: \xff\x1b{\n\n", "text/event-stream",
            "the server sends an event that is no JSON object: \\xff\\x1b{"},
       }) {
    http::Server server(server_threads_, {.host = "127.0.0.1"});
    server.route("POST", "/v1/completions", [&](http::ServerCall& call) -> http::awaitable<void> {
      http::Headers headers;
      headers.set("Content-Type", sent.type);
      call.begin(200, std::move(headers));
      co_await call.end(sent.body);
    });
    ASSERT_TRUE(server.start());
    const Timing timing = run(server, {}, {{{json::string("q"), 9}}}).timings[0];
    EXPECT_EQ(timing.error, sent.error) << sent.body;
    if (sent.error.empty()) {
      EXPECT_EQ(timing.output_tokens, sent.num_tokens) << sent.body;
    }
  }
}

TEST_F(TrafficTest, TheBodyGoesBeforeWhatACommandSays) {
  Witness witness(server_threads_);
  run(witness.server(), {.model = "m", .body = {{"max_tokens", 3}, {"stream_options", nullptr}}},
      {{{json::string("q"), 9}}});
  EXPECT_EQ(witness.bodies()[0],
            json::parse(R"({"max_tokens":3,"model":"m","prompt":"q","stream":true,"stream_options":null})"));
}

TEST_F(TrafficTest, AServerNeedsNoListOfItsModelsIfOneIsNamed) {
  for (const int status : {200, 401, 404, 405, 500}) {
    http::Server server(server_threads_, {.host = "127.0.0.1"});
    server.route("GET", "/v1/models", [&](const http::Request&) {
      return http::Response{.status = status, .body = R"({"data":[{"id":"first"}]})"};
    });
    ASSERT_TRUE(server.start());
    const openai::ApiAddress address(fmt::format("127.0.0.1:{}", server.port()), "");
    EXPECT_EQ(address.choose_model(client_, "m").has_value(), status != 401 && status != 500) << status;
    EXPECT_EQ(address.choose_model(client_, "").value_or("none"), status == 200 ? "first" : "none");
  }
}

TEST_F(TrafficTest, TokensAreAServersOnlyIfThereAreSome) {
  for (const char* answer : {R"({"tokens":[]})", R"({"tokens":[7]})", R"({"tokens":"x"})", "{", ""}) {
    http::Server server(server_threads_, {.host = "127.0.0.1"});
    server.route("POST", "/tokenize", [&](const http::Request&) { return http::Response{.body = answer}; });
    ASSERT_TRUE(server.start());
    const PromptSource source =
        ask_for_tokens(client_, openai::ApiAddress(fmt::format("127.0.0.1:{}", server.port()), ""), "m");
    EXPECT_TRUE(source.ids.empty()) << answer;
    EXPECT_EQ(source.tokens_per_word, PromptSource().tokens_per_word) << answer;
  }
}

// Numbers as NumPy has them.
TEST(ServingFigureTest, CountsAsVllmDoes) {
  TrafficResult result{.seconds = 4};
  for (int idx = 0; idx < 4; idx++)
    result.timings.push_back({.start = 0.5 * idx,
                              .ttft = 0.1 * (idx + 1),
                              .latency = 0.1 * (idx + 1) + 0.4,
                              .gaps = {0.1, 0.3},
                              .prompt_tokens = 10,
                              .output_tokens = 3});
  result.timings.push_back({.error = "no"});
  const FigureOptions options{.percentiles = {50, 99},
                              .shown = {LatencyKind::kTtft, LatencyKind::kE2el},
                              .goodput = Goodput{.ttft = 250, .tpot = kInfinity, .e2el = kInfinity}};
  const ServingFigure figure = summarize(result, options);
  EXPECT_EQ(figure.completed, 4);
  EXPECT_EQ(figure.failed, 1);
  EXPECT_DOUBLE_EQ(figure.requests_per_s, 1);
  EXPECT_DOUBLE_EQ(figure.output_tokens_per_s, 3);
  EXPECT_DOUBLE_EQ(figure.tokens_per_s, 13);
  EXPECT_DOUBLE_EQ(*figure.good_requests_per_s, 0.5);
  const Spread& ttft = figure.latency(LatencyKind::kTtft);
  EXPECT_NEAR(ttft.mean, 250, 1e-9);
  EXPECT_NEAR(ttft.median, 250, 1e-9);
  EXPECT_NEAR(ttft.deviation, 111.80339887498948, 1e-9);
  EXPECT_NEAR(ttft.percentiles[1].second, 397, 1e-9);
  EXPECT_NEAR(figure.latency(LatencyKind::kTpot).mean, 200, 1e-9);
  EXPECT_NEAR(figure.latency(LatencyKind::kItl).median, 200, 1e-9);
  EXPECT_EQ(figure.most_output_tokens_per_s, 5);
  EXPECT_EQ(figure.most_concurrent, 3);

  const std::string table = serving_table(figure, options, {.arrivals = {.rate = 2}, .max_concurrency = 8});
  EXPECT_NE(table.find("============ Serving Benchmark Result ============\n"
                       "Successful requests:                     4         \n"
                       "Failed requests:                         1         \n"
                       "Maximum request concurrency:             8         \n"
                       "Request rate configured (RPS):           2.00      \n"
                       "Benchmark duration (s):                  4.00      \n"
                       "Total input tokens:                      40        \n"),
            std::string::npos)
      << table;
  EXPECT_NE(table.find("---------------Time to First Token----------------\n"
                       "Mean TTFT (ms):                          250.00    \n"
                       "Median TTFT (ms):                        250.00    \n"
                       "P50 TTFT (ms):                           250.00    \n"
                       "P99 TTFT (ms):                           397.00    \n"
                       "----------------End-to-end Latency----------------\n"),
            std::string::npos)
      << table;
  json::object written = serving_json(figure, options, result, false);
  EXPECT_EQ(written.at("p99_e2el_ms"), json::value(figure.latency(LatencyKind::kE2el).percentiles[1].second));
  EXPECT_FALSE(written.contains("ttfts"));
  written = serving_json(figure, options, result, true);
  EXPECT_EQ(written.at("errors").as_array().size(), 5u);
  EXPECT_EQ(written.at("itls").as_array()[0], (json::array{0.1, 0.3}));
}

TEST(ServingFigureTest, ASweepIsAPicture) {
  std::vector<SweepPoint> points;
  for (const double load : {1.0, 8.0, 64.0}) {
    TrafficResult result{.seconds = 1};
    result.timings.push_back(
        {.ttft = 0.01 * load, .latency = 0.02 * load, .output_tokens = static_cast<int>(load) + 1});
    points.push_back({fmt::format("<{:g}> at once", load), summarize(result, {})});
  }
  const std::string picture = sweep_picture(points, "R&D");
  EXPECT_NE(picture.find("R&amp;D"), std::string::npos);
  EXPECT_EQ(picture.find("<8>"), std::string::npos);
  size_t num_dots = 0;
  for (size_t at = 0; (at = picture.find("<circle", at)) != picture.npos; at++) num_dots++;
  EXPECT_EQ(num_dots, 6u);
  EXPECT_EQ(picture.find("nan"), std::string::npos);
  EXPECT_EQ(picture.find("inf"), std::string::npos);
  const std::string table = sweep_table(points);
  EXPECT_EQ(std::ranges::count(table, '\n'), 4);
  // Nothing was answered: still a picture.
  const std::vector<SweepPoint> empty{{"x", summarize({.seconds = 1}, {})}};
  EXPECT_EQ(sweep_picture(empty, "x").find("nan"), std::string::npos);
}

}  // namespace
}  // namespace cachalot
