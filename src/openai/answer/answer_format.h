#pragma once

#include <boost/json/object.hpp>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "openai/answer/choice.h"
#include "openai/api_error.h"
#include "text/tokenizer.h"

namespace cachalot::openai {

struct Usage {
  int prompt_tokens = 0, completion_tokens = 0, cached_tokens = 0, reasoning_tokens = 0;
  boost::json::object to_json() const;
};

// What is the same in all of an answer's objects.
struct AnswerHead {
  std::string id;  // "cmpl-...", "chatcmpl-...", "resp_...", "msg_..."
  int64_t created = 0;
  std::string model;
  std::string system_fingerprint;  // of the server: version, model, settings; empty: null
  std::string service_tier;        // that served it; empty: null, none was asked for
};

struct AnswerOptions {
  int num_logprobs = -1;
  bool prompt_logprobs = false;
  bool tokens_as_ids = false;
  bool ids = false;         // return_token_ids
  bool prompt_ids = true;   // with them; false: each choice has a prompt of its own
  bool reasoning = false;   // the answer may have a thought
  bool named_call = false;  // the request named the tool, which is then no reason to finish, as in OpenAI's answers
  // Of a stream: at its end, the field of what comes before being null; or in every chunk.
  bool include_usage = false, continuous_usage = false;
};

// The wording of one endpoint's answers, whole or as a stream of events. One answer, one thread at a time.
class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;

  // The whole answer; each choice is given up as soon as it is written.
  virtual std::string whole(std::span<ChoiceText> choices, const Usage& usage) = 0;

  // These append events (http::format_sse): what a stream begins with before there is any text, ...
  virtual void begin(size_t num_choices, const Usage& usage, std::string& events) = 0;
  // ... what is new of a choice (`usage`: as far as it is to stand in every event), ...
  virtual void add(size_t index, const ChoiceText& text, const std::optional<Usage>& usage, std::string& events) = 0;
  // ... how far a request is that has no text yet, if it was asked for, ...
  virtual void progress(const RequestProgress& /*progress*/, int /*num_prompt_tokens*/, std::string& /*events*/) {}
  // ... and its end, or that of a stream that broke off.
  virtual void end(const Usage& usage, std::string& events) = 0;
  virtual void fail(const ApiError& error, std::string& events) { events += error.to_event(); }
  // In place of a whole answer.
  virtual http::Response refusal(const ApiError& error, const http::Headers& headers) const {
    return error.to_response(headers);
  }
  // What a stream that has nothing to say says for so long: that it lives.
  virtual std::string_view keep_alive() const { return ": keep-alive\n\n"; }
  // Whether an answer that the server's end cut off is one; else it is an error.
  virtual bool tells_of_aborts() const { return true; }
};

// Borrow the tokenizer.
std::unique_ptr<AnswerFormat> make_completion_format(const Tokenizer& tokenizer, AnswerHead head, AnswerOptions options,
                                                     size_t num_choices);
std::unique_ptr<AnswerFormat> make_chat_format(const Tokenizer& tokenizer, AnswerHead head, AnswerOptions options);

// For other formats of chats.

int64_t unix_seconds();  // now

// The id of a call whose model gave it none, behind its prefix: a function of the answer, so that another server that
// goes on with it gives the same.
std::string made_call_id(const AnswerHead& head, size_t choice, size_t call);

// How probabilities are written. `tokens_as_ids`: a token's text is "token_id:17".
struct LogprobsStyle {
  const Tokenizer& tokenizer;
  bool tokens_as_ids = false;
};
// A list of tokens, each with its bytes and its alternatives. JSON, without a tree of values, which would take 10 KB
// for a token with 20 alternatives.
void append_token_logprobs(const LogprobsStyle& style, std::span<const ReportedToken> tokens, int num_top,
                           std::string& text);

}  // namespace cachalot::openai
