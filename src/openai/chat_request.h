#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <string>

#include "openai/generation_params.h"
#include "text/chat_template.h"

namespace cachalot::openai {

// The messages of a chat and how they become a prompt; of POST /v1/chat/completions and of /tokenize.
struct Conversation {
  boost::json::array messages;  // contents as strings
  bool add_generation_prompt = true, continue_final_message = false;
  bool add_special_tokens = false;  // the template brings its own begin-of-sequence token
  boost::json::object template_kwargs;
};

// A body of POST /v1/chat/completions.
struct ChatRequest {
  GenerationParams params;
  Conversation conversation;
  bool include_reasoning = true;
};

ApiResult<ChatRequest> parse_chat_request(const boost::json::object& object, const GenerationConfig& defaults,
                                          const RequestLimits& limits);
void read_conversation(JsonKeys& keys, const RequestLimits& limits, Conversation& conversation);

// The text that the model continues.
Result<std::string> render(const Conversation& conversation, const ChatTemplate& chat_template);

}  // namespace cachalot::openai
