// Answers whose replica is lost, through a router: what their clients get is what an undisturbed one gives.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <boost/json/parse.hpp>
#include <deque>
#include <mutex>

#include "base/file.h"
#include "base/folder_test_util.h"
#include "base/text.h"
#include "config/environment.h"
#include "http/loopback_test_util.h"
#include "openai/answer/answer_log.h"
#include "openai/answer_kinds_test_util.h"
#include "openai/api_server_test_util.h"
#include "router/running_router.h"

namespace cachalot::router {
namespace {

namespace answer_log = openai::answer_log;
using http::eventually;
using openai::answer_kinds::Kind;
using openai::answer_kinds::Part;
using openai::answer_kinds::parts_of;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// How the next answers end before their end.
struct Cut {
  enum class How { kBreaks, kBreaksInAnEvent, kIsGivenUp, kIsRefused };
  How how = How::kBreaks;
  size_t num_parts = 0;  // that come before it
};
struct Cuts {
  std::mutex mutex;
  std::deque<Cut> next;
  std::vector<std::string> logs;  // that requests brought

  std::optional<Cut> take(const std::string& log) {
    const std::lock_guard lock(mutex);
    logs.push_back(log);
    if (next.empty()) return std::nullopt;
    const Cut cut = next.front();
    next.pop_front();
    return cut;
  }
};

// A replica, as the router sees it: what a server says, as far as it gets.
class Relay {
 public:
  Relay(const http::IoThreads& threads, const http::Client& client, http::Url server, Cuts& cuts, std::string load)
      : client_(client), server_url_(std::move(server)), cuts_(cuts), http_(threads, {.host = "127.0.0.1"}) {
    http_.route("POST", "/v1/*", [this](http::ServerCall& call) { return answer(call); });
    http_.route("GET", "/load",
                [load = std::move(load)](const http::Request&) { return http::Response::json(200, load); });
    EXPECT_TRUE(http_.start());
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(http_.port()); }

 private:
  http::awaitable<void> answer(http::ServerCall& call) {
    http::ClientRequest request{
        .method = "POST", .url = server_url_, .headers = call.request.headers, .body = call.request.body};
    for (const char* name : {"Host", "Content-Length", "Connection"}) request.headers.erase(name);
    request.url.target = call.request.target;
    const auto log_size = parse_number<size_t>(call.request.headers.find(answer_log::kField).value_or("")).value_or(0);
    const std::optional<Cut> cut = cuts_.take(call.request.body.substr(0, log_size));
    if (cut && cut->how == Cut::How::kIsRefused)
      co_return co_await call.respond(http::Response::json(503, R"({"error": {"message": "not now"}})"));
    Result<http::Response> answer = co_await client_.ask(std::move(request));
    if (!answer) co_return;
    if (!answer->headers.contains(answer_log::kField)) co_return co_await call.respond(std::move(*answer));
    const std::vector<Part> parts = parts_of(answer->body);
    for (const char* name : {"Content-Length", "Transfer-Encoding", "Connection"}) answer->headers.erase(name);
    call.begin(answer->status, answer->headers);
    co_await call.send("");
    for (size_t idx = 0; idx < parts.size(); idx++) {
      if (cut && idx == cut->num_parts) {
        if (cut->how == Cut::How::kIsGivenUp)
          co_return co_await call.end("data: {\"error\": {\"message\": \"I go\"}}\n\n" +
                                      std::string(answer_log::kGivenUp));
        if (cut->how == Cut::How::kBreaksInAnEvent) {
          const std::string all = parts[idx].told + parts[idx].record;
          co_await call.send(all.substr(0, all.size() - 1));
        }
        co_return;
      }
      co_await call.send(parts[idx].told + parts[idx].record);
    }
    co_await call.end();
  }

  const http::Client& client_;
  const http::Url server_url_;
  Cuts& cuts_;
  http::Server http_;
};

class TakeoverTest : public openai::ApiServerTest {
 protected:
  TakeoverTest() {
    options_.max_model_len = 2000;
    chat_template_ = ChatTemplate::from_source(openai::answer_kinds::kCallTemplate, "", "").value();
    router_options_.host = "127.0.0.1";
    router_options_.port = 0;
    router_options_.health_interval = milliseconds(20);
    router_options_.health_timeout = seconds(10);
    router_options_.eject_after_errors = 1 << 20;  // these die often
    router_options_.takeover_timeout = seconds(5);
  }
  ~TakeoverTest() override {
    if (router_) router_->stop(std::chrono::steady_clock::now());
  }

  void start_router(size_t num_replicas = 2) {
    const std::string load = send("GET", "/load").body;
    for (size_t idx = 0; idx < num_replicas; idx++) {
      relays_.push_back(std::make_unique<Relay>(relay_threads_, relay_client_, server_url(), cuts_, load));
      router_options_.server_urls.push_back(relays_.back()->url());
    }
    auto router = RunningRouter::start(router_options_);
    ASSERT_TRUE(router) << router.error().message;
    router_ = std::move(*router);
    wait_until_all_are_up();
  }
  void wait_until_all_are_up() {
    EXPECT_TRUE(eventually([&] {
      const boost::json::value status = boost::json::parse(get("/replicas").body).at("replicas");
      return std::ranges::all_of(status.as_array(), [](const auto& one) { return one.at("healthy").as_bool(); });
    }));
  }
  http::Url server_url() { return *http::parse_url("http://127.0.0.1:" + std::to_string(server_->port())); }
  http::Response get(const std::string& target) {
    return *client_.fetch({.url = *http::parse_url("http://127.0.0.1:" + std::to_string(router_->port()) + target),
                           .headers = router_headers_});
  }
  Result<http::Response> ask_router(const Kind& kind, std::vector<Cut> cuts = {}) {
    {
      const std::lock_guard lock(cuts_.mutex);
      cuts_.next = {cuts.begin(), cuts.end()};
      cuts_.logs.clear();
    }
    return client_.fetch({.method = "POST",
                          .url = *http::parse_url("http://127.0.0.1:" + std::to_string(router_->port()) + kind.path),
                          .headers = router_headers_,
                          .body = kind.body});
  }
  double metric(const std::string& name) {
    const std::string text = get("/metrics").body;
    double sum = 0;
    for (size_t at = text.find("\n" + name); at != text.npos; at = text.find("\n" + name, at + 1)) {
      const size_t end = text.find('\n', at + 1), begin = text.rfind(' ', end) + 1;
      sum += parse_number<double>(std::string_view(text).substr(begin, end - begin)).value_or(0);
    }
    return sum;
  }

  // Without what is each answer's own: moments, and ids that are random or follow from these.
  static std::string comparable(const http::Response& response) {
    std::string text = std::to_string(response.status) +
                       std::string(response.headers.find("Content-Type").value_or("")) +
                       std::string(response.headers.find("X-Request-Id").value_or("")) +
                       std::string(response.headers.find(answer_log::kField).value_or("")) + response.body;
    for (const auto& [what, name] :
         {std::pair("\"(created|created_at|completed_at)\":[0-9]+", "time"),
          std::pair("(resp|msg|rs|fc|fco)_[0-9a-f]{20,}", "id"), std::pair("(call|toolu)_[0-9a-f]{24}", "call")})
      text = std::regex_replace(text, std::regex(what), name);
    return text;
  }

  Cuts cuts_;
  http::IoThreads relay_threads_{2};
  http::Client relay_client_{relay_threads_};
  RouterOptions router_options_;
  http::Headers router_headers_{{"X-Request-Id", "abc"}};
  std::vector<std::unique_ptr<Relay>> relays_;
  std::unique_ptr<RunningRouter> router_;
};

class TakeoverOfEveryKindTest : public TakeoverTest, public testing::WithParamInterface<Kind> {
 protected:
  // The replica goes behind every part of the answer, or some.
  void cut_everywhere(const Kind& kind, bool behind_every_part);
};

void TakeoverOfEveryKindTest::cut_everywhere(const Kind& kind, bool behind_every_part) {
  using How = Cut::How;
  service_.answer_with(kind.answer, kind.ends);
  start();
  start_router();
  const auto undisturbed = ask_router(kind);
  ASSERT_TRUE(undisturbed);
  ASSERT_EQ(undisturbed->status, 200) << undisturbed->body;
  EXPECT_THAT(undisturbed->body, Not(HasSubstr(":@")));
  headers_ = {{"X-Request-Id", "abc"}, {std::string(answer_log::kField), "0"}};
  const size_t num_parts = parts_of(send("POST", kind.path, kind.body).body).size();
  const bool is_mixed = service_.requests().back().num_choices > 1 || kind.path.ends_with("batch") ||
                        std::string_view(kind.name).contains("Many");
  const size_t stride = behind_every_part ? 1 : num_parts / 6 + 1;
  for (size_t cut = 0; cut < num_parts; cut += stride) {
    for (const std::vector<Cut>& cuts :
         {std::vector{Cut{How::kBreaks, cut}}, std::vector{Cut{How::kIsGivenUp, cut}, Cut{How::kIsRefused, 0}},
          std::vector{Cut{How::kBreaksInAnEvent, cut}, Cut{How::kBreaks, 2}, Cut{How::kBreaks, 1},
                      Cut{How::kIsGivenUp, 3}}}) {
      if (cut == 0 && cuts.front().how == How::kIsGivenUp) continue;  // nothing has begun
      if (cut == 0) wait_until_all_are_up();                          // who breaks before that is out for a while
      const auto answer = ask_router(kind, cuts);
      ASSERT_TRUE(answer) << "cut behind " << cut << " by " << cuts.size() << " cuts, of " << cuts_.logs.size()
                          << " requests: " << answer.error().message;
      if (is_mixed && kind.body.contains("\"stream\":true"))
        ASSERT_EQ(openai::answer_kinds::by_choice(comparable(*answer)),
                  openai::answer_kinds::by_choice(comparable(*undisturbed)));
      else
        ASSERT_EQ(comparable(*answer), comparable(*undisturbed)) << "cut behind " << cut << " of " << num_parts;
    }
  }
}

// A campaign, with CACHALOT_CUT_EVERYWHERE=1: behind every part.
TEST_P(TakeoverOfEveryKindTest, ClientsGetWhatAnUndisturbedRunGives) {
  cut_everywhere(GetParam(), !environment_variable("CACHALOT_CUT_EVERYWHERE").empty());
}

TEST_P(TakeoverOfEveryKindTest, TheKeyIsChargedOnceAndHoldsOnePlace) {
  const Kind& kind = GetParam();
  const TestFolder folder;
  router_options_.door.api_key_file = folder.path("keys.yaml");
  ASSERT_TRUE(write_file(router_options_.door.api_key_file, "- {name: alice, key: a, in-flight: 1}\n"));
  ASSERT_EQ(chmod(router_options_.door.api_key_file.c_str(), 0600), 0);
  router_headers_.set("Authorization", "Bearer a");
  service_.answer_with(kind.answer, kind.ends);
  start();
  start_router();
  const auto num_tokens = [&](const std::string& what) {
    EXPECT_TRUE(eventually([&] { return get("/metrics").body.contains("key_in_flight{key=\"alice\"} 0\n"); }));
    return metric("cachalot:key_tokens_total{key=\"alice\",kind=\"" + what + "\"}");
  };
  const auto undisturbed = ask_router(kind);
  ASSERT_TRUE(undisturbed);
  const double num_prompt_tokens = num_tokens("prompt"), num_generated = num_tokens("generation");
  EXPECT_GT(num_prompt_tokens, 0);
  EXPECT_GT(num_generated, 0);
  const auto answer = ask_router(
      kind, {{Cut::How::kBreaks, 3}, {Cut::How::kIsGivenUp, 2}, {Cut::How::kIsRefused, 0}, {Cut::How::kBreaks, 2}});
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 200) << answer->body;
  EXPECT_THAT(answer->body, Not(HasSubstr(": usage ")));
  EXPECT_FALSE(answer->headers.contains(openai::kUsageField));
  EXPECT_EQ(num_tokens("prompt"), 2 * num_prompt_tokens);
  EXPECT_EQ(num_tokens("generation"), 2 * num_generated);
  EXPECT_EQ(metric("cachalot:key_requests_total{key=\"alice\"}"), 2);
}

INSTANTIATE_TEST_SUITE_P(Kinds, TakeoverOfEveryKindTest, testing::ValuesIn(openai::answer_kinds::kinds()),
                         [](const auto& kind) { return std::string(kind.param.name); });

const Kind kAlphabet{"", "/v1/completions", R"({"prompt":"Sunday","stream":true,"max_tokens":40})",
                     "abcdefghijklmnopqrstuvwxyz and more of that"};

TEST_F(TakeoverTest, AnAnswerMayLoseItsReplicaAnyNumberOfTimes) {
  service_.answer_with(kAlphabet.answer);
  start();
  start_router();
  const auto undisturbed = ask_router(kAlphabet);
  const auto answer = ask_router(kAlphabet, std::vector<Cut>(12, Cut{Cut::How::kBreaks, 3}));
  EXPECT_EQ(comparable(*answer), comparable(*undisturbed));
  EXPECT_EQ(metric("cachalot:router_takeovers_total"), 12);
  EXPECT_EQ(metric("cachalot:router_takeover_pause_seconds_count"), 12);
  EXPECT_EQ(metric("cachalot:router_blamed_requests_total"), 0);
}

TEST_F(TakeoverTest, ARequestThatKillsItsServersAtOneTokenIsGivenUp) {
  service_.answer_with(kAlphabet.answer);
  start();
  start_router();
  // Behind the beginning; then each dies before the next token.
  const auto answer = ask_router(kAlphabet, {{Cut::How::kBreaks, 5}, {Cut::How::kBreaks, 1}, {Cut::How::kBreaks, 1}});
  ASSERT_TRUE(answer || true);
  EXPECT_EQ(metric("cachalot:router_blamed_requests_total"), 1);
  const auto again = ask_router(kAlphabet);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->status, 503) << "it is sent to nobody for a while";
}

TEST_F(TakeoverTest, GivingUpIsNobodysDeath) {
  service_.answer_with(kAlphabet.answer);
  start();
  start_router();
  const auto undisturbed = ask_router(kAlphabet);
  const auto answer = ask_router(kAlphabet, std::vector<Cut>(4, Cut{Cut::How::kIsGivenUp, 1}));
  EXPECT_EQ(comparable(*answer), comparable(*undisturbed));
}

TEST_F(TakeoverTest, WhoFindsNobodyInTimeEndsWithAnError) {
  router_options_.takeover_timeout = seconds(1);
  service_.answer_with(kAlphabet.answer);
  start();
  start_router();
  std::vector<Cut> cuts(40, Cut{Cut::How::kIsRefused, 0});
  cuts.front() = {Cut::How::kBreaks, 9};
  const auto began = std::chrono::steady_clock::now();
  const auto answer = ask_router(kAlphabet, cuts);
  EXPECT_GE(std::chrono::steady_clock::now() - began, milliseconds(900));
  EXPECT_LE(std::chrono::steady_clock::now() - began, seconds(6));
  EXPECT_TRUE(!answer || answer->body.contains("--takeover-timeout"));
}

TEST_F(TakeoverTest, WhatDoesNotFitIntoTheMemoryIsNotKept) {
  router_options_.takeover_memory = kAlphabet.body.size() + 400;
  service_.answer_with(kAlphabet.answer);
  start();
  start_router();
  const auto undisturbed = ask_router(kAlphabet);
  ASSERT_TRUE(undisturbed);
  EXPECT_THAT(undisturbed->body, AllOf(HasSubstr("[DONE]"), Not(HasSubstr(":@"))));
  const auto broken = ask_router(kAlphabet, {{Cut::How::kBreaks, 25}});
  EXPECT_TRUE(!broken || !broken->body.contains("[DONE]"));
}

}  // namespace
}  // namespace cachalot::router
