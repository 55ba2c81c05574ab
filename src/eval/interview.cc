#include "eval/interview.h"

#include <algorithm>
#include <atomic>
#include <boost/json.hpp>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/text.h"

namespace cachalot {

namespace json = boost::json;

namespace {

using Clock = std::chrono::steady_clock;

std::string request_body(const Question& question, const InterviewOptions& options) {
  json::object body{{"model", options.model}, {"temperature", 0}};
  if (options.bare) {
    body["prompt"] = question.question + "\n";
  } else {
    body["messages"] = question.messages.empty()
                           ? json::array{json::object{{"role", "user"}, {"content", question.question}}}
                           : question.messages;
    if (!question.tools.empty()) body["tools"] = question.tools;
  }
  const std::optional<int> max_tokens = options.bare ? options.max_tokens.value_or(kBareMaxTokens) : options.max_tokens;
  if (max_tokens) body["max_tokens"] = *max_tokens;
  return json::serialize(body);
}

// As a question file writes them.
void append_calls(const json::value& completion, std::string& text) {
  boost::system::error_code error;
  const json::value* calls = completion.find_pointer("/choices/0/message/tool_calls", error);
  if (!calls || !calls->is_array()) return;
  for (const json::value& call : calls->get_array()) {
    const json::string* name = openai::find_text(call, "/function/name");
    const json::string* arguments = openai::find_text(call, "/function/arguments");
    if (name && arguments) text += "\n" + std::string(*name) + " " + std::string(*arguments);
  }
}

// A chat's `content` is null if all of the answer was thought, or calls.
Result<Answer> read_answer(const std::string& body, bool bare) {
  boost::system::error_code error;
  const json::value value = json::parse(body, error);
  const json::string* finish = error ? nullptr : openai::find_text(value, "/choices/0/finish_reason");
  const json::string* text =
      error ? nullptr : openai::find_text(value, bare ? "/choices/0/text" : "/choices/0/message/content");
  if (!finish || (bare && !text))
    return make_error(ErrorCode::kCorrupt, "the server answers what is no completion: {}", quoted(body, 200));
  Answer answer{text ? std::string(*text) : std::string(), std::string(*finish)};
  append_calls(value, answer.text);
  return answer;
}

class Interview {
 public:
  Interview(const http::Client& client, const openai::ApiAddress& address, const std::vector<Question>& questions,
            const InterviewOptions& options, const std::function<void(size_t)>& on_progress,
            const std::stop_token& stop)
      : client_(client),
        address_(address),
        questions_(questions),
        options_(options),
        on_progress_(on_progress),
        stop_(stop),
        answers_(questions.size()) {}

  Answers run() {
    {
      std::vector<std::jthread> threads;
      const size_t num_threads = std::min(questions_.size(), static_cast<size_t>(options_.concurrency));
      for (size_t thread = 0; thread < num_threads; thread++) threads.emplace_back([this] { ask_in_turn(); });
    }
    return std::move(answers_);
  }

 private:
  void ask_in_turn() {
    for (size_t idx; (idx = next_++) < questions_.size();) {
      answers_[idx] = ask_patiently(questions_[idx]);
      const std::lock_guard lock(mutex_);
      on_progress_(++num_done_);
    }
  }

  // Again and again while the server has too much to do. Once it has outlasted the patience of one question, others
  // have none, until it answers one.
  Result<Answer> ask_patiently(const Question& question) {
    const auto deadline = Clock::now() + options_.patience;
    for (std::chrono::milliseconds pause{100};; pause = std::min(2 * pause, std::chrono::milliseconds(2000))) {
      if (stop_.stop_requested()) return make_error(ErrorCode::kCancelled, "not asked: the server has failed");
      ASSIGN_OR_RETURN(http::ClientRequest request,
                       address_.request("POST", options_.bare ? "/completions" : "/chat/completions",
                                        request_body(question, options_)));
      ASSIGN_OR_RETURN(const http::Response response, client_.fetch(std::move(request)));
      if (response.status == 200) {
        is_hopeless_ = false;
        return read_answer(response.body, options_.bare);
      }
      const bool again = response.status == 503 && !is_hopeless_ && Clock::now() + pause < deadline;
      if (!again) {
        if (response.status == 503) is_hopeless_ = true;
        return std::unexpected(openai::refusal(response.status, response.body));
      }
      std::unique_lock lock(mutex_);
      never_.wait_for(lock, stop_, pause, [] { return false; });
    }
  }

  const http::Client& client_;
  const openai::ApiAddress& address_;
  const std::vector<Question>& questions_;
  const InterviewOptions& options_;
  const std::function<void(size_t)>& on_progress_;
  const std::stop_token stop_;

  std::atomic<size_t> next_{0};
  std::atomic<bool> is_hopeless_{false};
  Answers answers_;  // each written by the thread that asked
  std::mutex mutex_;
  std::condition_variable_any never_;  // a pause ends early for `stop_` only
  size_t num_done_ = 0;                // guarded by the mutex
};

}  // namespace

Answers ask_all(const http::Client& client, const openai::ApiAddress& address, const std::vector<Question>& questions,
                const InterviewOptions& options, const std::function<void(size_t num_done)>& on_progress,
                const std::stop_token& stop) {
  return Interview(client, address, questions, options, on_progress, stop).run();
}

}  // namespace cachalot
