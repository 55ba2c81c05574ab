#include "openai/request/schema_bounds.h"

#include <algorithm>
#include <boost/json/object.hpp>
#include <functional>

#include "base/text.h"

namespace cachalot::openai {

namespace json = boost::json;

void bound_formats(json::value& schema) {
  // Years begin with 1, as in most languages' calendars.
  static const std::string kYear = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)";
  static const std::string kOf4 = "(?:0[48]|[2468][048]|[13579][26])";
  static const std::string kDay =
      "^(?:" + kYear + "-(?:0[13-9]|1[0-2]|02-[01]|02-2[0-8])|(?:[0-9]{2}" + kOf4 + "|" + kOf4 + "00)-02-29)";
  static const std::string kSecond = R"(.*:[0-5][0-9](?:\.[0-9]+)?(?:[zZ]|[+-].{5})$)";
  struct Bound {
    std::string_view format, key;
    json::value value;
  };
  static const Bound kBounds[] = {
      {"date", "pattern", (kDay + ".*$").c_str()},
      {"date-time", "pattern", (kDay + kSecond).c_str()},
      {"time", "pattern", ("^" + kSecond).c_str()},
      {"hostname", "maxLength", 253},
  };
  if (json::array* list = schema.if_array())
    for (json::value& part : *list) bound_formats(part);
  json::object* object = schema.if_object();
  if (!object) return;
  for (auto& [key, part] : *object)
    if (!has_word("const enum default examples", std::string_view(key.data(), key.size()))) bound_formats(part);
  const json::value* format = object->if_contains("format");
  if (!format || !format->is_string()) return;
  const auto* const bound = std::ranges::find(kBounds, std::string_view(format->get_string()), &Bound::format);
  if (bound != std::end(kBounds)) object->emplace(bound->key, bound->value);
}

namespace {

bool has_any(const json::object& schema, std::initializer_list<const char*> keys) {
  return std::ranges::any_of(keys, [&](const char* key) { return schema.contains(key); });
}

// Every schema in this one, itself first; false ends the walk.
bool walk(json::value& value, const std::function<bool(json::object&)>& visit) {
  json::object* schema = value.if_object();
  if (!schema) return true;
  if (!visit(*schema)) return false;
  for (auto& [key, part] : *schema) {
    const std::string_view name(key.data(), key.size());
    if (has_word("properties patternProperties $defs definitions", name) && part.is_object()) {
      for (auto& [ignored, member] : part.get_object())
        if (!walk(member, visit)) return false;
    } else if (has_word("prefixItems items anyOf", name) && part.is_array()) {
      for (json::value& member : part.get_array())
        if (!walk(member, visit)) return false;
    } else if (has_word("items additionalItems unevaluatedItems contains additionalProperties", name) &&
               !walk(part, visit)) {
      return false;
    }
  }
  return true;
}

// What is said of the same value elsewhere would meet a closed object.
bool speaks_of_others(const json::object& schema) {
  if (has_any(schema, {"allOf", "oneOf", "not", "if", "dependentSchemas", "dependencies", "unevaluatedProperties",
                       "propertyNames", "$dynamicRef", "$recursiveRef"}))
    return true;
  if (schema.contains("$ref") && schema.contains("anyOf")) return true;
  if (schema.contains("properties") && schema.contains("patternProperties")) return true;
  if (has_any(schema, {"const", "enum"}) && has_any(schema, {"$ref", "anyOf", "properties"})) return true;
  // One to a place that is not looked at here.
  const json::value* ref = schema.if_contains("$ref");
  const std::string_view place = ref && ref->is_string() ? std::string_view(ref->get_string()) : "#";
  if (place != "#" && !place.starts_with("#/$defs/") && !place.starts_with("#/definitions/")) return true;
  return has_any(schema, {"$ref", "anyOf"}) &&
         has_any(schema, {"properties", "patternProperties", "additionalProperties", "required", "minProperties"});
}

bool is_closed_by_itself(const json::object& schema) {
  const json::value* properties = schema.if_contains("properties");
  if (!properties || !properties->is_object() || properties->get_object().empty()) return false;
  if (has_any(schema, {"additionalProperties", "patternProperties", "minProperties", "dependentRequired"}))
    return false;
  const json::value* required = schema.if_contains("required");
  return !required || (required->is_array() && std::ranges::all_of(required->get_array(), [&](const json::value& name) {
                         return name.is_string() && properties->get_object().contains(name.get_string());
                       }));
}

}  // namespace

void close_objects(json::value& schema) {
  if (!walk(schema, [](json::object& part) { return !speaks_of_others(part); })) return;
  walk(schema, [](json::object& part) {
    if (is_closed_by_itself(part)) part["additionalProperties"] = false;
    return true;
  });
}

}  // namespace cachalot::openai
