#include "openai/chat_request.h"

#include <algorithm>
#include <boost/json/serialize.hpp>

namespace cachalot::openai {

namespace json = boost::json;

namespace {

constexpr std::string_view kChatFields[] = {"messages",
                                            "max_completion_tokens",
                                            "top_logprobs",
                                            "add_generation_prompt",
                                            "continue_final_message",
                                            "chat_template_kwargs",
                                            "include_reasoning",
                                            "reasoning_effort"};
constexpr std::string_view kRoles[] = {"system", "developer", "user", "assistant"};

// A string, or parts of type text, which stand on lines of their own.
void read_content(const json::value& content, std::string_view where, JsonKeys& keys, std::string& text) {
  if (content.is_string()) {
    text = content.get_string();
    return;
  }
  if (!content.is_array()) return keys.fault(where, "is something else", "a string or a list of parts");
  bool first = true;
  for (const json::value& part : content.get_array()) {
    const json::object* object = part.if_object();
    const json::value* type = object ? object->if_contains("type") : nullptr;
    const json::value* part_text = object ? object->if_contains("text") : nullptr;
    if (!type || !type->is_string()) return keys.fault(where, "holds a part without a type", "parts of type text");
    if (type->get_string() != "text")
      return keys.fault(where, "holds a part of type " + std::string(type->get_string()), "parts of type text",
                        ErrorCode::kUnsupported);
    if (!part_text || !part_text->is_string())
      return keys.fault(where, "holds a part without a text", "parts with one");
    if (!std::exchange(first, false)) text += '\n';
    text += part_text->get_string();
  }
}

void read_message(const json::value& value, const std::string& where, JsonKeys& keys, json::array& messages) {
  const json::object* object = value.if_object();
  if (!object) return keys.fault(where, "is not an object", "a message with role and content");
  const json::value* role = object->if_contains("role");
  if (!role || !role->is_string()) return keys.fault(where + ".role", "is missing", "system, user or assistant");
  std::string role_name(role->get_string());
  if (std::ranges::find(kRoles, role_name) == std::end(kRoles))
    return keys.fault(where + ".role", "is " + json::serialize(*role), "system, developer, user or assistant",
                      ErrorCode::kUnsupported);
  for (const char* name : {"tool_calls", "function_call", "audio"}) {
    const json::value* field = object->if_contains(name);
    if (field && !field->is_null() && *field != json::array())
      return keys.fault(where + "." + name, "is given", "left out: it is not supported", ErrorCode::kUnsupported);
  }
  const json::value* content = object->if_contains("content");
  if (!content || content->is_null())
    return keys.fault(where + ".content", "is missing", "a string or a list of parts");
  std::string text;
  read_content(*content, where + ".content", keys, text);
  // Templates of open models know no developer: it is OpenAI's newer name for the system.
  json::object message = {{"role", role_name == "developer" ? "system" : role_name}, {"content", text}};
  for (const char* name : {"name", "reasoning_content"})
    if (const json::value* field = object->if_contains(name); field && field->is_string()) message[name] = *field;
  messages.push_back(std::move(message));
}

// The rendered conversation up to the end of the last message's content, without what the template puts after it.
Result<std::string> cut_after_final_message(std::string prompt, const json::array& messages) {
  std::string_view content = messages.back().at("content").get_string();
  constexpr std::string_view kWhiteSpace = " \t\r\n";
  const size_t first = content.find_first_not_of(kWhiteSpace);
  content = first == content.npos ? std::string_view() : content.substr(first);
  const std::string_view stripped = content.substr(0, content.find_last_not_of(kWhiteSpace) + 1);
  const size_t position = prompt.rfind(stripped);
  if (stripped.empty() || position == prompt.npos)
    return make_parameter_error(
        "continue_final_message",
        "{}: continue_final_message is true, but the chat template changes or drops the content of the "
        "last message, so that it cannot be continued",
        kRequest);
  const bool keeps_space = std::string_view(prompt).substr(position).starts_with(content);
  prompt.resize(position + (keeps_space ? content.size() : stripped.size()));
  return prompt;
}

}  // namespace

void read_conversation(JsonKeys& keys, const RequestLimits& limits, Conversation& conversation) {
  const json::value* messages = keys.find("messages");
  if (!messages) return keys.fault("messages", "is missing", "a list of messages");
  if (!messages->is_array() || messages->get_array().empty())
    return keys.fault("messages", "holds no message", "a list of at least one");
  const json::array& list = messages->get_array();
  if (list.size() > static_cast<size_t>(limits.max_messages))
    return keys.fault("messages", fmt::format("holds {} messages", list.size()),
                      fmt::format("at most {}", limits.max_messages));
  for (size_t i = 0; i < list.size(); ++i)
    read_message(list[i], fmt::format("messages[{}]", i), keys, conversation.messages);

  keys.optional("continue_final_message", conversation.continue_final_message);
  conversation.add_generation_prompt = !conversation.continue_final_message;
  keys.optional("add_generation_prompt", conversation.add_generation_prompt);
  if (conversation.continue_final_message && conversation.add_generation_prompt)
    keys.fault("continue_final_message", "is true", "false when add_generation_prompt is true");
  keys.optional("add_special_tokens", conversation.add_special_tokens);
  if (const json::object* kwargs = keys.object("chat_template_kwargs")) conversation.template_kwargs = *kwargs;
}

ApiResult<ChatRequest> parse_chat_request(const json::object& object, const GenerationConfig& defaults,
                                          const RequestLimits& limits) {
  ChatRequest request;
  GenerationParams& params = request.params;
  JsonKeys keys(object, kRequest);
  check_field_names(object, keys, kChatFields);
  read_conversation(keys, limits, request.conversation);
  read_generation_params(object, keys, defaults, limits, params);
  if (keys.find("max_completion_tokens"))
    keys.optional("max_completion_tokens", params.max_tokens.emplace(), 1, std::numeric_limits<int>::max());
  if (params.max_tokens == 0) keys.fault("max_tokens", "is 0", "at least 1");
  bool logprobs = false, echo = false;
  keys.optional("logprobs", logprobs);
  if (logprobs) params.sampling.num_logprobs = 0;
  if (keys.find("top_logprobs")) {
    int top = 0;
    keys.optional("top_logprobs", top, 0, limits.max_logprobs);
    if (!logprobs && top > 0) keys.fault("top_logprobs", "is given", "left out unless logprobs is true");
    if (logprobs) params.sampling.num_logprobs = top;
  }
  keys.optional("echo", echo);
  if (echo) keys.fault("echo", "is true", "false: it is not supported for chats", ErrorCode::kUnsupported);
  keys.optional("include_reasoning", request.include_reasoning);
  RETURN_IF_ERROR(keys.status());
  return request;
}

Result<std::string> render(const Conversation& conversation, const ChatTemplate& chat_template) {
  json::object context = conversation.template_kwargs;
  context["messages"] = conversation.messages;
  context["add_generation_prompt"] = conversation.add_generation_prompt;
  ASSIGN_OR_RETURN(std::string prompt, chat_template.render(json::serialize(context)));
  if (!conversation.continue_final_message) return prompt;
  return cut_after_final_message(std::move(prompt), conversation.messages);
}

}  // namespace cachalot::openai
