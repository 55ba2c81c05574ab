#include "text/formats/kimi_tools.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "base/text.h"
#include "config/json.h"

namespace cachalot {

namespace json = boost::json;

namespace {

constexpr std::string_view kIndent = "  ", kDefinitions = "#/$defs/", kRoot = "parameters";

const json::value* find(const json::object& object, std::string_view key) {
  return object.if_contains(key);
}

// Python's repr of a number, a truth value or null.
std::optional<std::string> python_repr(const json::value& value) {
  if (value.is_null()) return "None";
  if (value.is_bool()) return value.get_bool() ? "True" : "False";
  if (value.is_int64()) return fmt::format("{}", value.get_int64());
  if (value.is_uint64()) return fmt::format("{}", value.get_uint64());
  if (!value.is_double()) return std::nullopt;
  std::string text = fmt::format("{}", value.get_double());
  if (text.find_first_of(".en") == text.npos) text += ".0";
  return text;
}

// As Python's json.dumps writes it.
std::string python_json(const json::value& value) {
  if (const json::array* array = value.if_array()) {
    std::vector<std::string> items;
    for (const json::value& item : *array) items.push_back(python_json(item));
    return fmt::format("[{}]", fmt::join(items, ", "));
  }
  if (const json::object* object = value.if_object()) {
    std::vector<std::string> items;
    for (const auto& [key, item] : *object) items.push_back(python_json(json::string(key)) + ": " + python_json(item));
    return fmt::format("{{{}}}", fmt::join(items, ", "));
  }
  return value.is_double() ? *python_repr(value) : json_text(value);
}

// One function's declaration. What has no form in it makes the whole thing fail, as in Kimi's code.
class Declaration {
 public:
  std::optional<std::string> write(const json::object& function) {
    const json::value* given = find(function, "parameters");
    const json::object* parameters = given ? given->if_object() : nullptr;
    const json::object none;
    const json::object& root = parameters ? *parameters : none;
    std::string type = object_type(root, "");
    std::vector<std::string> lines;
    if (refers_to_root_) {
      const std::vector<std::string> fields = fields_of(root, std::string(kIndent), false);
      lines.push_back(fmt::format("interface {} {{{}}}", kRoot,
                                  fields.empty() ? "" : fmt::format("\n{}\n", fmt::join(fields, ",\n"))));
      type = kRoot;
    }
    for (const auto& [key, schema] : json::object(definitions_)) {
      const json::object* object = schema.if_object();
      if (!object) return std::nullopt;
      lines.push_back(comment(description_of(*object), "") +
                      fmt::format("interface {} {}", std::string_view(key), type_of(schema, "")));
    }
    if (std::string text = comment(description_of(function), ""); !text.empty())
      lines.push_back(text.substr(0, text.size() - 1));
    lines.push_back(fmt::format("type {} = (_: {}) => any;", std::string_view(function.at("name").as_string()), type));
    if (has_failed_) return std::nullopt;
    return fmt::format("{}", fmt::join(lines, "\n"));
  }

 private:
  std::string fail() {
    has_failed_ = true;
    return {};
  }

  std::string_view description_of(const json::object& schema) {
    const json::value* text = find(schema, "description");
    if (!text || text->is_null()) return {};
    if (!text->is_string()) return fail(), std::string_view();
    return text->get_string();
  }

  static std::string comment(std::string_view text, std::string_view indent) {
    std::string lines;
    while (!text.empty()) {
      const size_t end = std::min(text.find('\n'), text.size());
      if (end > 0) lines += fmt::format("{}// {}", indent, text.substr(0, end));
      lines += '\n';
      if (end + 1 == text.size()) lines += '\n';  // an empty last line
      text.remove_prefix(std::min(end + 1, text.size()));
    }
    return lines;
  }

  static bool is_plain(const json::object& schema) {
    return !schema.contains("$ref") && !schema.contains("anyOf") && !schema.contains("enum");
  }

  // What stands above a field: its description, and the bounds of its type.
  std::string comments_of(const json::value& value, std::string_view indent) {
    const json::object* schema = value.if_object();
    if (!schema) return {};
    std::string lines = comment(description_of(*schema), indent);
    const json::value* type = find(*schema, "type");
    const std::string_view name = is_plain(*schema) && type && type->is_string() ? type->get_string() : "";
    const std::string_view bounds = name == "string"                        ? "maxLength minLength pattern"
                                    : name == "number" || name == "integer" ? "maximum minimum"
                                    : name == "array"                       ? "maxItems minItems"
                                                                            : "";
    std::vector<std::string> given;
    for (const std::string& key : words_of(bounds)) {
      const json::value* bound = find(*schema, key);
      if (!bound) continue;
      const auto shown = bound->is_string() ? std::string(bound->get_string()) : python_repr(*bound);
      if (!shown) return fail();
      given.push_back(fmt::format("{}: {}", key, *shown));
    }
    if (!given.empty()) lines += fmt::format("{}// {}\n", indent, fmt::join(given, ", "));
    return lines;
  }

  std::vector<std::string> fields_of(const json::object& schema, const std::string& indent, bool required_first) {
    std::vector<std::string> required_fields, fields;
    const json::value* properties = find(schema, "properties");
    if (!properties) return {};
    const json::value* required = find(schema, "required");
    if (!properties->is_object() || (required && !required->is_array())) return fail(), fields;
    for (const auto& [key, property] : properties->get_object()) {
      const bool is_required =
          required && std::ranges::any_of(required->get_array(), [&](const json::value& name) { return name == key; });
      std::string field = comments_of(property, indent);
      const json::object* object = property.if_object();
      const json::value* value = object ? find(*object, "default") : nullptr;
      if (value && !value->is_null())
        field += fmt::format("{}// Default: {}\n", indent, python_repr(*value).value_or(python_json(*value)));
      field +=
          fmt::format("{}{}{}: {}", indent, std::string_view(key), is_required ? "" : "?", type_of(property, indent));
      (is_required && required_first ? required_fields : fields).push_back(std::move(field));
    }
    std::ranges::move(fields, std::back_inserter(required_fields));
    return required_fields;
  }

  std::string object_type(const json::object& schema, const std::string& indent) {
    if (const json::value* definitions = find(schema, "$defs")) {
      if (!definitions->is_object() && !definitions->is_null()) return fail();
      if (definitions->is_object())
        for (const auto& [key, value] : definitions->get_object()) definitions_.insert_or_assign(key, value);
    }
    const std::string inner = indent + std::string(kIndent);
    std::vector<std::string> fields = fields_of(schema, inner, true);
    if (const json::value* others = find(schema, "additionalProperties"); others && !others->is_null()) {
      const std::string type = *others == json::value(false) ? "never" : type_of(*others, inner);
      fields.push_back(fmt::format("{}[k: string]: {}", inner, type));
    }
    return fields.empty() ? "{}" : fmt::format("{{\n{}\n{}}}", fmt::join(fields, ",\n"), indent);
  }

  std::string array_type(const json::object& schema, const std::string& indent) {
    const json::value* items = find(schema, "items");
    const bool is_any = !items || items->is_null() || *items == json::value(false) ||
                        (items->is_object() && items->get_object().empty());
    if (is_any) return "Array<any>";
    const std::string inner = indent + std::string(kIndent), comments = comments_of(*items, inner);
    if (comments.empty()) return fmt::format("Array<{}>", type_of(*items, indent));
    return fmt::format("Array<\n{}{}{}\n{}>", comments, inner, type_of(*items, inner), indent);
  }

  std::string enum_type(const json::object& schema) {
    const json::value& values = schema.at("enum");
    if (!values.is_array()) return fail();
    const std::string_view wanted = type_of_values(find(schema, "type"));
    std::vector<std::string> names;
    for (const json::value& value : values.get_array()) {
      const bool is_integer = value.is_int64() || value.is_uint64() || value.is_bool();  // as Python has it
      const bool is_of_type = value.is_null() || (wanted == "string"    ? value.is_string()
                                                  : wanted == "number"  ? is_integer || value.is_double()
                                                  : wanted == "integer" ? is_integer
                                                  : wanted == "boolean" ? value.is_bool()
                                                                        : true);
      const auto name =
          value.is_string() ? fmt::format("\"{}\"", std::string_view(value.get_string())) : python_repr(value);
      if (!is_of_type || !name) return fail();
      names.push_back(*name);
    }
    return fmt::format("{}", fmt::join(names, " | "));
  }

  // Of an enum: a type, or a list of one, or of one and null.
  std::string_view type_of_values(const json::value* type) {
    if (!type) return {};
    if (type->is_string()) return type->get_string();
    const json::array* types = type->if_array();
    const auto name = [&](size_t i) {
      return (*types)[i].is_string() ? std::string_view((*types)[i].get_string()) : "";
    };
    if (types && types->size() == 1) return name(0);
    if (types && types->size() == 2 && (name(0) == "null" || name(1) == "null")) return name(name(0) == "null" ? 1 : 0);
    return fail(), std::string_view();
  }

  std::string union_type(const json::array& types) {
    static constexpr std::pair<std::string_view, std::string_view> kNames[] = {
        {"string", "string"}, {"number", "number"}, {"integer", "number"},   {"boolean", "boolean"},
        {"null", "null"},     {"object", "{}"},     {"array", "Array<any>"},
    };
    std::vector<std::string_view> names;
    for (const json::value& type : types) {
      const auto found =
          std::ranges::find_if(kNames, [&](const auto& name) { return type == json::string(name.first); });
      if (found == std::end(kNames)) return fail();
      names.push_back(found->second);
    }
    return fmt::format("{}", fmt::join(names, " | "));
  }

  std::string reference(const json::value& target) {
    const std::string_view name = target.is_string() ? std::string_view(target.get_string()) : "";
    if (name == "#") {
      refers_to_root_ = true;
      return std::string(kRoot);
    }
    const std::string_view last = name.substr(name.rfind('/') + 1);
    if (!name.starts_with(kDefinitions) || !definitions_.contains(last)) return fail();
    return std::string(last);
  }

  std::string type_of(const json::value& value, const std::string& indent) {
    if (value.is_bool()) return value.get_bool() ? "any" : "null";
    const json::object* schema = value.if_object();
    if (!schema || has_failed_) return fail();
    if (const json::value* target = find(*schema, "$ref")) return reference(*target);
    if (const json::value* choices = find(*schema, "anyOf")) {
      if (!choices->is_array()) return fail();
      std::vector<std::string> types;
      for (const json::value& choice : choices->get_array()) types.push_back(type_of(choice, indent));
      return fmt::format("{}", fmt::join(types, " | "));
    }
    if (schema->contains("enum")) return enum_type(*schema);
    const json::value* type = find(*schema, "type");
    if (!type) return schema->empty() ? "any" : fail();
    if (const json::array* types = type->if_array()) return union_type(*types);
    if (!type->is_string()) return fail();
    const std::string_view name = type->get_string();
    if (name == "object") return object_type(*schema, indent);
    if (name == "array") return array_type(*schema, indent);
    return name == "integer" ? "number" : std::string(name);
  }

  json::object definitions_;
  bool refers_to_root_ = false, has_failed_ = false;
};

}  // namespace

json::value sorted_deeply(const json::value& value) {
  if (const json::array* array = value.if_array()) {
    json::array sorted;
    for (const json::value& item : *array) sorted.push_back(sorted_deeply(item));
    return sorted;
  }
  const json::object* object = value.if_object();
  if (!object) return value;
  std::vector<std::string_view> keys;
  for (const auto& entry : *object) keys.push_back(entry.key());
  std::ranges::sort(keys);
  json::object sorted;
  for (const std::string_view key : keys) sorted.emplace(key, sorted_deeply(object->at(key)));
  return sorted;
}

std::optional<std::string> tools_in_typescript(const json::array& tools) {
  std::string functions;
  for (const json::value& tool : tools) {
    const json::object* object = tool.if_object();
    const json::value* function = object ? object->if_contains("function") : nullptr;
    object = function ? function->if_object() : nullptr;
    const json::value* name = object ? object->if_contains("name") : nullptr;
    // Of a template's own arguments, which nobody has looked at.
    if (!name || !name->is_string()) return std::nullopt;
    const auto declared = Declaration().write(*object);
    if (!declared) return std::nullopt;
    functions += *declared + "\n";
  }
  if (functions.empty()) return std::nullopt;
  return "# Tools\n\n## functions\nnamespace functions {\n" + functions + "}\n";
}

}  // namespace cachalot
