#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/generation.h"
#include "http/server.h"
#include "openai/answer/answer_format.h"
#include "openai/answer/answer_log.h"
#include "openai/answer/choice.h"
#include "openai/api_error.h"
#include "openai/keys/api_keys.h"
#include "openai/keys/client_places.h"
#include "telemetry/tracer.h"
#include "text/grammar.h"

namespace cachalot::openai {

// Bytes that answers under way may hold together until they are sent. Thread-safe.
class AnswerBudget {
 public:
  explicit AnswerBudget(int64_t limit) : limit_(limit) {}

  int64_t limit() const { return limit_; }
  bool take(int64_t num_bytes) {
    if (held_.fetch_add(num_bytes) + num_bytes <= limit_) return true;
    give_back(num_bytes);
    return false;
  }
  void give_back(int64_t num_bytes) { held_.fetch_sub(num_bytes); }

 private:
  const int64_t limit_;
  std::atomic<int64_t> held_{0};
};

// One API request, understood: what to generate and how to say it.
struct GenerationPlan {
  std::vector<Prompt> prompts;
  int choices_per_prompt = 1;
  int num_best = 1;         // of them, the likeliest by token, are given; only in whole answers fewer
  SamplingParams sampling;  // of every choice, but for max_tokens and choice
  int priority = 0;
  uint64_t client = 0;                          // of Request
  ClientPlaces::Place place;                    // of the client, until the end
  std::shared_ptr<const ApiKeys::Guest> guest;  // whose tokens are counted; null: nobody's
  bool tells_usage = false;
  std::string cache_salt;
  int64_t arrival_ns = 0;
  ChoiceOptions choice;                       // of every choice
  std::unique_ptr<boost::json::array> tools;  // that choice.tools borrows
  // What each choice must be of, with the rest of what its constraint needs; none: anything.
  std::unique_ptr<GrammarMatcher> grammar;
  Thought thought;  // but for is_open
  std::vector<TokenId> end_ids;
  int vocab_size = 0;
  int thought_budget = -1;
  bool include_progress = false;  // in a stream
  std::shared_ptr<MaskWorkers> mask_workers;
  std::shared_ptr<MaskBudget> mask_budget;
  bool stream = false, continuous_usage = false;
  bool holds_answer = false;  // a stream, too: what ends it is all of it
  http::Headers headers;      // of the response
  std::unique_ptr<AnswerFormat> format;
  std::shared_ptr<AnswerBudget> budget;
  std::chrono::milliseconds keep_alive{15'000};  // a stream that has nothing to say for so long says that it lives
  bool may_go_elsewhere = false;                 // an answer that the server's end cuts off: somebody asks another one
  boost::json::array stored;                     // responses that it refers to (AnswerStart)
  std::optional<std::string> start_record;       // of the answer's log, which somebody wants; none: nobody
  http::Headers log_headers;                     // with it, of the response
  bool is_logged = false;                        // the call tells its story
  telemetry::Tracer* tracer = nullptr;           // takes the span, if there is one
  std::optional<telemetry::Span> span;           // of the request
};

// Runs a plan: a core request for each choice, and the answer, whole or streamed, when they are done or as they go. The
// engine's thread only leaves its outputs in a mailbox; the call's coroutine turns them into text. What is not done
// when it goes is aborted. Borrows all but the plan.
class GenerationCall {
 public:
  GenerationCall(GenerationService& service, const Tokenizer& tokenizer, http::ServerCall& client, GenerationPlan plan);
  ~GenerationCall();
  GenerationCall(const GenerationCall&) = delete;
  GenerationCall& operator=(const GenerationCall&) = delete;
  // Another server has begun the answer: tells it again to nobody, so that run() goes on behind it. On any thread.
  Status resume(AnswerLog log);
  // Once.
  http::awaitable<void> run();

 private:
  // One sequence of the engine.
  struct Sequence {
    RequestId id = 0;
    const Prompt& prompt;
    Choice choice;
    double logprob_sum = 0;          // of its tokens, where the best are chosen
    std::vector<TokenId> generated;  // by another server
  };
  struct Mail {
    size_t sequence;
    RequestOutput output;
  };

  Result<Request> make_request(const Sequence& sequence, size_t index) const;
  Status make_requests();
  void make_sequences();
  Status submit();
  void take(Mail mail, std::string& events);
  void say(Mail mail, std::string& events);
  bool is_streamed() const { return plan_.stream || plan_.start_record; }
  http::awaitable<void> begin_stream();
  void end_answer(std::string& events);
  bool may_hold(const RequestOutput& output);
  void fail(const ApiError& error, std::string& events);
  void give_up(const ApiError& error, std::string_view record, std::string& events);
  void abort_all();
  void add_times(const RequestTimes& times);
  std::string story() const;  // for the log
  void trace_end();
  void keep_the_best();
  Usage usage() const;

  GenerationService& service_;
  const Tokenizer& tokenizer_;
  http::ServerCall& client_;
  GenerationPlan plan_;
  std::vector<Sequence> sequences_;
  std::vector<ChoiceText> wholes_;  // what a whole answer has of each so far
  std::vector<Request> requests_;   // until they are submitted
  std::shared_ptr<http::Mailbox<Mail>> mailbox_;
  http::Response answer_;  // where nothing is streamed
  size_t num_finished_ = 0;
  int64_t num_held_bytes_ = 0;  // of the budget
  bool over_ = false, is_resumed_ = false;
  std::string_view last_record_ = answer_log::kEnd;
  Usage charged_;       // by the server that began it
  RequestTimes times_;  // the first of its sequences' admissions and tokens, the last of their last tokens
};

}  // namespace cachalot::openai
