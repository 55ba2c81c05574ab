#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <string>

#include "openai/request/generation_params.h"
#include "openai/request/tools.h"
#include "text/chat_template.h"
#include "text/mark_guard.h"

namespace cachalot::openai {

// The messages of a chat and how they become a prompt; of POST /v1/chat/completions and of /tokenize.
struct Conversation {
  boost::json::array messages;  // contents as strings, or null beside calls of tools
  ToolUse tools;
  bool add_generation_prompt = true, continue_final_message = false;
  bool add_special_tokens = false;  // the template brings its own begin-of-sequence token
  boost::json::object template_kwargs;
  // Of what the template is given beside the kwargs.
  boost::json::array documents;
  boost::json::object response_schema;  // of response_format, for templates of ours
  std::string reasoning_effort;
  std::optional<bool> thinks;  // `thinking`, `enable_thinking`, or by the effort
  std::string chat_template;   // of the request's own; empty: the model's
};

struct RenderedChat {
  std::string text;            // that the model continues
  std::vector<size_t> guards;  // in it, for Tokenizer::encode: what people and tools wrote is text
  bool opens_thought = false;  // what the template wrote for the answer, or the message that is continued, opens one
};

// A body of POST /v1/chat/completions.
struct ChatRequest {
  GenerationParams params;
  Conversation conversation;
  bool include_reasoning = true;
};

ApiResult<ChatRequest> parse_chat_request(const boost::json::object& object, const GenerationConfig& defaults,
                                          const RequestLimits& limits);
// The conversations of a body of POST /v1/chat/completions/batch, which is a chat's but for its list of lists of
// messages.
ApiResult<boost::json::array> read_batch(const boost::json::object& object, const RequestLimits& limits);
void read_conversation(JsonKeys& keys, const RequestLimits& limits, Conversation& conversation);

// `defaults`: what the template is given where the conversation says nothing. `guard`: of the marks in what is said;
// null: they are marks there, too.
Result<RenderedChat> render(const Conversation& conversation, const ChatTemplate& chat_template,
                            const boost::json::object& defaults = {}, const MarkGuard* guard = nullptr);

}  // namespace cachalot::openai
