#include "openai/messages/messages_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/text.h"
#include "openai/request/content.h"
#include "openai/request/structured_outputs.h"
#include "openai/request/transcript.h"

namespace cachalot::openai {

namespace json = boost::json;

namespace {

// Of the chat endpoint's fields, those that mean the same here.
constexpr std::string_view kSharedWithChats = "model temperature top_p top_k min_p seed stream priority cache_salt";
constexpr std::string_view kOfMessages =
    "system messages tools tool_choice thinking output_config output_format max_tokens stop_sequences metadata "
    "service_tier thread";
// Of no consequence here: what a cache, a platform or a client's own bookkeeping is told.
constexpr std::string_view kHintsOfMessages =
    "cache_control context_management compaction diagnostics betas anthropic_version anthropic_beta inference_geo "
    "speed "
    "user_profile_id workspace_id billing_policy fallbacks fallback_credit_token";
constexpr std::string_view kRefusedOfMessages = "container mcp_servers";

constexpr PartTypes kParts{.texts = "text", .unseen = "image document search_result tool_reference"};

// Texts of several blocks stand on lines of their own.
void add_line(std::string_view line, std::string& text) {
  if (!text.empty()) text += '\n';
  text += line;
}

// Reads Anthropic's messages into those of a conversation.
class MessageReader {
 public:
  MessageReader(JsonKeys& keys, json::array& messages) : keys_(keys), transcript_(messages) {}

  void read_system(json::value system) {
    // Claude Code's own bookkeeping, another one with each request: no prompt would begin as one that was computed.
    if (json::array* blocks = system.if_array())
      blocks->erase(
          std::remove_if(blocks->begin(), blocks->end(),
                         [](const json::value& block) {
                           return block.is_object() &&
                                  text_at(block.get_object(), "text").starts_with("x-anthropic-billing-header:");
                         }),
          blocks->end());
    std::string text;
    if (!read_content(&system, "system", {.texts = "text", .skips_empty = true}, keys_, text)) return;
    if (!text.empty()) transcript_.say_as_system(text);
  }

  void read(const json::value& value, const std::string& where) {
    const json::object* message = value.if_object();
    if (!message) return keys_.fault(where, "is not an object", "a message with role and content");
    const std::string_view role = text_at(*message, "role");
    if (role.empty() || !has_word("user assistant system", role))
      return keys_.fault(where + ".role", role.empty() ? "is missing" : "is " + quoted(role), "user or assistant");
    const json::value* content = message->if_contains("content");
    const std::string place = where + ".content";
    if (!content) return keys_.fault(place, "is missing", "a string or a list of blocks");
    if (role == "system") return read_system(*content);
    const bool is_user = role == "user";
    if (content->is_string())
      return is_user ? transcript_.say_as_user(content->get_string()) : transcript_.answer(content->get_string());
    if (!content->is_array()) return keys_.fault(place, "is something else", "a string or a list of blocks");
    text_.clear();
    has_text_ = false;
    for (size_t i = 0; i < content->get_array().size(); ++i) {
      const json::object* block = content->get_array()[i].if_object();
      const std::string block_place = fmt::format("{}[{}]", place, i);
      const std::string_view type = block ? text_at(*block, "type") : "";
      if (type.empty()) return keys_.fault(block_place + ".type", "is missing", "that of a content block");
      const bool known =
          is_user ? read_user_block(*block, type, block_place) : read_assistant_block(*block, type, block_place);
      if (!known)
        return keys_.fault(block_place + ".type", "is " + quoted(type),
                           is_user ? "text or tool_result" : "text, thinking, redacted_thinking or tool_use",
                           ErrorCode::kUnsupported);
    }
    flush(is_user);
  }

 private:
  bool read_texts(const json::value& content, const std::string& where, std::string& text) {
    return read_content(&content, where, kParts, keys_, text);
  }

  bool read_text(const json::value& block, const std::string& where) {
    if (const std::optional<std::string> text = text_of_part(block, where, kParts, keys_)) {
      add_line(*text, text_);
      has_text_ = true;
    }
    return true;
  }

  // These return false for a type that is not known.
  bool read_user_block(const json::object& block, std::string_view type, const std::string& where) {
    if (type == "text" || has_word(kParts.unseen, type)) return read_text(block, where);
    if (type != "tool_result") return false;
    const std::string_view id = text_at(block, "tool_use_id");
    if (id.empty()) return keys_.fault(where + ".tool_use_id", "is missing", "the id of a call"), true;
    std::string result;
    const json::value* content = block.if_contains("content");
    if (content && !content->is_null() && !read_texts(*content, where + ".content", result)) return true;
    flush(true);
    transcript_.give_result(id, result);
    return true;
  }

  bool read_assistant_block(const json::object& block, std::string_view type, const std::string& where) {
    if (type == "text") return read_text(block, where);
    if (type == "redacted_thinking") return true;  // which only its maker can read
    if (type == "thinking") {
      const json::value* thought = block.if_contains("thinking");
      if (!thought || !thought->is_string()) return keys_.fault(where + ".thinking", "is missing", "a string"), true;
      flush(false);
      if (!thought->get_string().empty()) transcript_.think(thought->get_string());
      return true;
    }
    if (type != "tool_use") return false;
    const std::string_view id = text_at(block, "id");
    const json::value* input = block.if_contains("input");
    if (id.empty()) return keys_.fault(where + ".id", "is missing", "a string"), true;
    if (!is_tool_name(block.if_contains("name")))
      return keys_.fault(where + ".name", "is missing or no name", "that of a tool"), true;
    if (!input || !input->is_object()) return keys_.fault(where + ".input", "is missing", "an object"), true;
    flush(false);
    transcript_.call(id, text_at(block, "name"), json_text(*input));
    return true;
  }

  // The text that came together.
  void flush(bool is_user) {
    if (!std::exchange(has_text_, false)) return;
    const std::string text = std::exchange(text_, {});
    if (is_user)
      transcript_.say_as_user(text);
    else
      transcript_.answer(text);
  }

  JsonKeys& keys_;
  Transcript transcript_;
  std::string text_;
  bool has_text_ = false;
};

void read_all_messages(JsonKeys& keys, const RequestLimits& limits, Conversation& conversation) {
  const json::value* messages = keys.find("messages");
  if (!messages || !messages->is_array() || messages->get_array().empty())
    return keys.fault("messages", messages ? "holds no message" : "is missing", "a list of at least one");
  const json::array& list = messages->get_array();
  if (list.size() > static_cast<size_t>(limits.max_messages))
    return keys.fault("messages", fmt::format("holds {} messages", list.size()),
                      fmt::format("at most {}", limits.max_messages));
  MessageReader reader(keys, conversation.messages);
  if (const json::value* system = keys.find("system")) reader.read_system(*system);
  for (size_t i = 0; i < list.size(); ++i) reader.read(list[i], fmt::format("messages[{}]", i));
  if (conversation.messages.empty()) return keys.fault("messages", "holds nothing", "a list of messages with contents");
  // An assistant's text at the end is the begin of the answer.
  const json::object& last = conversation.messages.back().get_object();
  conversation.continue_final_message = last.at("role") == "assistant" && !last.contains("tool_calls") &&
                                        !trimmed(last.at("content").get_string()).empty();
  conversation.add_generation_prompt = !conversation.continue_final_message;
}

// Anthropic's own tools ("web_search_20250305") have a type; those that are left out are named in the log.
void read_message_tools(JsonKeys& keys, const RequestLimits& limits, ToolUse& use) {
  const json::value* tools = keys.find("tools");
  if (!tools) return;
  if (!tools->is_array()) return keys.fault("tools", "is something else", "a list");
  const json::array& list = tools->get_array();
  if (list.size() > static_cast<size_t>(limits.max_tools))
    return keys.fault("tools", fmt::format("holds {}", list.size()), fmt::format("at most {}", limits.max_tools));
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string where = fmt::format("tools[{}]", i);
    const json::object* tool = list[i].if_object();
    if (const std::string_view type = tool ? text_at(*tool, "type") : ""; !type.empty() && type != "custom") {
      leave_out_tool(type);
      continue;
    }
    if (!check_function(list[i], where, keys, "input_schema")) return;
    use.tools.push_back(flat_tool(*tool, text_at(*tool, "name"), "input_schema"));
  }
}

void read_message_tool_choice(JsonKeys& keys, ToolUse& use) {
  use.choice = use.tools.empty() ? ToolUse::Choice::kNone : ToolUse::Choice::kAuto;
  const json::object* choice = keys.object("tool_choice");
  if (!choice) return;
  JsonKeys inner = keys.nested("tool_choice", *choice);
  const std::string_view type = text_at(*choice, "type");
  if (type == "tool")
    choose_tool(text_at(*choice, "name"), "tool_choice.name", keys, use);
  else if (type == "none")
    use.choice = ToolUse::Choice::kNone;
  else if (type == "any" && use.tools.empty())
    keys.fault("tool_choice.type", "is any", "auto or none where no tool is given that exists here");
  else if (type == "any")
    use.choice = ToolUse::Choice::kRequired;
  else if (type != "auto")
    keys.fault("tool_choice.type", type.empty() ? "is missing" : "is " + quoted(type), "auto, any, tool or none");
  const json::value* disabled = inner.find("disable_parallel_tool_use");
  if (disabled && !disabled->is_bool())
    keys.fault("tool_choice.disable_parallel_tool_use", "is " + shown(*disabled), "true or false");
  use.parallel = !disabled || *disabled != json::value(true);
}

// Who asks for no thought gets none. The template may know how to leave it out; a model that thinks nonetheless does so
// unseen, as its answer would not be understood with a block that was not asked for.
void read_thinking(JsonKeys& keys, ChatRequest& chat) {
  bool thinks = false;
  chat.include_reasoning = false;
  if (const json::object* thinking = keys.object("thinking")) {
    const std::string_view type = text_at(*thinking, "type"), display = text_at(*thinking, "display");
    if (type.empty() || !has_word("enabled disabled adaptive between_tools", type))
      keys.fault("thinking.type", type.empty() ? "is missing" : "is " + quoted(type), "enabled, disabled or adaptive");
    thinks = type != "disabled";
    // A thought cannot be bounded apart: the budget is read, and max_tokens alone holds.
    const json::value* budget = thinking->if_contains("budget_tokens");
    if (budget && !budget->is_null() && (!budget->is_int64() || budget->get_int64() < 0))
      keys.fault("thinking.budget_tokens", "is " + shown(*budget), "a whole number of tokens");
    chat.include_reasoning = thinks && display != "omitted";
  }
  // DeepSeek's name and that of others.
  for (const char* name : {"thinking", "enable_thinking"}) chat.conversation.template_kwargs[name] = thinks;
}

void read_output_options(JsonKeys& keys, ChatRequest& chat) {
  const auto read_format = [&](const json::value* format, const std::string& key) {
    if (format && !format->is_null()) {
      chat.params.grammar = read_text_format(*format, key, keys, chat.conversation.response_schema);
    }
  };
  read_format(keys.find("output_format"), "output_format");
  const json::object* config = keys.object("output_config");
  if (!config) return;
  read_format(config->if_contains("format"), "output_config.format");
  const json::value* effort = config->if_contains("effort");
  if (!effort || effort->is_null()) return;
  if (!effort->is_string() || !has_word("low medium high xhigh max", effort->get_string()))
    return keys.fault("output_config.effort", "is " + shown(*effort), "low, medium, high, xhigh or max");
  chat.conversation.reasoning_effort = effort->get_string();
}

void read_answer_options(JsonKeys& keys, const RequestLimits& limits, MessagesRequest& request) {
  if (!keys.find("max_tokens")) keys.fault("max_tokens", "is missing", "a whole number");
  keys.optional("max_tokens", request.max_tokens, 0, std::numeric_limits<int>::max());
  read_stop(keys, "stop_sequences", limits, request.chat.params.stop);
  const json::object* metadata = keys.object("metadata");
  const json::value* user = metadata ? metadata->if_contains("user_id") : nullptr;
  if (user && !user->is_null() && !user->is_string()) keys.fault("metadata.user_id", "is " + shown(*user), "a string");
  std::string tier;
  keys.optional("service_tier", tier);
  if (!tier.empty() && !has_word("auto standard_only", tier))
    keys.fault("service_tier", "is " + quoted(tier), "auto or standard_only");
}

}  // namespace

ApiResult<MessagesRequest> parse_messages_request(const json::object& object, const GenerationConfig& defaults,
                                                  const RequestLimits& limits, bool counts_only) {
  // Anthropic's clients begin conversations with one by themselves, and go on without it if the error has this code.
  if (const json::value* thread = object.if_contains("thread"); thread && !thread->is_null())
    return invalid_request("request: thread is given; it must be left out: it is not supported", "thread",
                           "thread_unsupported_request");
  MessagesRequest request;
  Conversation& conversation = request.chat.conversation;
  JsonKeys keys(object, kRequest);
  check_field_names(object, keys, fmt::format("{} {} {}", kSharedWithChats, kOfMessages, kHintsOfMessages),
                    kRefusedOfMessages);
  RETURN_IF_ERROR(read_shared_params(object, kSharedWithChats, defaults, limits, request.chat.params));
  if (!counts_only) read_answer_options(keys, limits, request);
  read_all_messages(keys, limits, conversation);
  read_message_tools(keys, limits, conversation.tools);
  read_message_tool_choice(keys, conversation.tools);
  read_thinking(keys, request.chat);
  read_output_options(keys, request.chat);
  RETURN_IF_ERROR(keys.status());
  return request;
}

}  // namespace cachalot::openai
