#include "openai/keys/api_keys.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "base/folder_test_util.h"
#include "base/math.h"
#include "base/text.h"
#include "http/loopback_test_util.h"
#include "openai/answer/answer_log.h"
#include "openai/answer_kinds_test_util.h"
#include "openai/api_server_test_util.h"

namespace cachalot::openai {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class ApiKeysTest : public testing::Test {
 protected:
  void write(std::string_view text, mode_t mode = 0600) {
    std::ofstream(path_) << text;
    chmod(path_.c_str(), mode);
  }
  void open() {
    auto keys = ApiKeys::open({}, path_);
    ASSERT_TRUE(keys) << keys.error().message;
    keys_ = std::move(*keys);
    now_ = std::chrono::steady_clock::now();
  }
  ApiKeys::Entry ask(const std::string& key, const std::string& path = "/v1/completions") {
    return keys_->admit({.method = "POST", .path = path, .headers = {{"Authorization", "Bearer " + key}}}, {}, now_);
  }
  int status(const std::string& key) {
    const ApiKeys::Entry entry = ask(key);
    return entry ? 200 : entry.error().status;
  }
  std::string fault(std::string_view text) {
    write(text);
    const auto keys = ApiKeys::open({}, path_);
    return keys ? "it is taken" : keys.error().message;
  }

  TestFolder folder_;
  const std::string path_ = folder_.path("keys.yaml");
  ApiKeys::Time now_;
  std::shared_ptr<const ApiKeys> keys_;
};

TEST_F(ApiKeysTest, OnlyWholeKeysOpen) {
  const std::string key = "sk-" + std::string(40, 'k');
  write(fmt::format("- {{name: alice, key: {}}}\n- {{name: bob, key: other}}\n", key));
  open();
  EXPECT_EQ(status(key), 200);
  EXPECT_EQ(status("other"), 200);
  for (const std::string& wrong : {std::string(), key.substr(0, 20), key + "k", key + key, "x" + key.substr(1),
                                   std::string(30'000, 'k'), std::string("oth\0er", 6)})
    EXPECT_EQ(status(wrong), 401) << wrong.substr(0, 60);
  EXPECT_THAT(keys_->render_metrics(),
              AllOf(HasSubstr("cachalot:unknown_key_total 7\n"), HasSubstr("key_requests_total{key=\"alice\"} 1\n"),
                    Not(HasSubstr(key)), Not(HasSubstr("other"))));
}

// What a comparison takes may not tell how much of a key is right: the medians of many are alike.
TEST_F(ApiKeysTest, ARightBeginningTakesNoLonger) {
  const std::string key = "sk-" + std::string(400, 'k');
  std::string list;
  for (int idx = 0; idx < 200; idx++) list += fmt::format("- {{name: n{0}, key: {0}-x}}\n", idx);
  write(list + "- {name: alice, key: " + key + "}\n");
  open();
  const std::string half = key.substr(0, 200) + std::string(203, 'x'), none = "x" + std::string(402, 'x');
  std::vector<double> times[2];
  for (int round = 0; round < 2000; round++)
    for (const int which : {0, 1}) {
      const auto begin = std::chrono::steady_clock::now();
      EXPECT_EQ(status(which == 0 ? half : none), 401);
      times[which].push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
  EXPECT_NEAR(median(times[0]) / median(times[1]), 1, 0.1);
}

TEST_F(ApiKeysTest, RequestsOfAMinuteFlowBackEvenly) {
  write("- {name: a, key: a, requests-per-minute: 6}\n- {name: b, key: b}\n");
  open();
  for (int idx = 0; idx < 6; idx++) EXPECT_EQ(status("a"), 200);
  const ApiKeys::Entry refused = ask("a");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().status, 429);
  EXPECT_EQ(refused.error().headers.find("Retry-After"), "10");
  EXPECT_EQ(refused.error().headers.find("x-ratelimit-limit-requests"), "6");
  EXPECT_EQ(refused.error().headers.find("x-ratelimit-remaining-requests"), "0");
  EXPECT_EQ(refused.error().headers.find("x-ratelimit-reset-requests"), "1m0s");
  EXPECT_THAT(refused.error().body, AllOf(HasSubstr(R"("code":"rate_limit_exceeded")"), HasSubstr("limit 6")));
  const ApiKeys::Entry messages = ask("a", "/v1/messages");
  ASSERT_FALSE(messages);
  EXPECT_THAT(messages.error().body, HasSubstr(R"({"type":"error","error":{"type":"rate_limit_error")"));
  EXPECT_EQ(status("b"), 200) << "another's limits are its own";
  now_ += seconds(10);
  EXPECT_EQ(status("a"), 200);
  EXPECT_EQ(status("a"), 429);
  EXPECT_THAT(keys_->render_metrics(), HasSubstr("key_refused_total{key=\"a\",limit=\"requests\"} 3\n"));
}

TEST_F(ApiKeysTest, TokensAreCountedWhenTheyAreKnown) {
  write("- {name: a, key: a, tokens-per-minute: 600}\n");
  open();
  {
    const ApiKeys::Entry entry = ask("a");
    ASSERT_TRUE(entry);
    const auto guest = std::static_pointer_cast<ApiKeys::Guest>(*entry);
    guest->charge(500, 0);
    EXPECT_EQ(status("a"), 200);
    guest->charge(0, 400);
    http::Headers fields;
    guest->add_fields(fields);
    EXPECT_EQ(fields.find("x-ratelimit-remaining-tokens"), "0");
    EXPECT_FALSE(fields.contains("x-ratelimit-limit-requests"));
  }
  const ApiKeys::Entry refused = ask("a");  // 300 more than it had: half a minute
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().headers.find("Retry-After"), "31");
  EXPECT_THAT(refused.error().body, HasSubstr(R"("type":"tokens")"));
  now_ += seconds(31);
  EXPECT_EQ(status("a"), 200);
}

TEST_F(ApiKeysTest, APlaceInFlightIsGivenBackAtTheEnd) {
  write("- {name: a, key: a, in-flight: 2}\n");
  open();
  ApiKeys::Entry first = ask("a"), second = ask("a");
  EXPECT_EQ(status("a"), 429);
  EXPECT_TRUE(keys_->admit({.method = "GET", .path = "/v1/models", .headers = {{"x-api-key", "a"}}}, {}, now_));
  EXPECT_THAT(keys_->render_metrics(), HasSubstr("key_in_flight{key=\"a\"} 2\n"));
  *first = nullptr;
  EXPECT_EQ(status("a"), 200);
}

TEST_F(ApiKeysTest, AFileThatOthersMayReadIsRefused) {
  for (const mode_t mode : {0640, 0604, 0620}) {
    write("- {name: a, key: a}\n", mode);
    const auto keys = ApiKeys::open({}, path_);
    ASSERT_FALSE(keys) << mode;
    EXPECT_THAT(keys.error().message, AllOf(HasSubstr("--api-key-file"), HasSubstr("chmod 600")));
  }
}

TEST_F(ApiKeysTest, FaultsOfAFileAreNamed) {
  EXPECT_THAT(fault(""), HasSubstr("must be a list"));
  EXPECT_THAT(fault("[]"), HasSubstr("holds no key"));
  EXPECT_THAT(fault("- {name: a"), HasSubstr("is no YAML"));
  EXPECT_THAT(fault("- a\n"), HasSubstr("entry 0"));
  EXPECT_THAT(fault("- {name: a}\n"), AllOf(HasSubstr("[0].key"), Not(HasSubstr("it is taken"))));
  EXPECT_THAT(fault("- {key: a}\n"), HasSubstr("[0].name"));
  EXPECT_THAT(fault("- {name: a, key: k, in-flight: -1}\n"), HasSubstr("[0].in-flight"));
  EXPECT_THAT(fault("- {name: a, key: k, requests: 1}\n"), HasSubstr("requests"));
  EXPECT_THAT(fault("- {name: a, key: k, priorities: [3, 1]}\n"), HasSubstr("priorities"));
  EXPECT_THAT(fault("- {name: a, key: k}\n- {name: a, key: l}\n"), HasSubstr("twice"));
  EXPECT_THAT(fault("- {name: a, key: k}\n- {name: b, key: k}\n"), AllOf(HasSubstr("'b'"), Not(HasSubstr("key: k"))));
}

TEST_F(ApiKeysTest, NameAndKeyOfTheCommandLineAreNoOthers) {
  for (const char* file : {"- {name: api-key-1, key: x}\n", "- {name: x, key: inner}\n"}) {
    write(file);
    const auto keys = ApiKeys::open({"inner"}, path_);
    ASSERT_FALSE(keys) << file;
    EXPECT_THAT(keys.error().message, AllOf(HasSubstr(path_), HasSubstr("that of --api-key"), Not(HasSubstr("inner"))));
  }
  write("- {name: x, key: x}\n");
  const auto keys = ApiKeys::open({"inner"}, path_).value();
  write("- {name: api-key-1, key: y}\n");
  http::Request head{.method = "GET", .path = "/v1/models", .target = "/v1/models", .headers = {}, .body = {}};
  head.headers.set("Authorization", "Bearer inner");
  EXPECT_TRUE(keys->admit(head, {}, std::chrono::steady_clock::now() + std::chrono::seconds(1)));
}

TEST_F(ApiKeysTest, AChangedFileIsReadAndABrokenOneChangesNothing) {
  write("- {name: a, key: a, requests-per-minute: 2}\n- {name: b, key: b}\n");
  open();
  EXPECT_EQ(status("a"), 200);
  for (const char* broken : {"- {name: c, key", "[]", "- {name: c, key: c}\n- {name: c, key: d}\n"}) {
    write(broken);
    now_ += milliseconds(600);
    EXPECT_EQ(status("b"), 200) << broken;
    EXPECT_EQ(status("c"), 401) << broken;
  }
  write("- {name: a, key: new, requests-per-minute: 2}\n- {name: c, key: c}\n");
  now_ += milliseconds(600);
  EXPECT_EQ(status("b"), 401);
  EXPECT_EQ(status("a"), 401);
  EXPECT_EQ(status("c"), 200);
  EXPECT_EQ(status("new"), 200);
  EXPECT_EQ(status("new"), 429) << "a name keeps what it has left";
}

TEST(Priorities, AreWhatAKeyMayAskFor) {
  EXPECT_FALSE(check_priority("0 10", 0));
  EXPECT_FALSE(check_priority("0 10", 10));
  for (const auto& [bounds, priority] : {std::pair("0 10", -1), std::pair("0 10", 11), std::pair("", 0),
                                         std::pair("0", 0), std::pair("x 1", 0), std::pair("0 1 ", 0)})
    EXPECT_TRUE(check_priority(bounds, priority)) << bounds << ": " << priority;
}

class KeyedServerTest : public ApiServerTest {
 protected:
  void start_with(const std::string& keys) {
    const std::string path = folder_.path("keys.yaml");
    std::ofstream(path) << keys;
    chmod(path.c_str(), 0600);
    options_.keys = *ApiKeys::open({"router"}, path);
    service_.answer_with("a b c");
    start();
  }
  Answer complete(const std::string& key, const std::string& more = "", http::Headers fields = {}) {
    headers_ = std::move(fields);
    headers_.set("Authorization", "Bearer " + key);
    return ask("POST", "/v1/completions", R"({"prompt":"hello")" + more + "}");
  }
  TestFolder folder_;
};

TEST_F(KeyedServerTest, AnswersTellWhatIsLeftAndTokensAreCounted) {
  start_with("- {name: a, key: a, requests-per-minute: 100, tokens-per-minute: 1000}\n");
  const Answer answer = complete("a");
  ASSERT_EQ(answer.status, 200);
  EXPECT_EQ(answer.headers.find("x-ratelimit-remaining-requests"), "99");
  const int64_t prompt = answer.body.at("usage").at("prompt_tokens").as_int64();
  const int64_t generated = answer.body.at("usage").at("completion_tokens").as_int64();
  EXPECT_TRUE(http::eventually([&] {
    const std::string metrics = send("GET", "/metrics").body;
    return metrics.contains(fmt::format("key_tokens_total{{key=\"a\",kind=\"prompt\"}} {}\n", prompt)) &&
           metrics.contains(fmt::format("key_tokens_total{{key=\"a\",kind=\"generation\"}} {}\n", generated)) &&
           metrics.contains("key_in_flight{key=\"a\"} 0\n");
  }));
  EXPECT_FALSE(answer.headers.contains(kUsageField)) << "only a router asks for it";
}

TEST_F(KeyedServerTest, ARouterIsToldWhatWasUsed) {
  start_with("- {name: a, key: a}\n");
  const Answer whole = complete("router", "", {{std::string(kUsageField), "1"}});
  const json::object& usage = whole.body.at("usage").as_object();
  const std::string told =
      fmt::format("{} {}", usage.at("prompt_tokens").as_int64(), usage.at("completion_tokens").as_int64());
  EXPECT_EQ(whole.headers.find(kUsageField), told);
  headers_ = {{"Authorization", "Bearer router"}, {std::string(kUsageField), "1"}};
  EXPECT_EQ(send("POST", "/tokenize", R"({"prompt":"hello"})").headers.find(kUsageField), "0 0")
      << "nothing is computed";
  EXPECT_TRUE(send("POST", "/v1/completions", R"({"prompt":"hello","stream":true})")
                  .body.ends_with(fmt::format("data: [DONE]\n\n{}{}\n\n", kUsageComment, told)));
}

// What a key that may speak for others is counted for: its router has counted the rest. A client's own word that some
// other server began is not believed.
TEST_F(KeyedServerTest, WhatAnotherServerBeganIsCountedThere) {
  start_with("- {name: a, key: a}\n");
  const std::string body = R"({"prompt":"hello","stream":true})";
  const auto ask_with_log = [&](const std::string& key, const std::string& log) {
    headers_ = {{"Authorization", "Bearer " + key},
                {std::string(kUsageField), "1"},
                {std::string(answer_log::kField), std::to_string(log.size())}};
    return answer_kinds::parts_of(send("POST", "/v1/completions", log + body).body);
  };
  const auto counted = [&](const std::string& name) {
    std::string metrics;
    const std::string in_flight = fmt::format("key_in_flight{{key=\"{}\"}} 0\n", name);
    EXPECT_TRUE(http::eventually([&] { return (metrics = send("GET", "/metrics").body).contains(in_flight); }));
    const auto of_kind = [&](const char* kind) {
      const std::string line = fmt::format("key_tokens_total{{key=\"{}\",kind=\"{}\"}} ", name, kind);
      return leading_number<int64_t>(std::string_view(metrics).substr(metrics.find(line) + line.size()));
    };
    return std::pair(of_kind("prompt"), of_kind("generation"));
  };
  const auto parts = ask_with_log("router", "");
  const auto [num_prompt_tokens, num_generated] = counted("api-key-1");
  const std::string told = fmt::format("{}{} {}\n\n", kUsageComment, num_prompt_tokens, num_generated);
  EXPECT_TRUE(answer_kinds::told_by(parts).ends_with(told));
  ASSERT_GE(num_generated, 3);
  std::string log;
  for (const auto& part : parts)
    if (std::ranges::count(log, '\n') < 6) log += part.record;  // how it begins, and two tokens
  EXPECT_TRUE(answer_kinds::told_by(ask_with_log("router", log)).ends_with(told)) << "a router is told all";
  EXPECT_EQ(counted("api-key-1"), std::pair(num_prompt_tokens, 2 * num_generated - 2));
  ask_with_log("a", log);
  EXPECT_EQ(counted("a"), std::pair(num_prompt_tokens, num_generated));
}

TEST_F(KeyedServerTest, APriorityMustBeAllowed) {
  start_with("- {name: a, key: a, priorities: [0, 5]}\n- {name: b, key: b}\n");
  EXPECT_EQ(complete("a").status, 200);
  const Answer refused = complete("a", R"(,"priority":-1)");
  EXPECT_EQ(refused.status, 403);
  EXPECT_EQ(refused.error().at("param"), "priority");
  EXPECT_EQ(complete("b", R"(,"priority":-1)").status, 200);
  EXPECT_EQ(complete("router", R"(,"priority":-1)", {{std::string(kPrioritiesField), "0 5"}}).status, 403);
}

TEST_F(KeyedServerTest, RequestsAreTheirClients) {
  start_with("- {name: a, key: a}\n- {name: b, key: b}\n");
  const auto client = [&](const std::string& key, http::Headers fields = {}) {
    EXPECT_EQ(complete(key, "", std::move(fields)).status, 200);
    EXPECT_TRUE(service_.requests().back().is_alone);
    return service_.requests().back().client;
  };
  const std::string owner(kOwnerField);
  EXPECT_NE(client("a"), client("b"));
  EXPECT_EQ(client("a"), client("a"));
  EXPECT_NE(client("a"), 0u);
  EXPECT_EQ(client("a", {{owner, "x"}}), client("a", {{owner, "y"}})) << "who has a key of his own is one client";
  EXPECT_NE(client("router", {{owner, "x"}}), client("router", {{owner, "y"}})) << "a router has many";
}

}  // namespace
}  // namespace cachalot::openai
