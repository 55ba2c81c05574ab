#include "eval/interview.h"

#include <gmock/gmock.h>

#include <boost/json.hpp>
#include <map>
#include <mutex>

#include "base/text.h"
#include "http/server.h"

namespace cachalot {
namespace {

namespace json = boost::json;
using std::chrono::milliseconds;
using testing::HasSubstr;

// A server that repeats each question, the thought before it, unless the question is the status to answer with.
class InterviewTest : public testing::Test {
 protected:
  InterviewTest() : server_(threads_, {.host = "127.0.0.1"}) {
    server_.route("POST", "/v1/chat/completions", [this](const http::Request& request) {
      return answer(json::parse(request.body), "/messages/0/content", [](const std::string& question) {
        json::object message{{"content", question}, {"reasoning", "hm"}};
        if (question == "call") {
          message["content"] = nullptr;
          message["tool_calls"] = {{{"function", {{"name", "f"}, {"arguments", "{\"x\": 1}"}}}},
                                   {{"function", {{"name", "g"}, {"arguments", "{}"}}}}};
        }
        return json::object{{"message", message}};
      });
    });
    server_.route("POST", "/v1/completions", [this](const http::Request& request) {
      return answer(json::parse(request.body), "/prompt", [](const std::string& question) {
        return json::object{{"text", "<think>hm</think>\n\n" + question}};
      });
    });
    EXPECT_TRUE(server_.start());
  }

  http::Response answer(const json::value& body, const char* where,
                        const std::function<json::object(const std::string&)>& choice_of) {
    const std::string question(*openai::find_text(body, where));
    const std::lock_guard lock(mutex_);
    bodies_.push_back(body);
    const int num_before = num_asked_[question]++;
    if (question.starts_with("503") && num_before >= num_refusals_) {
      // It has time now.
    } else if (const int status = leading_number<int>(question)) {
      return http::Response::json(status, R"({"error":{"message":"no such luck"}})");
    }
    json::object choice = choice_of(question);
    choice["finish_reason"] = "stop";
    return http::Response::json(200, json::serialize(json::object{{"choices", json::array{choice}}}));
  }

  Answers ask(const std::vector<std::string>& texts, const std::stop_token& stop = {}) {
    std::vector<Question> questions;
    for (const std::string& text : texts) questions.push_back({"f", text, text, 1});
    return ask_questions(questions, stop);
  }

  Answers ask_questions(const std::vector<Question>& questions, const std::stop_token& stop = {}) {
    const openai::ApiAddress address("127.0.0.1:" + std::to_string(server_.port()), "");
    return ask_all(
        http::Client(threads_), address, questions, options_, [&](size_t num_done) { progress_.push_back(num_done); },
        stop);
  }

  http::IoThreads threads_{1};
  std::mutex mutex_;  // guards what the server's thread writes
  std::vector<json::value> bodies_;
  std::map<std::string, int> num_asked_;
  int num_refusals_ = 2;
  std::vector<size_t> progress_;
  InterviewOptions options_{.model = "the-model", .concurrency = 3};
  http::Server server_;
};

TEST_F(InterviewTest, GivesTheAnswersInTheOrderOfTheQuestions) {
  const std::vector<std::string> questions{"a", "b", "c", "d", "e", "f", "g"};
  const Answers answers = ask(questions);
  ASSERT_EQ(answers.size(), questions.size());
  for (size_t idx = 0; idx < questions.size(); idx++) EXPECT_EQ(answers[idx]->text, questions[idx]);
  EXPECT_THAT(progress_, testing::ElementsAre(1, 2, 3, 4, 5, 6, 7));
}

TEST_F(InterviewTest, AsksGreedilyInTheChatTemplate) {
  ask({"a"});
  EXPECT_EQ(bodies_.at(0), json::value({{"model", "the-model"},
                                        {"temperature", 0},
                                        {"messages", json::array{json::object{{"role", "user"}, {"content", "a"}}}}}));
}

TEST_F(InterviewTest, MessagesAndToolsAreSentAndCallsStandInLines) {
  const json::array messages{{{"role", "user"}, {"content", "call"}}, {{"role", "tool"}, {"content", "x"}}};
  const json::array tools{{{"type", "function"}, {"function", {{"name", "f"}}}}};
  const Answers answers = ask_questions({Question{"f", "q", "f {\"x\": 1}\ng {}", 1, messages, tools}});
  EXPECT_EQ(bodies_.at(0),
            json::value({{"model", "the-model"}, {"temperature", 0}, {"messages", messages}, {"tools", tools}}));
  EXPECT_EQ(after_thought(answers.at(0)->text), "f {\"x\": 1}\ng {}");
}

TEST_F(InterviewTest, BareQuestionsAreContinuedAsTheyAre) {
  options_.bare = true;
  const Answers answers = ask({"a"});
  EXPECT_EQ(after_thought(answers.at(0)->text), "a");
  EXPECT_EQ(bodies_.at(0),
            json::value({{"model", "the-model"}, {"temperature", 0}, {"prompt", "a\n"}, {"max_tokens", 1024}}));
  options_.max_tokens = 7;
  ask({"a"});
  EXPECT_EQ(bodies_.at(1).at("max_tokens"), 7);
}

TEST_F(InterviewTest, OneFailureLeavesTheOthersAlone) {
  const Answers answers = ask({"a", "500", "b"});
  EXPECT_TRUE(answers[0] && answers[2]);
  ASSERT_FALSE(answers[1]);
  EXPECT_EQ(answers[1].error().message, "the server answers 500: no such luck");
  EXPECT_EQ(num_asked_["500"], 1);
}

TEST_F(InterviewTest, ABusyServerIsAskedAgain) {
  const Answers answers = ask({"503"});
  ASSERT_TRUE(answers[0]) << answers[0].error().message;
  EXPECT_EQ(answers[0]->text, "503");
  EXPECT_EQ(num_asked_["503"], 3);
}

TEST_F(InterviewTest, AServerThatStaysBusyIsGivenUpOnce) {
  options_.patience = milliseconds(250);
  options_.concurrency = 1;
  num_refusals_ = 1000;
  const Answers answers = ask({"503", "503 b", "a", "503 c"});
  EXPECT_THAT(answers[0].error().message, HasSubstr("503"));
  EXPECT_EQ(num_asked_["503"], 2);
  EXPECT_EQ(num_asked_["503 b"], 1) << "it is known to be busy";
  EXPECT_TRUE(answers[2]);
  EXPECT_EQ(num_asked_["503 c"], 2) << "it has answered since";
}

TEST_F(InterviewTest, AfterARequestToStopNothingIsAsked) {
  std::stop_source stop;
  stop.request_stop();
  const Answers answers = ask({"a", "b"}, stop.get_token());
  EXPECT_THAT(answers[0].error().message, HasSubstr("not asked"));
  EXPECT_TRUE(bodies_.empty());
}

TEST_F(InterviewTest, WhatIsNoCompletionIsAFailure) {
  http::Server odd(threads_, {.host = "127.0.0.1"});
  odd.route("POST", "/v1/chat/completions",
            [](const http::Request&) { return http::Response::json(200, R"({"choices":[]})"); });
  ASSERT_TRUE(odd.start());
  const openai::ApiAddress address("127.0.0.1:" + std::to_string(odd.port()), "");
  const Answers answers =
      ask_all(http::Client(threads_), address, {{"f", "q", "a", 1}}, options_, [](size_t) {}, std::stop_token());
  EXPECT_THAT(answers.at(0).error().message, HasSubstr("no completion: '{\"choices\":[]}'"));
}

}  // namespace
}  // namespace cachalot
