#pragma once

#include <boost/json/object.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "openai/choice.h"
#include "text/tokenizer.h"

namespace cachalot::openai {

struct Usage {
  int prompt_tokens = 0, completion_tokens = 0, cached_tokens = 0, reasoning_tokens = 0;
  boost::json::object to_json() const;
};

// What is the same in all of an answer's objects.
struct AnswerHead {
  std::string id;  // "cmpl-...", "chatcmpl-..."
  int64_t created = 0;
  std::string model;
  std::string system_fingerprint;  // of the server: version, model, settings; empty: null
  std::string service_tier;        // that served it; empty: null, none was asked for
};

struct AnswerOptions {
  int num_logprobs = -1;
  bool prompt_logprobs = false;
  bool tokens_as_ids = false;
  bool reasoning = false;   // the answer may have a thought
  bool named_call = false;  // the request named the tool, which is then no reason to finish, as in OpenAI's answers
};

// The wording of one endpoint's answers, whole and in chunks: JSON, piece by piece. One answer, one thread at a time.
class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;

  // Objects with these choices, which stand in one text with commas between them.
  virtual std::string whole(std::string_view choices, const Usage& usage) const = 0;
  // `usage`: absent: the field, too; null: its value.
  virtual std::string chunk(std::string_view choices, const std::optional<boost::json::value>& usage) const = 0;
  virtual void append_choice(size_t index, const ChoiceText& text, bool is_chunk, std::string& choices) = 0;
  // What a stream begins with for every choice, before there is any text; empty: nothing.
  virtual std::string opening_choice(size_t /*index*/) const { return {}; }
};

// Borrow the tokenizer.
std::unique_ptr<AnswerFormat> make_completion_format(const Tokenizer& tokenizer, AnswerHead head, AnswerOptions options,
                                                     size_t num_choices);
std::unique_ptr<AnswerFormat> make_chat_format(const Tokenizer& tokenizer, AnswerHead head, AnswerOptions options);

}  // namespace cachalot::openai
