#include "openai/request/tools.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace cachalot::openai {

namespace json = boost::json;

namespace {

constexpr size_t kMaxNameBytes = 256;

void read_list(const json::value& value, std::string_view key, const RequestLimits& limits, JsonKeys& keys,
               json::array& tools) {
  if (!value.is_array()) return keys.fault(key, "is something else", "a list");
  const json::array& list = value.get_array();
  if (list.size() > static_cast<size_t>(limits.max_tools))
    return keys.fault(key, fmt::format("holds {}", list.size()), fmt::format("at most {}", limits.max_tools));
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string where = fmt::format("{}[{}]", key, i);
    if (key == "functions") {
      if (!check_function(list[i], where, keys)) return;
      tools.push_back({{"type", "function"}, {"function", list[i]}});
      continue;
    }
    const json::object* tool = list[i].if_object();
    const json::value* type = tool ? tool->if_contains("type") : nullptr;
    if (type && !type->is_string()) return keys.fault(where + ".type", "is something else", "function");
    if (type && type->get_string() != "function")
      return keys.fault(where + ".type", "is " + quoted(type->get_string()), "function", ErrorCode::kUnsupported);
    const json::value* function = tool ? tool->if_contains("function") : nullptr;
    if (!function) return keys.fault(where + ".function", "is missing", "an object with a name");
    if (!check_function(*function, where + ".function", keys)) return;
    json::object known = *tool;
    known["type"] = "function";  // as in vLLM, whose clients may leave it out
    tools.push_back(std::move(known));
  }
}

void read_named(const json::value* function, std::string_view key, JsonKeys& keys, ToolUse& use) {
  const json::object* object = function ? function->if_object() : nullptr;
  const json::value* name = object ? object->if_contains("name") : nullptr;
  if (!name || !name->is_string()) return keys.fault(key, "names no function", "an object with its name");
  choose_tool(name->get_string(), key, keys, use);
}

void read_choice(const json::value& value, std::string_view key, JsonKeys& keys, ToolUse& use) {
  if (const json::object* object = value.if_object()) {
    if (key == "function_call") return read_named(&value, key, keys, use);
    const json::value* type = object->if_contains("type");
    if (!type || *type != "function")
      return keys.fault(key, "is of another type", "none, auto, required, or an object of type function",
                        ErrorCode::kUnsupported);
    return read_named(object->if_contains("function"), key, keys, use);
  }
  const std::string_view word = value.is_string() ? std::string_view(value.get_string()) : "";
  if (word == "none")
    use.choice = ToolUse::Choice::kNone;
  else if (word == "required" && key == "tool_choice")
    use.choice = ToolUse::Choice::kRequired;
  else if (word != "auto")
    return keys.fault(key, word.empty() ? "is something else" : "is " + quoted(word),
                      "none, auto, required, or an object that names a function");
  if (use.tools.empty() && word == "required") keys.fault(key, "is required", "none or auto where no tools are given");
}

}  // namespace

bool is_tool_name(const json::value* value) {
  if (!value || !value->is_string()) return false;
  const std::string_view name = value->get_string();
  return !name.empty() && name.size() <= kMaxNameBytes && to_valid_utf8(name) == name &&
         std::ranges::none_of(name, [](char byte) {
           return static_cast<unsigned char>(byte) <= 0x20 || byte == 0x7f || byte == '"' || byte == '<' || byte == '>';
         });
}

bool check_function(const json::value& value, const std::string& where, JsonKeys& keys, std::string_view parameters) {
  const json::object* function = value.if_object();
  if (!function) return keys.fault(where, "is not an object", "a function with a name"), false;
  if (!is_tool_name(function->if_contains("name")))
    return keys.fault(where + ".name", "is missing or no name",
                      fmt::format("up to {} letters, digits, and signs but blanks, quotes, < and >", kMaxNameBytes)),
           false;
  const json::value* description = function->if_contains("description");
  if (description && !description->is_null() && !description->is_string())
    return keys.fault(where + ".description", "is something else", "a string"), false;
  const json::value* schema = function->if_contains(parameters);
  if (schema && !schema->is_null() && !schema->is_object())
    return keys.fault(fmt::format("{}.{}", where, parameters), "is something else", "a JSON schema, an object"), false;
  return true;
}

json::object flat_tool(const json::object& tool, std::string_view name, std::string_view parameters) {
  json::object function = {{"name", name}};
  for (const auto& [from, to] :
       {std::pair(std::string_view("description"), "description"), {parameters, "parameters"}, {"strict", "strict"}})
    if (const json::value* value = tool.if_contains(from); value && !value->is_null()) function[to] = *value;
  return {{"type", "function"}, {"function", std::move(function)}};
}

void leave_out_tool(std::string_view type) {
  warn_once(fmt::format("requests bring tools of type {}, which do not exist here and are left out (said once)",
                        quoted(type)));
}

void choose_tool(std::string_view name, std::string_view key, JsonKeys& keys, ToolUse& use) {
  const bool is_there = std::ranges::any_of(
      use.tools, [&](const json::value& tool) { return tool.at("function").at("name").get_string() == name; });
  if (!is_there) return keys.fault(key, "names " + quoted(name), "one of the tools that are given");
  use.choice = ToolUse::Choice::kNamed;
  use.named = name;
}

void read_tools(JsonKeys& keys, const RequestLimits& limits, ToolUse& use) {
  for (const auto& [list, choice] : {std::pair("tools", "tool_choice"), std::pair("functions", "function_call")}) {
    const json::value* tools = keys.find(list);
    if (tools) read_list(*tools, list, limits, keys, use.tools);
    if (!use.tools.empty()) use.choice = ToolUse::Choice::kAuto;
    if (const json::value* chosen = keys.find(choice)) read_choice(*chosen, choice, keys, use);
    if (!use.tools.empty()) break;
  }
  keys.optional("parallel_tool_calls", use.parallel);
}

void read_tool_calls(const json::object& message, const std::string& where, JsonKeys& keys, json::object& read) {
  json::array calls;
  const auto add = [&](const json::value& function, const std::string& place, const json::value* id) {
    if (!check_function(function, place, keys)) return false;
    const json::object& object = function.get_object();
    const json::value* arguments = object.if_contains("arguments");
    if (arguments && !arguments->is_null() && !arguments->is_string() && !arguments->is_object())
      return keys.fault(place + ".arguments", "is something else", "a string of JSON"), false;
    const std::string text = !arguments || arguments->is_null() ? "{}"
                             : arguments->is_string()           ? std::string(arguments->get_string())
                                                                : json_text(*arguments);
    json::object call = {{"type", "function"}, {"function", {{"name", object.at("name")}, {"arguments", text}}}};
    if (id && id->is_string()) call["id"] = *id;
    calls.push_back(std::move(call));
    return true;
  };
  if (const json::value* list = message.if_contains("tool_calls"); list && !list->is_null()) {
    if (!list->is_array()) return keys.fault(where + ".tool_calls", "is something else", "a list of calls");
    for (size_t i = 0; i < list->get_array().size(); ++i) {
      const std::string place = fmt::format("{}.tool_calls[{}]", where, i);
      const json::object* call = list->get_array()[i].if_object();
      const json::value* function = call ? call->if_contains("function") : nullptr;
      if (!function) return keys.fault(place + ".function", "is missing", "an object with name and arguments");
      if (!add(*function, place + ".function", call->if_contains("id"))) return;
    }
  }
  if (const json::value* function = message.if_contains("function_call"); function && !function->is_null())
    if (!add(*function, where + ".function_call", nullptr)) return;
  if (!calls.empty()) read["tool_calls"] = std::move(calls);
}

}  // namespace cachalot::openai
