#include "text/tool_call_grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/object.hpp>

#include "config/json.h"

namespace cachalot {

namespace json = boost::json;

namespace {

constexpr std::string_view kAnyText = "/(?s:.*)/";
// As the models write JSON themselves, in one line.
constexpr std::string_view kItemSeparator = ", ", kKeySeparator = ": ";

std::string quoted_text(std::string_view text) {
  std::string quoted;
  append_json_string(text, quoted);
  return quoted;
}

std::string json_rule(json::object schema) {
  if (!schema.contains("x-guidance"))
    schema["x-guidance"] = {{"item_separator", kItemSeparator},
                            {"key_separator", kKeySeparator},
                            {"whitespace_flexible", false},
                            {"json_allow_general_unicode_escapes", true}};
  return "%json " + json_text(schema);
}

json::object schema_of(const json::object& function) {
  const json::value* parameters = function.if_contains("parameters");
  if (parameters && parameters->is_object() && !parameters->get_object().empty()) return parameters->get_object();
  return {{"type", "object"}, {"properties", json::object()}, {"additionalProperties", false}};
}

bool is_string_alone(const json::value& schema) {
  const json::object* object = schema.if_object();
  const json::value* type = object ? object->if_contains("type") : nullptr;
  return type && *type == "string" && !object->contains("enum") && !object->contains("pattern") &&
         !object->contains("const");
}

// Writes one call for each tool.
class CallRules {
 public:
  CallRules(const ToolCallSyntax& syntax, const Grammars& grammars) : syntax_(syntax), grammars_(grammars) {}

  std::string call(const json::object& function) const {
    const std::string name(function.at("name").as_string());
    const json::object schema = schema_of(function);
    if (!syntax_.key.empty()) {
      const std::string opening = mark(syntax_.call, name, syntax_.header_end);
      const std::string line = syntax_.header_end.empty() ? "" : "\"\\n\" ";
      return fmt::format("{} {}{} {}", opening, line, parameters(schema, line), mark(syntax_.call_end));
    }
    if (syntax_.is_fenced)
      return fmt::format("{} {} {} \"\\n```\" {}", mark(syntax_.call, "function", syntax_.header_end),
                         quoted_text(name + "\n```json\n"), json_rule(schema), mark(syntax_.call_end));
    if (syntax_.names[0] == "kimi_k2")
      return fmt::format("{} /[0-9]{{1,4}}/ {} {} {}", mark(syntax_.call, "functions." + name + ":", ""),
                         mark(syntax_.header_end), json_rule(schema), mark(syntax_.call_end));
    return fmt::format("{} {} {}", mark(syntax_.call, name, syntax_.header_end), json_rule(schema),
                       mark(syntax_.call_end));
  }

  std::string mark(std::string_view text) const { return text.empty() ? "" : grammars_.lark_of(text); }

 private:
  std::string mark(std::string_view before, std::string_view name, std::string_view after) const {
    return fmt::format("{} {} {}", mark(before), quoted_text(name), mark(after));
  }

  // Each property once, in the schema's order; those that are not required may be left out.
  std::string parameters(const json::object& schema, const std::string& line) const {
    const json::value* properties = schema.if_contains("properties");
    if (!properties || !properties->is_object()) return "";
    const json::value* required = schema.if_contains("required");
    std::string rules;
    for (const auto& [key, value] : properties->get_object()) {
      const bool is_required =
          required && required->is_array() &&
          std::ranges::any_of(required->get_array(), [&](const json::value& name) { return name == key; });
      rules += fmt::format("({}){} ", parameter(schema, key, value, line), is_required ? "" : "?");
    }
    return rules;
  }

  std::string parameter(const json::object& schema, std::string_view key, const json::value& value,
                        const std::string& line) const {
    const bool is_plain = is_string_alone(value);
    json::object own = value.is_object() ? value.get_object() : json::object();
    for (const char* shared : {"$defs", "definitions"})  // that its references name
      if (const json::value* definitions = schema.if_contains(shared)) own.emplace(shared, *definitions);
    const std::string attributes =
        syntax_.header_end.empty() ? "" : quoted_text(is_plain ? " string=\"true\"" : " string=\"false\"");
    return fmt::format("{} {} {} {} {} {} {} {}", mark(syntax_.key), quoted_text(key), mark(syntax_.key_end),
                       attributes, mark(syntax_.value), is_plain ? std::string(kAnyText) : json_rule(std::move(own)),
                       mark(syntax_.value_end), line);
  }

  const ToolCallSyntax& syntax_;
  const Grammars& grammars_;
};

// The rule `form`, and what it needs.
std::string form_of(const GrammarText& form) {
  switch (form.kind) {
    case GrammarText::Kind::kJsonSchema:
      return "form: %json " + form.text + "\n";
    case GrammarText::Kind::kRegex: {
      std::string escaped;
      for (size_t i = 0; i < form.text.size(); ++i) {
        if (form.text[i] == '\\' && i + 1 < form.text.size()) {
          escaped += form.text.substr(i++, 2);
        } else {
          escaped += form.text[i] == '/' ? "\\/" : form.text.substr(i, 1);
        }
      }
      return "form: /" + escaped + "/\n";
    }
    case GrammarText::Kind::kLark:
      break;
  }
  // A grammar's own start stands under another name.
  std::string rules = form.text;
  for (size_t begin = 0; begin < rules.size();) {
    const size_t end = std::min(rules.find('\n', begin), rules.size());
    if (std::string_view(rules).substr(begin).starts_with("start:")) {
      rules.replace(begin, 5, "form");
      break;
    }
    begin = end + 1;
  }
  return rules + "\n";
}

}  // namespace

GrammarText tool_call_grammar(const ToolCallSyntax& syntax, const Grammars& grammars, const json::array& tools,
                              const ToolCallRules& rules) {
  const CallRules calls(syntax, grammars);
  std::string any_call;
  for (const json::value& tool : tools) {
    const json::object& function = tool.at("function").as_object();
    if (!rules.only.empty() && function.at("name").as_string() != rules.only) continue;
    any_call += (any_call.empty() ? "call: " : "\n  | ") + calls.call(function);
  }
  const bool has_lines = !syntax.header_end.empty() && !syntax.key.empty();  // DSML
  const std::string_view between = has_lines || syntax.is_fenced || syntax.section.empty() ? "\"\\n\"" : "";
  std::string section = fmt::format("{} {} call{} {} {}", calls.mark(syntax.section), has_lines ? "\"\\n\"" : "",
                                    rules.may_repeat ? fmt::format(" ({} call)*", between) : "",
                                    has_lines ? "\"\\n\"" : "", calls.mark(syntax.section_end));
  std::string start = "/\\s{0,2}/ calls", form_rules;
  if (!rules.must_call && rules.form) {
    start = "/\\s{0,2}/ (calls | form)";
    form_rules = form_of(*rules.form);
  } else if (!rules.must_call) {
    start = fmt::format("{} (calls)?", kAnyText);
  }
  return {GrammarText::Kind::kLark, fmt::format("start: {}\ncalls: {}\n{}\n{}", start, section, any_call, form_rules)};
}

}  // namespace cachalot
