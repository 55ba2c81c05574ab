#pragma once

#include <boost/json/object.hpp>
#include <memory>

#include "openai/answer/answer_format.h"
#include "openai/request/chat_request.h"

namespace cachalot::openai {

// A body of Anthropic's POST /v1/messages, as the chat that it is. Its max_tokens is no more than a bound: what the
// model's context has room for may be less. With 0 the prompt is computed, so that it stands in the cache.
struct MessagesRequest {
  ChatRequest chat;
  int max_tokens = 0;
};

// `counts_only`: of /v1/messages/count_tokens, without what concerns an answer.
ApiResult<MessagesRequest> parse_messages_request(const boost::json::object& object, const GenerationConfig& defaults,
                                                  const RequestLimits& limits, bool counts_only = false);

struct MessagesAnswer {
  AnswerHead head;
  std::string request_id;
  int max_tokens = 0;  // that were asked for
};

// Content blocks of thoughts, texts and calls, and Anthropic's events of them.
std::unique_ptr<AnswerFormat> make_messages_format(MessagesAnswer answer);

}  // namespace cachalot::openai
