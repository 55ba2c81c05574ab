// An answer that another server goes on with, cut behind each of its records: what clients get of both together is what
// they would have got of one.
#include "openai/answer/answer_log.h"

#include "openai/answer_kinds_test_util.h"
#include "openai/api_server_test_util.h"

namespace cachalot::openai {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

using answer_kinds::by_choice;
using answer_kinds::kCallTemplate;
using answer_kinds::Kind;
using answer_kinds::kinds;
using answer_kinds::Part;
using answer_kinds::parts_of;
using answer_kinds::told_by;
using answer_kinds::without_time;

class AnswerLogTest : public ApiServerTest, public testing::WithParamInterface<Kind> {
 protected:
  AnswerLogTest() {
    options_.max_model_len = 2000;
    chat_template_ = ChatTemplate::from_source(kCallTemplate, "", "").value();
    headers_.set("X-Request-Id", "abc");
  }

  http::Response ask_with_log(const std::string& path, const std::string& body, const std::string& log) {
    headers_.set(std::string(answer_log::kField), std::to_string(log.size()));
    http::Response response = send("POST", path, log + body);
    headers_.erase(answer_log::kField);
    return response;
  }
};

TEST_P(AnswerLogTest, GoesOnBehindEveryRecord) {
  const Kind& kind = GetParam();
  service_.answer_with(kind.answer, kind.ends);
  const http::Response whole = ask_with_log(kind.path, kind.body, "");
  ASSERT_EQ(whole.status, 200) << whole.body;
  const bool is_whole = !kind.body.contains("\"stream\":true");
  EXPECT_THAT(std::string(whole.headers.find(answer_log::kField).value_or("")),
              StartsWith(is_whole ? "whole " : "events "));
  const std::vector<Part> parts = parts_of(whole.body);
  ASSERT_GE(parts.size(), 4u) << whole.body;
  EXPECT_EQ(parts.back().record, answer_log::kEnd);
  const std::string undisturbed = without_time(told_by(parts));
  const std::vector<Request> first = std::move(service_.requests());
  const bool is_mixed = first.size() > 1 && !is_whole;

  std::string log;
  for (size_t cut = 1; cut < parts.size(); ++cut) {
    SCOPED_TRACE("cut behind record " + std::to_string(cut));
    log += parts[cut - 1].record;
    service_.requests().clear();
    const http::Response rest = ask_with_log(kind.path, kind.body, log);
    ASSERT_EQ(rest.status, 200) << rest.body;
    const std::vector<Part> others = parts_of(rest.body);
    ASSERT_FALSE(others.empty());
    EXPECT_EQ(others.back().record, answer_log::kEnd);
    const std::string told =
        without_time(told_by({parts.begin(), parts.begin() + static_cast<ptrdiff_t>(cut)}) + told_by(others));
    if (is_mixed)
      ASSERT_EQ(by_choice(told), by_choice(undisturbed));
    else
      ASSERT_EQ(told, undisturbed);

    for (const Request& request : service_.requests()) {
      const auto other = std::ranges::find_if(first, [&](const Request& one) {
        return one.sampling.choice == request.sampling.choice &&
               std::ranges::equal(one.tokens, std::span(request.tokens).first(one.tokens.size()));
      });
      ASSERT_NE(other, first.end());
      EXPECT_EQ(request.num_prompt_tokens, other->num_prompt_tokens);
      EXPECT_EQ(request.sampling.seed, other->sampling.seed);
      EXPECT_EQ(request.sampling.min_tokens, other->sampling.min_tokens);
      EXPECT_EQ(request.sampling.max_tokens, other->sampling.max_tokens);
      EXPECT_EQ(request.priority, other->priority);
      EXPECT_EQ(request.cache_salt, other->cache_salt);
      // Its constraint stands where the tokens do.
      std::vector<TokenId> all = *tokenizer_->encode(kind.answer, false);
      all.push_back(*tokenizer_->token_id(tokenizer_->eos_token()));
      for (size_t at = request.tokens.size() - other->tokens.size(); request.constraint && at < all.size(); ++at) {
        std::vector<uint32_t> mask(static_cast<size_t>(tokenizer_->vocab_size() + 31) / 32, ~0u);
        ASSERT_TRUE(request.constraint->fill_mask(mask));
        ASSERT_TRUE(mask[static_cast<size_t>(all[at]) / 32] >> (all[at] % 32) & 1) << "token " << at;
        ASSERT_TRUE(request.constraint->accept(all[at]));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, AnswerLogTest, testing::ValuesIn(kinds()),
                         [](const auto& kind) { return std::string(kind.param.name); });

// A server whose answers another one goes on with.
class ResumedElsewhereTest : public ApiServerTest {
 protected:
  ResumedElsewhereTest() {
    options_.max_model_len = 2000;
    chat_template_ = ChatTemplate::from_source(kCallTemplate, "", "").value();
    headers_.set("X-Request-Id", "abc");
    other_service_.answer_with("<think>hm</think>two words");
    service_.answer_with("<think>hm</think>two words");
  }
  void start_other(ApiServerOptions options) {
    other_ = std::make_unique<ApiServer>(other_service_, *tokenizer_, chat_template_.get(), std::move(options));
    other_http_ = std::make_unique<http::Server>(threads_, http::ServerOptions{.host = "127.0.0.1"});
    other_->register_routes(*other_http_);
    ASSERT_TRUE(other_http_->start());
  }
  http::Response send_other(const std::string& method, const std::string& path, const std::string& body = {}) {
    http::ClientRequest request = make_request(method, path, body);
    request.url.port = other_http_->port();
    return *client_.fetch(std::move(request));
  }

  FakeService other_service_{*tokenizer_};
  std::unique_ptr<ApiServer> other_;
  std::unique_ptr<http::Server> other_http_;
};

TEST_F(ResumedElsewhereTest, WhatTheRequestRefersToGoesWithIt) {
  start();
  start_other(options_);
  const Answer first = ask("POST", "/v1/responses", R"({"input":"one"})");
  ASSERT_EQ(first.status, 200);
  const std::string id(first.body.at("id").as_string()), item(first.body.at("output").at(1).at("id").as_string());
  const std::string body = R"({"previous_response_id":")" + id +
                           R"(","stream":true,"input":[{"type":"item_reference","id":")" + item +
                           R"("},{"role":"user","content":"more"}]})";
  headers_.set(std::string(answer_log::kField), "0");
  const std::vector<Part> parts = parts_of(send("POST", "/v1/responses", body).body);
  ASSERT_GT(parts.size(), 5u);
  std::string log, told;
  for (size_t idx = 0; idx < 4; ++idx) log += parts[idx].record, told += parts[idx].told;
  headers_.set(std::string(answer_log::kField), std::to_string(log.size()));
  const http::Response rest = send_other("POST", "/v1/responses", log + body);
  ASSERT_EQ(rest.status, 200) << rest.body;
  EXPECT_EQ(without_time(told + told_by(parts_of(rest.body))), without_time(told_by(parts)));
  EXPECT_EQ(other_service_.requests().back().num_prompt_tokens, service_.requests().back().num_prompt_tokens);
  // It is stored there, with what it builds upon.
  headers_.erase(answer_log::kField);
  for (const std::string& stored : {id, parts.front().told.substr(parts.front().told.find("resp_"), 53)})
    EXPECT_EQ(send_other("GET", "/v1/responses/" + stored).status, 200) << stored;
}

TEST_F(ResumedElsewhereTest, OnlyAServerOfTheSameBitsGoesOn) {
  start();
  ApiServerOptions others = options_;
  others.bits_fingerprint = "others";
  start_other(others);
  headers_.set(std::string(answer_log::kField), "0");
  const std::string body = R"({"prompt":"a","stream":true})";
  const std::string log = parts_of(send("POST", "/v1/completions", body).body).front().record;
  headers_.set(std::string(answer_log::kField), std::to_string(log.size()));
  EXPECT_EQ(send("POST", "/v1/completions", log + body).status, 200);
  EXPECT_EQ(send_other("POST", "/v1/completions", log + body).status, 409);
}

TEST_F(ResumedElsewhereTest, ADamagedLogIsRefused) {
  const std::string body = R"({"prompt":"a","stream":true,"n":2})";
  headers_.set(std::string(answer_log::kField), "0");
  std::string log;
  for (const Part& part : parts_of(send("POST", "/v1/completions", body).body)) log += part.record;
  log.resize(log.rfind(":@e"));
  std::mt19937 random(7);
  for (int round = 0; round < 400; ++round) {
    std::string damaged = log;
    for (int edits = 1 + static_cast<int>(random() % 3); edits > 0; --edits) {
      const size_t at = random() % damaged.size();
      random() % 2 ? damaged.erase(at, 1 + random() % 9) : damaged.insert(at, 1, "{}:@tb, 9-=/;\n\"s"[random() % 16]);
    }
    headers_.set(std::string(answer_log::kField), std::to_string(damaged.size()));
    EXPECT_THAT(send("POST", "/v1/completions", damaged + body).status, testing::AnyOf(200, 400, 409)) << damaged;
  }
  headers_.set(std::string(answer_log::kField), "7000");
  EXPECT_EQ(send("POST", "/v1/completions", body).status, 400) << "longer than the body";
}

TEST_F(ResumedElsewhereTest, WhoFailsGivesUp) {
  start();
  headers_.set(std::string(answer_log::kField), "0");
  service_.fail_after(3);
  const std::vector<Part> parts = parts_of(send("POST", "/v1/completions", R"({"prompt":"a","stream":true})").body);
  EXPECT_EQ(parts.back().record, answer_log::kFailed);
  EXPECT_THAT(parts.back().told, HasSubstr("the device is on fire"));
  service_.fail_after(3, true);
  EXPECT_EQ(parts_of(send("POST", "/v1/completions", R"({"prompt":"a","stream":true})").body).back().record,
            answer_log::kEnd)
      << "any other server would fail, too";
  const std::vector<Part> whole = parts_of(send("POST", "/v1/completions", R"({"prompt":"a"})").body);
  const auto response = parse_whole(told_by(whole));
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 500);
}

}  // namespace
}  // namespace cachalot::openai
