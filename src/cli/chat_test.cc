#include "cli/chat.h"

#include <gmock/gmock.h>

#include <boost/json.hpp>

#include "http/loopback_test_util.h"
#include "http/message.h"
#include "http/server.h"

namespace cachalot {

namespace {

namespace json = boost::json;
using testing::HasSubstr;

std::string event(const json::object& delta, const json::value& finish = nullptr) {
  return http::format_sse(json::serialize(
      json::object{{"choices", json::array{json::object{{"delta", delta}, {"finish_reason", finish}}}}}));
}

class ChatSessionTest : public testing::Test {
 protected:
  ChatSessionTest() : server_(threads_, {.host = "127.0.0.1"}) {
    server_.route("GET", "/v1/models",
                  [](const http::Request&) { return http::Response::json(200, R"({"data":[{"id":"the-model"}]})"); });
    server_.route(
        "POST", "/v1/chat/completions",
        http::Responder::of([this](const http::Request& request, const http::Responder& responder) {
          bodies_.push_back(json::parse(request.body));
          authorization_ = request.headers.find("Authorization").value_or("");
          if (status_ != 200)
            return responder.respond(http::Response::json(status_, R"({"error":{"message":"no such luck"}})"));
          responder.begin(200, {});
          responder.write(answer_);
          if (ends_) return responder.end();
          waiting_ = responder;
        }));
    EXPECT_TRUE(server_.start());
    options_.url = "127.0.0.1:" + std::to_string(server_.port()) + "/";
  }

  Result<std::string> ask(ChatSession& session, const std::string& text) {
    said_.clear();
    return session.ask(text, [&](ChatSession::Part part, std::string_view piece) {
      said_ += part == ChatSession::Part::kReasoning ? "(" + std::string(piece) + ")" : std::string(piece);
    });
  }

  http::IoThreads threads_{1};
  std::vector<json::value> bodies_;
  std::string authorization_, said_;
  int status_ = 200;
  bool ends_ = true;
  std::string answer_ = event({{"role", "assistant"}, {"content", ""}}) +
                        event({{"reasoning", "hm"}, {"reasoning_content", "hm"}}) + event({{"content", "Mon"}}) +
                        event({{"content", "day"}}, "stop") + http::format_sse("[DONE]");
  std::optional<http::Responder> waiting_;
  ChatOptions options_;
  http::Server server_;
};

TEST_F(ChatSessionTest, StreamsThoughtAndAnswerAndRemembersWhatWasSaid) {
  options_.api_key = "sesame";
  options_.system = "be brief";
  options_.temperature = 0.5;
  ChatSession session(threads_, options_);
  ASSERT_TRUE(session.connect());
  EXPECT_EQ(session.model(), "the-model");
  EXPECT_EQ(ask(session, "Sunday?"), "stop");
  EXPECT_EQ(said_, "(hm)Monday");
  EXPECT_EQ(authorization_, "Bearer sesame");
  EXPECT_EQ(bodies_[0].at("model"), "the-model");
  EXPECT_EQ(bodies_[0].at("temperature"), 0.5);
  EXPECT_FALSE(bodies_[0].as_object().contains("max_tokens"));
  ask(session, "And then?");
  const json::array& messages = bodies_[1].at("messages").as_array();
  ASSERT_EQ(messages.size(), 4u);
  EXPECT_EQ(messages[0].at("content"), "be brief");
  EXPECT_EQ(messages[2].at("content"), "Monday");  // without the thought
  session.reset();
  ask(session, "Who?");
  EXPECT_EQ(bodies_[2].at("messages").as_array().size(), 2u);
}

TEST_F(ChatSessionTest, ARefusedQuestionIsForgotten) {
  ChatSession session(threads_, options_);
  status_ = 400;
  const auto refused = ask(session, "a");
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, testing::AllOf(HasSubstr("400"), HasSubstr("no such luck")));
  status_ = 200;
  EXPECT_TRUE(ask(session, "b"));
  EXPECT_EQ(bodies_.back().at("messages").as_array().size(), 1u);
}

TEST_F(ChatSessionTest, AnAnswerThatBreaksOffIsAnError) {
  ChatSession session(threads_, options_);
  answer_ = event({{"content", "Mon"}});
  EXPECT_FALSE(ask(session, "a"));
  answer_ = event({{"content", "Mon"}}) + http::format_sse(R"({"error":{"message":"on fire"}})");
  const auto failed = ask(session, "a");
  ASSERT_FALSE(failed);
  EXPECT_THAT(failed.error().message, HasSubstr("on fire"));
  answer_ = http::format_sse("not json");
  EXPECT_FALSE(ask(session, "a"));
}

TEST_F(ChatSessionTest, WhatAServerSaysInPlaceOfAnAnswerMovesNoCursor) {
  for (const std::string& odd :
       {http::format_sse("\x1b[2J"), http::format_sse(R"({"error": {"message": "\u001b[2J"}})")}) {
    answer_ = odd;
    ChatSession session(threads_, options_);
    ASSERT_TRUE(session.connect());
    const auto finish = ask(session, "Sunday?");
    ASSERT_FALSE(finish);
    EXPECT_THAT(finish.error().message, HasSubstr("\\x1b[2J"));
  }
  for (const std::string body : {"\x1b[2J", R"({"error": {"message": "\u001b[2J"}})"})
    EXPECT_EQ(openai::refusal(500, body).message, "the server answers 500: \\x1b[2J");
}

TEST_F(ChatSessionTest, StopEndsTheAnswerAndKeepsWhatCame) {
  ChatSession session(threads_, options_);
  answer_ = event({{"content", "Mon"}});
  ends_ = false;
  const auto stopped = session.ask("a", [&](auto, std::string_view) { session.stop(); });
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::kCancelled);
  ends_ = true;
  ask(session, "b");
  EXPECT_EQ(bodies_.back().at("messages").at(1).at("content"), "Mon");
}

TEST_F(ChatSessionTest, SaysWhichServerIsNotThere) {
  options_.url = "http://127.0.0.1:1";
  const Status status = ChatSession(threads_, options_).connect();
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr("127.0.0.1:1"));
}

TEST(ApiAddress, EndingsThatWereCopiedFromARequestAreCut) {
  for (const char* url :
       {"http://h:1", "http://h:1/", "h:1/v1", "http://h:1/v1/", "http://h:1/v1//", "http://h:1/v1/chat/completions",
        "http://h:1/v1/chat/completions/", "h:1/chat/completions", "http://h:1/v1/completions", "http://h:1/v1/models",
        "http://h:1/v1?a=b", "http://h:1/health"})
    EXPECT_EQ(openai::ApiAddress(url, "").url(), "http://h:1/v1") << url;
  EXPECT_EQ(openai::ApiAddress("http://h/llm/v1/models", "").url(), "http://h/llm/v1");
  EXPECT_EQ(openai::ApiAddress("http://models", "").url(), "http://models/v1");
}

}  // namespace

}  // namespace cachalot
