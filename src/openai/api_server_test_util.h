#pragma once

#include <gmock/gmock.h>

#include <boost/json.hpp>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "http/client.h"
#include "http/message.h"
#include "openai/api_server.h"
#include "openai/fake_service_test_util.h"

namespace cachalot::openai {

namespace json = boost::json;

inline const std::string kModelFolder = std::string(CACHALOT_SOURCE_DIR) + "/models/nano";

// What the API answered.
struct Answer {
  int status = 0;
  http::Headers headers;
  json::value body;
  const json::object& error() const { return body.at("error").as_object(); }
};

// A server of the API on loopback, with the built-in model's tokenizer and a service that answers what it is told.
class ApiServerTest : public testing::Test {
 protected:
  ApiServerTest() {
    options_.served_model_names = {"nano", "deepseek/nano"};
    options_.max_model_len = 200;
    options_.version = "1.2.3";
    options_.system_fingerprint = "fp";
    options_.bits_fingerprint = "bits";
  }

  void start() {
    api_ = std::make_unique<ApiServer>(service_, *tokenizer_, chat_template_.get(), options_);
    api_->set_metrics([] { return std::string("up 1\n"); });
    api_->set_expert_load([] { return std::string(R"({"layers":[[1,2]]})"); });
    api_->set_state([] { return std::string(R"({"phase":"loading"})"); });
    server_ = std::make_unique<http::Server>(threads_, http::ServerOptions{.host = "127.0.0.1"});
    api_->register_routes(*server_);
    ASSERT_TRUE(server_->start());
  }

  http::ClientRequest make_request(const std::string& method, const std::string& path, std::string body) {
    if (!server_) start();
    return {.method = method,
            .url = *http::parse_url("http://127.0.0.1:" + std::to_string(server_->port()) + path),
            .headers = headers_,
            .body = std::move(body)};
  }
  http::Response send(const std::string& method, const std::string& path, std::string body = {}) {
    auto response = client_.fetch(make_request(method, path, std::move(body)));
    EXPECT_TRUE(response) << response.error().message;
    return response.value_or(http::Response{});
  }
  Answer ask(const std::string& method, const std::string& path, const std::string& body = {}) {
    http::Response response = send(method, path, body);
    boost::system::error_code error;
    Answer answer{response.status, std::move(response.headers), json::parse(response.body, error)};
    EXPECT_FALSE(error) << response.body;
    return answer;
  }
  // Whether the constraint of the last request lets this answer through, from its first token to its end.
  bool last_request_takes(std::string_view answer) {
    TokenConstraint* constraint = service_.requests().back().constraint.get();
    if (!constraint) return true;
    std::vector<TokenId> tokens = *tokenizer_->encode(answer, false);
    tokens.push_back(*tokenizer_->token_id(tokenizer_->eos_token()));
    for (const TokenId token : tokens) {
      std::vector<uint32_t> mask(static_cast<size_t>(tokenizer_->vocab_size() + 31) / 32, ~0u);
      EXPECT_TRUE(constraint->fill_mask(mask));
      if ((mask[static_cast<size_t>(token) / 32] >> (token % 32) & 1) == 0) return false;
      EXPECT_TRUE(constraint->accept(token));
    }
    return true;
  }
  // A valid request, most often with a few bytes changed: any answer, but an answer.
  void send_damaged(const std::string& path, const std::string& valid) {
    std::mt19937 random(12);
    int num_accepted = 0;
    for (int i = 0; i < 550; ++i) {
      std::string body = valid;
      for (int edits = static_cast<int>(random() % 4); edits > 0; --edits) {
        const size_t at = random() % body.size();
        random() % 2 ? body.erase(at, 1 + random() % 10) : body.insert(at, 1, "{}[]\",:0-e\xc3"[random() % 11]);
      }
      const http::Response response = send("POST", path, body);
      EXPECT_THAT(response.status, testing::AnyOf(200, 400, 404)) << body;
      num_accepted += response.status == 200;
    }
    EXPECT_GT(num_accepted, 50);
  }
  // The data of the events; whole ones only.
  std::vector<std::string> stream(const std::string& path, const std::string& body) {
    const http::Response response = send("POST", path, body);
    EXPECT_EQ(response.status, 200) << response.body;
    EXPECT_EQ(response.headers.find("Content-Type"), "text/event-stream; charset=utf-8");
    std::vector<std::string> events;
    const auto parsed = http::SseParser().add(response.body);
    EXPECT_TRUE(parsed);
    for (const auto& event : *parsed) events.push_back(event.data);
    return events;
  }

  std::unique_ptr<Tokenizer> tokenizer_ = Tokenizer::load(kModelFolder).value();
  std::unique_ptr<ChatTemplate> chat_template_ = ChatTemplate::load(kModelFolder).value();
  http::IoThreads threads_{2};
  http::Client client_{threads_};
  http::Headers headers_;
  ApiServerOptions options_;
  FakeService service_{*tokenizer_};
  std::unique_ptr<ApiServer> api_;
  std::unique_ptr<http::Server> server_;
};

}  // namespace cachalot::openai
