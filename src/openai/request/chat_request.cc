#include "openai/request/chat_request.h"

#include <algorithm>
#include <tuple>

#include "base/text.h"
#include "config/json.h"
#include "openai/request/content.h"
#include "text/answer_text.h"

namespace cachalot::openai {

namespace json = boost::json;

namespace {

constexpr std::string_view kUnseen = "image_url input_audio video_url audio_url file image_pil image_embeds";

// `is_last`: a picture in what is asked for now is refused, as an answer without it would mislead; one in what was said
// before is told of.
void read_message(const json::value& value, const std::string& where, bool is_last, JsonKeys& keys,
                  json::array& messages) {
  const json::object* object = value.if_object();
  if (!object) return keys.fault(where, "is not an object", "a message with role and content");
  const json::value* role = object->if_contains("role");
  if (!role || !role->is_string()) return keys.fault(where + ".role", "is missing", "system, user, assistant or tool");
  const std::string role_name(role->get_string());
  if (!has_word("system developer user assistant tool function", role_name))
    return keys.fault(where + ".role", "is " + quoted(role_name), "system, developer, user, assistant or tool",
                      ErrorCode::kUnsupported);
  const json::value* audio = object->if_contains("audio");
  if (audio && !audio->is_null())
    return keys.fault(where + ".audio", "is given", "left out: it is not supported", ErrorCode::kUnsupported);
  // No template knows a function, OpenAI's older name of a tool.
  json::object message = {{"role", role_name == "function" ? "tool" : role_name}};
  if (role_name == "assistant") read_tool_calls(*object, where, keys, message);
  const json::value* content = object->if_contains("content");
  std::string text;
  const bool asks_now = is_last && message.at("role") == "user";
  // An assistant may have said nothing, but only thought or called.
  if (role_name != "assistant" || (content && !content->is_null()))
    if (!read_content(content && content->is_null() ? nullptr : content, where + ".content",
                      {.texts = "text refusal", .unseen = asks_now ? "" : kUnseen}, keys, text))
      return;
  message["content"] = text;
  for (const char* key : {"name", "tool_call_id"})
    if (const json::value* name = object->if_contains(key); name && name->is_string()) message[key] = *name;
  // Under vLLM's newer name and the older one; templates know one or the other.
  for (const char* name : {"reasoning_content", "reasoning"}) {
    const json::value* thought = object->if_contains(name);
    if (!thought || !thought->is_string()) continue;
    // One after the other: a new key moves what an object holds.
    message["reasoning_content"] = *thought;
    message["reasoning"] = *thought;
  }
  messages.push_back(std::move(message));
}

// DeepSeek's own API and Anthropic's say {"type": "enabled"}, others true or false.
void read_thinking(JsonKeys& keys, Conversation& conversation) {
  if (!conversation.reasoning_effort.empty()) conversation.thinks = conversation.reasoning_effort != "none";
  for (const char* key : {"thinking", "enable_thinking"}) {
    const json::value* value = keys.find(key);
    if (!value) continue;
    const json::object* object = value->if_object();
    const json::value* type = object ? object->if_contains("type") : value;
    if (type && type->is_bool() && !object)
      conversation.thinks = type->get_bool();
    else if (object && type && (*type == "enabled" || *type == "adaptive" || *type == "disabled"))
      conversation.thinks = *type != "disabled";
    else
      keys.fault(key, "is " + json_text(*value), "true, false, or an object of type enabled or disabled");
  }
}

// {"type": "json_schema", "json_schema": {"schema": {...}}}; what is wrong with it is found where grammars are made.
void read_response_schema(JsonKeys& keys, json::object& schema) {
  const json::value* format = keys.find("response_format");
  const json::object* object = format ? format->if_object() : nullptr;
  const json::value* named = object ? object->if_contains("json_schema") : nullptr;
  object = named ? named->if_object() : nullptr;
  const json::value* given = object ? object->if_contains("schema") : nullptr;
  if (given && given->is_object()) schema = given->get_object();
}

// The rendered conversation up to the end of the last message's content, without what the template puts after it.
Result<std::string> cut_after_final_message(std::string prompt, const json::value& message) {
  const json::string* said = message.at("content").if_string();
  std::string_view content = said ? std::string_view(*said) : std::string_view();
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
    read_message(list[i], fmt::format("messages[{}]", i), i + 1 == list.size(), keys, conversation.messages);

  read_tools(keys, limits, conversation.tools);
  keys.optional("continue_final_message", conversation.continue_final_message);
  conversation.add_generation_prompt = !conversation.continue_final_message;
  keys.optional("add_generation_prompt", conversation.add_generation_prompt);
  if (conversation.continue_final_message && conversation.add_generation_prompt)
    keys.fault("continue_final_message", "is true", "false when add_generation_prompt is true");
  keys.optional("add_special_tokens", conversation.add_special_tokens);
  if (const json::object* kwargs = keys.object("chat_template_kwargs")) conversation.template_kwargs = *kwargs;
  if (const json::value* documents = keys.find("documents")) {
    if (documents->is_array() && std::ranges::all_of(documents->get_array(), &json::value::is_object))
      conversation.documents = documents->get_array();
    else
      keys.fault("documents", "is something else", "a list of objects");
  }
  keys.optional("reasoning_effort", conversation.reasoning_effort);
  if (!conversation.reasoning_effort.empty() &&
      !has_word("none minimal low medium high xhigh max", conversation.reasoning_effort))
    keys.fault("reasoning_effort", "is " + quoted(conversation.reasoning_effort),
               "none, minimal, low, medium, high, xhigh or max");
  read_thinking(keys, conversation);
  read_response_schema(keys, conversation.response_schema);
  keys.optional("chat_template", conversation.chat_template);
  if (!conversation.chat_template.empty() && !limits.trusts_chat_template)
    keys.fault("chat_template", "is given",
               "left out: the server's --chat-template sets it, and --trust-request-chat-template lets requests",
               ErrorCode::kUnsupported);
}

ApiResult<ChatRequest> parse_chat_request(const json::object& object, const GenerationConfig& defaults,
                                          const RequestLimits& limits) {
  ChatRequest request;
  GenerationParams& params = request.params;
  JsonKeys keys(object, kRequest);
  check_field_names(object, keys, Endpoint::kChats);
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

namespace {

// Of a batch's reading: each of its conversations is read, and fills the template, with all that they share.
constexpr size_t kMostBatchBytes = 32 << 20;

size_t num_shared_bytes(const json::object& object) {
  size_t count = 0;
  for (const auto& [key, value] : object)
    if (key != "messages") count += key.size() + json_text(value).size();
  return count;
}

}  // namespace

ApiResult<json::array> read_batch(const json::object& object, const RequestLimits& limits) {
  JsonKeys keys(object, kRequest);
  const json::value* list = keys.find("messages");
  if (!list || !list->is_array() || list->get_array().empty() ||
      list->get_array().size() > static_cast<size_t>(limits.max_choices))
    keys.fault("messages", list ? "is something else" : "is missing",
               fmt::format("a list of 1 to {} conversations, each a list of messages", limits.max_choices));
  const std::tuple<const char*, json::value, const char*> kOnly[] = {
      {"n", 1, "1: a batch has one answer to each conversation"},
      {"best_of", 1, "1: a batch has one answer to each conversation"},
      {"stream", false, "false: a batch is answered as a whole"},
      {"tools", json::array(), "left out: batches call none"},
      {"prompt_logprobs", nullptr, "left out: a batch has several prompts"}};
  for (const auto& [name, only, wanted] : kOnly)
    if (const json::value* value = keys.find(name); value && *value != only)
      keys.fault(name, "is given", wanted, ErrorCode::kUnsupported);
  RETURN_IF_ERROR(keys.status());
  if (const size_t num_bytes = num_shared_bytes(object); num_bytes * list->get_array().size() > kMostBatchBytes)
    keys.fault("messages",
               fmt::format("has {} conversations, and the fields that each is read with have {} bytes",
                           list->get_array().size(), num_bytes),
               fmt::format("so that these make at most {} together", kMostBatchBytes));
  RETURN_IF_ERROR(keys.status());
  return list->get_array();
}

Result<RenderedChat> render(const Conversation& conversation, const ChatTemplate& chat_template,
                            const json::object& defaults, const MarkGuard* guard) {
  json::object context = conversation.template_kwargs;
  context["messages"] = chat_template.messages_as_wanted(conversation.messages);
  if (!conversation.tools.tools.empty()) context["tools"] = conversation.tools.tools;
  if (chat_template.is_own() && !conversation.response_schema.empty())
    context.emplace("response_format", conversation.response_schema);
  if (!conversation.documents.empty()) context["documents"] = conversation.documents;
  if (!conversation.reasoning_effort.empty()) context.emplace("reasoning_effort", conversation.reasoning_effort);
  // DeepSeek's and Kimi's templates know the one, GLM's the other.
  if (conversation.thinks) {
    context.emplace("thinking", *conversation.thinks);
    context.emplace("enable_thinking", *conversation.thinks);
  }
  for (const auto& entry : defaults) context.emplace(entry.key(), entry.value());
  chat_template.complete(context);
  const std::string_view sign = guard ? guard->break_marks(context) : std::string_view();
  const auto render_text = [&](bool add_generation_prompt) {
    context["add_generation_prompt"] = add_generation_prompt;
    return chat_template.render(json_text(context));
  };
  RenderedChat chat;
  ASSIGN_OR_RETURN(chat.text, render_text(conversation.add_generation_prompt));
  if (conversation.continue_final_message) {
    ASSIGN_OR_RETURN(chat.text,
                     cut_after_final_message(std::move(chat.text), context.at("messages").as_array().back()));
    chat.guards = MarkGuard::take_out(sign, chat.text);
    const json::object& last = conversation.messages.back().get_object();
    const std::string_view begun = trimmed(last.at("content").get_string());
    chat.opens_thought =
        last.at("role") == "assistant" && begun.starts_with("<think>") && ReasoningParser::opens_thought(begun);
    return chat;
  }
  // What the template writes for the answer is what it leaves out where no answer is asked for: tags in the messages
  // are not looked at.
  if (!conversation.add_generation_prompt || !ReasoningParser::opens_thought(chat.text)) {
    chat.guards = MarkGuard::take_out(sign, chat.text);
    return chat;
  }
  ASSIGN_OR_RETURN(const std::string without, render_text(false));
  const auto begin = std::ranges::mismatch(chat.text, without).in1 - chat.text.begin();
  chat.opens_thought = ReasoningParser::opens_thought(std::string_view(chat.text).substr(static_cast<size_t>(begin)));
  chat.guards = MarkGuard::take_out(sign, chat.text);
  return chat;
}

}  // namespace cachalot::openai
