#pragma once

#include <boost/json/object.hpp>
#include <functional>
#include <memory>
#include <string>

#include "openai/answer/answer_format.h"
#include "openai/responses/responses_request.h"

namespace cachalot::openai {

struct ResponsesAnswer {
  AnswerHead head;
  boost::json::object echo;  // of the request
  NamespacedTools namespaced_tools;
  int num_logprobs = -1;
  bool tokens_as_ids = false;
  bool returns_thoughts = false;                   // encrypted_content of reasoning items
  std::function<void(std::string response)> keep;  // gets the object when it is whole; may be empty
};

// Of POST /v1/responses: reasoning, message and function_call items, and OpenAI's events of them. Borrows the
// tokenizer.
std::unique_ptr<AnswerFormat> make_responses_format(const Tokenizer& tokenizer, ResponsesAnswer answer);

}  // namespace cachalot::openai
