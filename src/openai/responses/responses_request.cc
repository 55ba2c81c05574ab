#include "openai/responses/responses_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/parse.hpp>
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
constexpr std::string_view kShared =
    "model temperature top_p top_k min_p presence_penalty frequency_penalty repetition_penalty logit_bias seed stop "
    "stop_token_ids ignore_eos min_tokens include_stop_str_in_output skip_special_tokens stream priority cache_salt "
    "request_id service_tier structured_outputs";
constexpr std::string_view kOwn =
    "input instructions tools tool_choice parallel_tool_calls text reasoning max_output_tokens top_logprobs metadata "
    "include truncation user store previous_response_id background";
// Of no consequence here, or hints.
constexpr std::string_view kHints =
    "max_tool_calls safety_identifier prompt_cache_key prompt_cache_retention prompt_cache_options stream_options "
    "client_metadata access_programs background_options";
constexpr std::string_view kRefused = "conversation prompt context_management moderation image";

std::unexpected<ApiError> not_found(std::string_view id, const char* parameter) {
  return std::unexpected(ApiError(404, fmt::format("Previous response with id {} not found.", quoted(id)),
                                  "invalid_request_error", parameter, "previous_response_not_found"));
}

// Of what a request builds upon, which is read anew each time: as much as a body may have.
constexpr size_t kMostThreadBytes = 32 << 20;

// What was stored is sound, and as deep as a body may be and its own frame.
json::value parse_stored(const std::string& text) {
  return json::parse(text, {}, {.max_depth = 80});
}

// Under which the model knows a tool of a namespace.
std::string full_name(std::string_view space, std::string_view name) {
  if (space.empty()) return std::string(name);
  return fmt::format("{}{}{}", space, space.ends_with("__") ? "" : "__", name);
}

// Reads input items into the messages of a conversation.
class ItemReader {
 public:
  ItemReader(JsonKeys& keys, Transcript& transcript) : keys_(keys), transcript_(transcript) {}

  void read(const json::value& value, const std::string& where) {
    const json::object* item = value.if_object();
    if (!item) return keys_.fault(where, "is not an object", "an item of the input");
    const std::string_view type = type_of(*item);
    if (type == "message") return read_message(*item, where);
    if (type == "function_call") return read_call(*item, where);
    if (type == "function_call_output") return read_output(*item, where);
    if (type == "reasoning") return read_thought(*item);
    keys_.fault(where + ".type", type.empty() ? "is missing" : "is " + quoted(type),
                "message, function_call, function_call_output, reasoning or item_reference", ErrorCode::kUnsupported);
  }

  static std::string_view type_of(const json::object& item) {
    const std::string_view type = text_at(item, "type");
    if (!type.empty()) return type;
    return item.contains("role") ? "message" : item.contains("id") ? "item_reference" : "";
  }

 private:
  bool read_texts(const json::value* content, const std::string& where, std::string& text) {
    return read_content(
        content, where,
        {.texts = "input_text output_text text refusal", .unseen = "input_image input_file input_audio"}, keys_, text);
  }

  void read_message(const json::object& item, const std::string& where) {
    const std::string_view role = text_at(item, "role");
    if (role.empty() || !has_word("user assistant system developer", role))
      return keys_.fault(where + ".role", role.empty() ? "is missing" : "is " + quoted(role),
                         "user, assistant, system or developer");
    std::string text;
    if (!read_texts(item.if_contains("content"), where + ".content", text)) return;
    if (role == "assistant")
      transcript_.answer(text);
    else if (role == "user")
      transcript_.say_as_user(text);
    else  // templates of open models know no developer
      transcript_.say_as_system(text);
  }

  void read_call(const json::object& item, const std::string& where) {
    if (!is_tool_name(item.if_contains("name")))
      return keys_.fault(where + ".name", "is missing or no name", "that of a function");
    const std::string_view call_id = text_at(item, "call_id");
    if (call_id.empty()) return keys_.fault(where + ".call_id", "is missing", "a string");
    const json::value* arguments = item.if_contains("arguments");
    if (!arguments || !arguments->is_string())
      return keys_.fault(where + ".arguments", "is missing", "a string of JSON");
    transcript_.call(call_id, full_name(text_at(item, "namespace"), text_at(item, "name")), arguments->get_string());
  }

  void read_output(const json::object& item, const std::string& where) {
    const std::string_view call_id = text_at(item, "call_id");
    if (call_id.empty()) return keys_.fault(where + ".call_id", "is missing", "a string");
    std::string text;
    if (read_texts(item.if_contains("output"), where + ".output", text)) transcript_.give_result(call_id, text);
  }

  // What another server encrypted is nothing to this one.
  void read_thought(const json::object& item) {
    std::string thought;
    if (const json::value* parts = item.if_contains("content"); parts && parts->is_array())
      for (const json::value& part : parts->get_array())
        if (const json::object* object = part.if_object()) thought += text_at(*object, "text");
    if (const std::string_view hidden = text_at(item, "encrypted_content");
        thought.empty() && hidden.starts_with(kThoughtMark))
      thought = hidden.substr(kThoughtMark.size());
    if (!thought.empty()) transcript_.think(thought);
  }

  JsonKeys& keys_;
  Transcript& transcript_;
};

// The item that a reference names; none: it is not stored here.
std::optional<json::value> find_item(std::string_view id, ResponseStore& store, const std::string& owner) {
  const std::optional<std::string> response_id = response_ids::response_of_item(id);
  const ResponseStore::Stored stored = response_id ? store.find(*response_id, owner) : nullptr;
  if (!stored) return std::nullopt;
  const json::value response = parse_stored(stored->response), input = parse_stored(stored->input_items);
  for (const json::array* items : {&response.at("output").as_array(), &input.as_array()})
    for (const json::value& item : *items)
      if (text_at(item.as_object(), "id") == id) return item;
  return std::nullopt;
}

// The input, with what it refers to in place of references.
ApiResult<json::array> read_input(JsonKeys& keys, const RequestLimits& limits, ResponseStore& store,
                                  const std::string& owner) {
  json::array items;
  const json::value* input = keys.find("input");
  if (input && input->is_string()) {
    items.push_back({{"type", "message"}, {"role", "user"}, {"content", *input}});
  } else if (input && input->is_array()) {
    items = input->get_array();
    if (items.empty() && !keys.find("previous_response_id"))
      keys.fault("input", "holds no item", "a list of at least one");
  } else if (input || !keys.find("previous_response_id")) {
    keys.fault("input", input ? "is something else" : "is missing", "a string or a list of items");
  }
  if (items.size() > static_cast<size_t>(limits.max_messages)) {
    keys.fault("input", fmt::format("holds {} items", items.size()), fmt::format("at most {}", limits.max_messages));
    items.clear();
  }
  for (size_t i = 0; i < items.size(); ++i) {
    const json::object* item = items[i].if_object();
    if (!item || ItemReader::type_of(*item) != "item_reference") continue;
    const std::string_view id = text_at(*item, "id");
    std::optional<json::value> found = find_item(id, store, owner);
    if (!found)
      return std::unexpected(ApiError(404, fmt::format("Item with id {} not found.", quoted(id)),
                                      "invalid_request_error", fmt::format("input[{}].id", i), "item_not_found"));
    items[i] = std::move(*found);
  }
  return items;
}

// What was said before, as it stands in the store.
ApiResult<void> read_thread(const ResponsesRequest& request, const RequestLimits& limits, ResponseStore& store,
                            const std::string& owner, JsonKeys& keys, ItemReader& reader) {
  size_t num_items = request.input_items.size();
  const auto read_all = [&](const json::array& items) {
    num_items += items.size();
    if (num_items > static_cast<size_t>(limits.max_messages))
      return keys.fault("previous_response_id", "builds upon too much",
                        fmt::format("a conversation of at most {} items", limits.max_messages));
    for (const json::value& item : items) reader.read(item, "previous_response_id");
  };
  size_t num_bytes = 0;
  for (const ResponseStore::Stored& stored : store.find_thread(request.previous_id, owner)) {
    if (!stored) return not_found(request.previous_id, "previous_response_id");
    num_bytes += stored->num_bytes();
    if (num_bytes > kMostThreadBytes)
      return invalid_request(
          fmt::format("what {} builds upon is longer than {} MiB", quoted(request.previous_id), kMostThreadBytes >> 20),
          "previous_response_id");
    read_all(parse_stored(stored->input_items).as_array());
    read_all(parse_stored(stored->response).at("output").as_array());
    RETURN_IF_ERROR(keys.status());
  }
  return {};
}

class ToolReader {
 public:
  ToolReader(JsonKeys& keys, const RequestLimits& limits, ToolUse& use, NamespacedTools& namespaced)
      : keys_(keys), limits_(limits), use_(use), namespaced_(namespaced) {}

  // `shown`: those that are used, as they came.
  void read(json::array& shown) {
    const json::value* tools = keys_.find("tools");
    if (!tools) return;
    if (!tools->is_array()) return keys_.fault("tools", "is something else", "a list");
    const json::array& list = tools->get_array();
    for (size_t i = 0; i < list.size(); ++i)
      if (read_tool(list[i], fmt::format("tools[{}]", i), {})) shown.push_back(list[i]);
    if (use_.tools.size() > static_cast<size_t>(limits_.max_tools))
      keys_.fault("tools", fmt::format("holds {}", use_.tools.size()), fmt::format("at most {}", limits_.max_tools));
  }

 private:
  // False: it does not exist here.
  bool read_tool(const json::value& value, const std::string& where, std::string_view space) {
    const json::object* tool = value.if_object();
    const std::string_view type = tool ? text_at(*tool, "type") : "";
    if (type.empty()) return keys_.fault(where + ".type", "is missing", "function"), false;
    if (type == "namespace" && space.empty()) return read_namespace(*tool, where);
    if (type != "function") {
      warn_once(fmt::format("requests bring tools of type {}, which do not exist here and are left out (said once)",
                            quoted(type)));
      return false;
    }
    if (!check_function(value, where, keys_)) return false;
    const std::string name = full_name(space, text_at(*tool, "name"));
    json::object function = {{"name", name}};
    for (const char* key : {"description", "parameters", "strict"})
      if (const json::value* field = tool->if_contains(key); field && !field->is_null()) function[key] = *field;
    use_.tools.push_back({{"type", "function"}, {"function", std::move(function)}});
    if (!space.empty()) namespaced_.insert_or_assign(name, std::pair(std::string(space), text_at(*tool, "name")));
    return true;
  }

  bool read_namespace(const json::object& group, const std::string& where) {
    const json::value* tools = group.if_contains("tools");
    if (!is_tool_name(group.if_contains("name")))
      return keys_.fault(where + ".name", "is missing or no name", "that of a namespace"), false;
    if (!tools || !tools->is_array()) return keys_.fault(where + ".tools", "is missing", "a list"), false;
    bool has_some = false;
    for (size_t i = 0; i < tools->get_array().size(); ++i)
      has_some |= read_tool(tools->get_array()[i], fmt::format("{}.tools[{}]", where, i), text_at(group, "name"));
    return has_some;
  }

  JsonKeys& keys_;
  const RequestLimits& limits_;
  ToolUse& use_;
  NamespacedTools& namespaced_;
};

// "allowed_tools": a choice among some of them.
void read_allowed_tools(const json::object& choice, JsonKeys& keys, ToolUse& use) {
  const json::value* allowed = choice.if_contains("tools");
  if (!allowed || !allowed->is_array()) return keys.fault("tool_choice.tools", "is missing", "a list of tools");
  std::vector<std::string> names;
  for (const json::value& tool : allowed->get_array()) {
    const json::object* object = tool.if_object();
    if (!object || text_at(*object, "type") != "function")
      return keys.fault("tool_choice.tools", "holds " + shown(tool), "tools of type function", ErrorCode::kUnsupported);
    names.push_back(full_name(text_at(*object, "namespace"), text_at(*object, "name")));
  }
  json::array kept;
  for (const json::value& tool : use.tools)
    if (std::ranges::find(names, std::string_view(tool.at("function").at("name").get_string())) != names.end())
      kept.push_back(tool);
  if (kept.empty()) return keys.fault("tool_choice.tools", "names none of the tools", "some of those that are given");
  use.tools = std::move(kept);
  const std::string_view mode = text_at(choice, "mode");
  if (mode == "required")
    use.choice = ToolUse::Choice::kRequired;
  else if (mode != "auto")
    keys.fault("tool_choice.mode", mode.empty() ? "is missing" : "is " + quoted(mode), "auto or required");
}

void read_tool_choice(JsonKeys& keys, ToolUse& use) {
  use.choice = use.tools.empty() ? ToolUse::Choice::kNone : ToolUse::Choice::kAuto;
  const json::value* choice = keys.find("tool_choice");
  if (!choice) return;
  if (const json::object* object = choice->if_object()) {
    const std::string_view type = text_at(*object, "type");
    if (type == "function")
      return choose_tool(full_name(text_at(*object, "namespace"), text_at(*object, "name")), "tool_choice", keys, use);
    if (type == "allowed_tools") return read_allowed_tools(*object, keys, use);
    return keys.fault("tool_choice", type.empty() ? "has no type" : "is of type " + quoted(type),
                      "none, auto, required, or of type function or allowed_tools", ErrorCode::kUnsupported);
  }
  const std::string_view word = choice->is_string() ? std::string_view(choice->get_string()) : "";
  if (word == "none")
    use.choice = ToolUse::Choice::kNone;
  else if (word == "required" && use.tools.empty())
    keys.fault("tool_choice", "is required", "none or auto where no function is given");
  else if (word == "required")
    use.choice = ToolUse::Choice::kRequired;
  else if (word != "auto")
    keys.fault("tool_choice", "is " + shown(*choice), "none, auto, required, or an object that names a function");
}

void read_text_options(JsonKeys& keys, ChatRequest& chat, json::object& echo) {
  GenerationParams& params = chat.params;
  json::object text = {{"format", {{"type", "text"}}}, {"verbosity", "medium"}};
  if (const json::object* given = keys.object("text")) {
    JsonKeys inner = keys.nested("text", *given);
    std::string verbosity;
    inner.optional("verbosity", verbosity);
    if (!verbosity.empty() && !has_word("low medium high", verbosity))
      keys.fault("text.verbosity", "is " + quoted(verbosity), "low, medium or high");
    if (!verbosity.empty()) text["verbosity"] = verbosity;
    if (const json::value* format = inner.find("format")) {
      std::optional<GrammarText> grammar =
          read_text_format(*format, "text.format", keys, chat.conversation.response_schema);
      if (grammar && params.grammar)
        keys.fault("text.format", "is given beside structured_outputs", "the only one: an answer has one form");
      if (grammar) params.grammar = std::move(grammar);
      text["format"] = *format;
    }
  }
  echo["text"] = std::move(text);
}

void read_reasoning(JsonKeys& keys, std::string& effort, json::object& echo) {
  json::object shown = {{"effort", nullptr}, {"summary", nullptr}};
  if (const json::object* given = keys.object("reasoning")) {
    effort = text_at(*given, "effort");
    const json::value* value = given->if_contains("effort");
    if (value && !value->is_null() && !has_word("none minimal low medium high xhigh max", effort))
      keys.fault("reasoning.effort", "is " + cachalot::shown(*value), "none, minimal, low, medium, high, xhigh or max");
    // There are no summaries: what a thought says stands in its content.
    for (const char* key : {"effort", "summary"})
      if (const json::value* part = given->if_contains(key)) shown[key] = *part;
  }
  echo["reasoning"] = std::move(shown);
}

void read_include(JsonKeys& keys, const RequestLimits& limits, ResponsesRequest& request) {
  std::vector<std::string> include;
  keys.optional("include", include);
  SamplingParams& sampling = request.chat.params.sampling;
  int num_top = 0;
  keys.optional("top_logprobs", num_top, 0, limits.max_logprobs);
  for (const std::string& what : include) {
    if (what == "message.output_text.logprobs")
      sampling.num_logprobs = num_top;
    else if (what == "reasoning.encrypted_content")
      request.returns_thoughts = true;
    // Of tools that are not there.
    else if (!has_word("file_search_call.results web_search_call.results web_search_call.action.sources "
                       "message.input_image.image_url computer_call_output.output.image_url "
                       "code_interpreter_call.outputs",
                       what))
      keys.fault("include", "holds " + quoted(what), "a list of what Responses know");
  }
  if (num_top > 0) sampling.num_logprobs = num_top;
}

void read_metadata(JsonKeys& keys, json::object& echo) {
  constexpr size_t kMostEntries = 16;
  const json::object* metadata = keys.object("metadata");
  echo["metadata"] = metadata ? *metadata : json::object();
  if (metadata && (metadata->size() > kMostEntries ||
                   std::ranges::any_of(*metadata, [](const auto& entry) { return !entry.value().is_string(); })))
    keys.fault("metadata", "is something else", fmt::format("an object of at most {} strings", kMostEntries));
}

// As a person writes it: a float's neighbours among doubles have many digits.
double shortest(float number) {
  return parse_number<double>(fmt::format("{}", number)).value_or(number);
}

void read_options(JsonKeys& keys, const RequestLimits& limits, ResponsesRequest& request) {
  GenerationParams& params = request.chat.params;
  json::object& echo = request.echo;
  bool background = false;
  keys.optional("background", background);
  if (background)
    keys.fault("background", "is true", "false: an answer is generated while its client waits for it, and nowhere else",
               ErrorCode::kUnsupported);
  keys.optional("store", request.store);
  std::string truncation = "disabled", user;
  keys.optional("truncation", truncation);
  if (truncation != "disabled" && truncation != "auto")
    keys.fault("truncation", "is " + quoted(truncation), "auto or disabled");
  request.truncates = truncation == "auto";
  keys.optional("user", user);
  if (keys.find("max_output_tokens"))
    keys.optional("max_output_tokens", params.max_tokens.emplace(), 1, std::numeric_limits<int>::max());
  read_include(keys, limits, request);
  read_metadata(keys, echo);
  read_text_options(keys, request.chat, echo);
  read_reasoning(keys, request.chat.conversation.reasoning_effort, echo);
  const auto as_given = [&](const char* key, json::value otherwise) {
    const json::value* value = keys.find(key);
    echo[key] = value ? *value : std::move(otherwise);
  };
  echo["background"] = false;
  as_given("instructions", nullptr);
  as_given("max_output_tokens", nullptr);
  as_given("max_tool_calls", nullptr);
  as_given("previous_response_id", nullptr);
  as_given("prompt_cache_key", nullptr);
  as_given("safety_identifier", nullptr);
  as_given("temperature", shortest(params.sampling.temperature));
  as_given("top_p", shortest(params.sampling.top_p));
  as_given("top_logprobs", 0);
  as_given("presence_penalty", shortest(params.sampling.presence_penalty));
  as_given("frequency_penalty", shortest(params.sampling.frequency_penalty));
  as_given("user", nullptr);
  as_given("tool_choice", "auto");
  echo["service_tier"] = "default";
  echo["store"] = request.store;
  echo["truncation"] = truncation;
}

}  // namespace

ApiResult<ResponsesRequest> parse_responses_request(const json::object& object, const GenerationConfig& defaults,
                                                    const RequestLimits& limits, ResponseStore& store,
                                                    const std::string& owner) {
  ResponsesRequest request;
  Conversation& conversation = request.chat.conversation;
  JsonKeys keys(object, kRequest);
  check_field_names(object, keys, fmt::format("{} {} {}", kShared, kOwn, kHints), kRefused);
  json::object shared;
  for (const auto& [key, value] : object)
    if (has_word(kShared, std::string_view(key.data(), key.size()))) shared[key] = value;
  JsonKeys shared_keys(shared, kRequest);
  read_generation_params(shared, shared_keys, defaults, limits, request.chat.params);
  RETURN_IF_ERROR(shared_keys.status());
  read_options(keys, limits, request);
  json::array tools;
  ToolReader(keys, limits, conversation.tools, request.namespaced_tools).read(tools);
  read_tool_choice(keys, conversation.tools);
  keys.optional("parallel_tool_calls", conversation.tools.parallel);
  request.echo["tools"] = std::move(tools);
  request.echo["parallel_tool_calls"] = conversation.tools.parallel;
  std::string instructions;
  keys.optional("instructions", instructions);
  keys.optional("previous_response_id", request.previous_id);
  ASSIGN_OR_RETURN(request.input_items, read_input(keys, limits, store, owner));
  RETURN_IF_ERROR(keys.status());

  Transcript transcript(conversation.messages);
  ItemReader reader(keys, transcript);
  if (!instructions.empty()) transcript.say_as_system(instructions);
  if (!request.previous_id.empty()) RETURN_IF_ERROR(read_thread(request, limits, store, owner, keys, reader));
  for (size_t i = 0; i < request.input_items.size(); ++i)
    reader.read(request.input_items[i], fmt::format("input[{}]", i));
  if (conversation.messages.empty()) keys.fault("input", "holds nothing", "a string or a list of at least one item");
  RETURN_IF_ERROR(keys.status());
  return request;
}

std::string shown_input_items(const json::array& items, std::string_view response_id) {
  std::string text;
  JsonPieces list(text, "[]");
  for (size_t i = 0; i < items.size(); ++i) {
    json::object item = items[i].as_object();
    const std::string type(ItemReader::type_of(item));
    const std::string_view prefix = type == "message"         ? "msg"
                                    : type == "reasoning"     ? "rs"
                                    : type == "function_call" ? "fc"
                                                              : "fco";
    item["type"] = type;
    if (text_at(item, "id").empty()) item["id"] = response_ids::of_item(prefix, response_id, i, true);
    if (type == "message") {
      item["status"] = "completed";
      if (const json::value content = item.at("content"); content.is_string()) {
        const bool is_output = item.at("role") == "assistant";
        json::object part = {{"type", is_output ? "output_text" : "input_text"}, {"text", content}};
        if (is_output) part["annotations"] = json::array();
        item["content"] = json::array{std::move(part)};
      }
    }
    append_json(item, list.next());
  }
  list.end();
  return text;
}

}  // namespace cachalot::openai
