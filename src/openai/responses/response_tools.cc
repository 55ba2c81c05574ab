#include "openai/responses/response_tools.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "openai/request/transcript.h"

namespace cachalot::openai {

namespace json = boost::json;

std::string full_name(std::string_view space, std::string_view name) {
  if (space.empty()) return std::string(name);
  return fmt::format("{}{}{}", space, space.ends_with("__") ? "" : "__", name);
}

namespace {

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
      leave_out_tool(type);
      return false;
    }
    if (!check_function(value, where, keys_)) return false;
    const std::string name = full_name(space, text_at(*tool, "name"));
    use_.tools.push_back(flat_tool(*tool, name, "parameters"));
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

}  // namespace

void read_response_tools(JsonKeys& keys, const RequestLimits& limits, ToolUse& use, NamespacedTools& namespaced,
                         json::array& shown) {
  ToolReader(keys, limits, use, namespaced).read(shown);
}

void read_response_tool_choice(JsonKeys& keys, ToolUse& use) {
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

}  // namespace cachalot::openai
