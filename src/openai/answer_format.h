#pragma once

#include <boost/json/object.hpp>
#include <memory>
#include <string>
#include <vector>

#include "openai/choice.h"
#include "openai/logprobs.h"

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
  bool reasoning = false;  // the answer may have a thought
};

// The wording of one endpoint's answers, whole and in chunks. One answer, one thread at a time.
class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;

  // Objects with these choices.
  virtual boost::json::object whole(boost::json::array choices) const = 0;
  virtual boost::json::object chunk(boost::json::array choices) const = 0;
  virtual boost::json::object whole_choice(size_t index, const ChoiceText& text) = 0;
  virtual boost::json::object chunk_choice(size_t index, const ChoiceText& text) = 0;
  // Whether a stream begins with a chunk for every choice, before there is any text.
  virtual bool has_opening() const = 0;
  virtual boost::json::object opening_choice(size_t index) const = 0;
};

// Borrow the tokenizer.
std::unique_ptr<AnswerFormat> make_completion_format(const Tokenizer& tokenizer, AnswerHead head, AnswerOptions options,
                                                     size_t num_choices);
std::unique_ptr<AnswerFormat> make_chat_format(const Tokenizer& tokenizer, AnswerHead head, AnswerOptions options);

}  // namespace cachalot::openai
