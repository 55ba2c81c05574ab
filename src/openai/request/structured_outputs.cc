#include "openai/request/structured_outputs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <boost/json/parse.hpp>

#include "base/text.h"
#include "openai/request/schema_bounds.h"

namespace cachalot::openai {

namespace json = boost::json;

namespace {

constexpr size_t kMostChoices = 10'000;

// White space between the parts of a JSON text: as people write it, and not without end.
constexpr std::string_view kWhiteSpace = R"(( |\n {0,64})?)";

GrammarText json_grammar(json::object schema) {
  if (!schema.contains("x-guidance"))
    schema["x-guidance"] = {{"whitespace_pattern", kWhiteSpace}, {"json_allow_general_unicode_escapes", true}};
  json::value bounded = std::move(schema);
  bound_formats(bounded);
  close_objects(bounded);
  return {GrammarText::Kind::kJsonSchema, json_text(bounded)};
}

// A schema, also as the text of one.
std::optional<GrammarText> read_schema(const json::value& value, std::string_view key, JsonKeys& keys) {
  boost::system::error_code error;
  json::value parsed = value;
  if (value.is_string()) parsed = json::parse(value.get_string(), error, {}, {.max_depth = 64});
  if (parsed.is_bool() && !error)
    return json_grammar(parsed.get_bool() ? json::object() : json::object{{"not", json::object()}});
  if (error || !parsed.is_object()) {
    keys.fault(key, "is something else", "a JSON schema, an object");
    return std::nullopt;
  }
  return json_grammar(std::move(parsed.get_object()));
}

std::optional<GrammarText> read_choices(const json::value& value, std::string_view key, JsonKeys& keys) {
  if (!value.is_array() || value.get_array().empty() ||
      !std::ranges::all_of(value.get_array(), [](const json::value& choice) {
        return choice.is_string() && !choice.get_string().empty();
      })) {
    keys.fault(key, "is something else", "a list of texts, at least one");
    return std::nullopt;
  }
  if (value.get_array().size() > kMostChoices) {
    keys.fault(key, fmt::format("holds {} texts", value.get_array().size()), fmt::format("at most {}", kMostChoices));
    return std::nullopt;
  }
  std::string lark = "start: CHOICE\nCHOICE: ";  // a terminal, which any number of texts makes no more ambiguous
  for (const json::value& choice : value.get_array()) {
    if (!lark.ends_with(' ')) lark += " | ";
    append_json_string(choice.get_string(), lark);
  }
  return GrammarText{GrammarText::Kind::kLark, lark};
}

std::optional<GrammarText> read_text(const json::value& value, std::string_view key, GrammarText::Kind kind,
                                     JsonKeys& keys) {
  if (!value.is_string() || value.get_string().empty()) {
    keys.fault(key, "is something else", "a string with something in it");
    return std::nullopt;
  }
  std::string text(value.get_string());
  if (kind == GrammarText::Kind::kLark)
    if (std::optional<std::string> lark = lark_of_gbnf(text)) text = std::move(*lark);
  return GrammarText{kind, std::move(text)};
}

// vLLM's structural tags, of the first form: where the answer begins a tag, it goes on as the tag's schema says.
std::optional<GrammarText> read_structural_tag(const json::value& value, std::string_view key, JsonKeys& keys) {
  boost::system::error_code error;
  json::value parsed = value;
  if (value.is_string()) parsed = json::parse(value.get_string(), error, {}, {.max_depth = 64});
  const json::object* object = error ? nullptr : parsed.if_object();
  const json::value* structures = object ? object->if_contains("structures") : nullptr;
  const json::value* triggers = object ? object->if_contains("triggers") : nullptr;
  const auto is_text = [](const json::value* text) { return text && text->is_string() && !text->get_string().empty(); };
  const bool is_known =
      structures && structures->is_array() && !structures->get_array().empty() && triggers && triggers->is_array() &&
      !triggers->get_array().empty() &&
      std::ranges::all_of(triggers->get_array(), [&](const json::value& text) { return is_text(&text); });
  if (!is_known) {
    keys.fault(key, "is something else", "an object with structures (begin, schema, end) and triggers");
    return std::nullopt;
  }
  std::string triggered, rules;
  for (size_t i = 0; i < triggers->get_array().size(); ++i) {
    const std::string_view trigger = triggers->get_array()[i].get_string();
    std::string tags;
    for (size_t j = 0; j < structures->get_array().size(); ++j) {
      const json::object* tag = structures->get_array()[j].if_object();
      const json::value* begin = tag ? tag->if_contains("begin") : nullptr;
      const json::value* end = tag ? tag->if_contains("end") : nullptr;
      const json::value* schema = tag ? tag->if_contains("schema") : nullptr;
      if (!is_text(begin) || !is_text(end) || !schema || !schema->is_object()) {
        keys.fault(key, fmt::format("has structures[{}] without begin, schema or end", j), "texts and a JSON schema");
        return std::nullopt;
      }
      const std::string_view opening = begin->get_string();
      if (!opening.starts_with(trigger)) continue;
      if (!tags.empty()) tags += " | ";
      // The trigger is a part of the text in front.
      if (opening.size() > trigger.size()) append_json_string(opening.substr(trigger.size()), tags);
      tags += " %json " + json_grammar(schema->get_object()).text + " ";
      append_json_string(end->get_string(), tags);
    }
    if (tags.empty()) continue;
    rules += fmt::format("tag{}: text{} ({})\n", i, i, tags);
    std::string quoted_trigger;
    append_json_string(trigger, quoted_trigger);
    rules += fmt::format("text{}[lazy]: /(?s:.*)/ {}\n", i, quoted_trigger);
    triggered += fmt::format("{}tag{}", triggered.empty() ? "" : " | ", i);
  }
  if (triggered.empty()) {
    keys.fault(key, "has triggers that begin no structure", "triggers that the structures' begins begin with");
    return std::nullopt;
  }
  return GrammarText{GrammarText::Kind::kLark, fmt::format("start: ({})* rest\nrest: /(?s:.*)/\n{}", triggered, rules)};
}

std::optional<GrammarText> read_response_format(const json::value& value, JsonKeys& keys) {
  constexpr const char* kKey = "response_format";
  const json::object* object = value.if_object();
  const json::value* type = object ? object->if_contains("type") : nullptr;
  const std::string_view name = type && type->is_string() ? std::string_view(type->get_string()) : "";
  if (name == "text") return std::nullopt;
  if (name == "json_object") return json_grammar({{"type", "object"}});
  if (name == "structural_tag") return read_structural_tag(value, kKey, keys);
  if (name != "json_schema") {
    keys.fault(kKey, name.empty() ? "has no type" : "is of type " + quoted(name),
               "of type text, json_object, json_schema or structural_tag");
    return std::nullopt;
  }
  const json::value* inner = object->if_contains("json_schema");
  const json::value* schema = inner && inner->is_object() ? inner->get_object().if_contains("schema") : nullptr;
  if (!schema) {
    keys.fault("response_format.json_schema", "has no schema", "an object with name and schema");
    return std::nullopt;
  }
  return read_schema(*schema, "response_format.json_schema.schema", keys);
}

std::optional<GrammarText> read_one(std::string_view kind, const json::value& value, const std::string& key,
                                    JsonKeys& keys) {
  if (kind == "json") return read_schema(value, key, keys);
  if (kind == "regex") return read_text(value, key, GrammarText::Kind::kRegex, keys);
  if (kind == "choice") return read_choices(value, key, keys);
  if (kind == "grammar") return read_text(value, key, GrammarText::Kind::kLark, keys);
  if (kind == "structural_tag") return read_structural_tag(value, key, keys);
  if (value == json::value(false)) return std::nullopt;
  if (value == json::value(true)) return json_grammar({{"type", "object"}});
  keys.fault(key, "is something else", "true or false");
  return std::nullopt;
}

}  // namespace

std::optional<GrammarText> read_structured_outputs(JsonKeys& keys) {
  constexpr std::pair<const char*, const char*> kFields[] = {
      {"guided_json", "json"}, {"guided_regex", "regex"}, {"guided_choice", "choice"}, {"guided_grammar", "grammar"},
      {"json_schema", "json"}, {"regex", "regex"},        {"ebnf", "grammar"},         {"grammar", "grammar"}};
  constexpr std::string_view kKinds[] = {"json", "regex", "choice", "grammar", "json_object", "structural_tag"};
  std::optional<GrammarText> wanted;
  std::string first;
  const auto take = [&](std::optional<GrammarText> grammar, const std::string& key) {
    if (!grammar) return;
    if (wanted) return keys.fault(key, "is given beside " + first, "the only one: an answer has one form");
    wanted = std::move(grammar);
    first = key;
  };
  if (const json::value* format = keys.find("response_format"))
    take(read_response_format(*format, keys), "response_format");
  if (const json::object* outputs = keys.object("structured_outputs")) {
    bool has_form = false;
    for (const std::string_view kind : kKinds) {
      const json::value* value = outputs->if_contains(kind);
      const std::string key = fmt::format("structured_outputs.{}", kind);
      if (!value || value->is_null() || *value == json::value(false)) continue;
      has_form = true;
      take(read_one(kind, *value, key, keys), key);
    }
    // A form whose name is not known must not become an answer of no form.
    if (!has_form)
      keys.fault("structured_outputs", "names no form",
                 "an object with one of " + fmt::format("{}", fmt::join(kKinds, ", ")));
  }
  for (const auto& [key, kind] : kFields)
    if (const json::value* value = keys.find(key)) take(read_one(kind, *value, key, keys), key);
  return wanted;
}

std::optional<GrammarText> read_text_format(const json::value& format, const std::string& key, JsonKeys& keys,
                                            json::object& told) {
  const json::object* object = format.if_object();
  const json::value* type = object ? object->if_contains("type") : nullptr;
  const std::string_view name = type && type->is_string() ? std::string_view(type->get_string()) : "";
  if (name == "text") return std::nullopt;
  if (name == "json_object") return json_grammar({{"type", "object"}});
  const json::value* schema = name == "json_schema" ? object->if_contains("schema") : nullptr;
  if (schema && schema->is_object()) told = schema->get_object();
  if (schema) return read_schema(*schema, key + ".schema", keys);
  if (name == "json_schema")
    keys.fault(key + ".schema", "is missing", "a JSON schema");
  else
    keys.fault(key, name.empty() ? "has no type" : "is of type " + quoted(name),
               "of type text, json_object or json_schema");
  return std::nullopt;
}

// Character by character: rules' names and signs change, strings stay, classes become regular expressions.
std::optional<std::string> lark_of_gbnf(std::string_view grammar) {
  if (!grammar.contains("::=")) return std::nullopt;
  std::string lark;
  const auto is_name = [](char byte) {
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') ||
           byte == '_' || byte == '-';
  };
  // The end of what is quoted from `begin` on: past its closing sign.
  const auto quoted_end = [&](size_t begin, char close) {
    size_t end = begin + 1;
    while (end < grammar.size() && grammar[end] != close) end += grammar[end] == '\\' ? 2 : 1;
    return std::min(end + 1, grammar.size());
  };
  for (size_t i = 0; i < grammar.size();) {
    const char byte = grammar[i];
    if (byte == '#') {
      i = std::min(grammar.find('\n', i), grammar.size());
    } else if (byte == '"') {
      const size_t end = quoted_end(i, '"');
      lark += grammar.substr(i, end - i);
      i = end;
    } else if (byte == '[') {
      const size_t end = quoted_end(i, ']');
      lark += '/';
      for (const char c : grammar.substr(i, end - i)) lark += c == '/' ? std::string("\\/") : std::string(1, c);
      lark += '/';
      i = end;
    } else if (grammar.substr(i).starts_with("::=")) {
      lark += ':';
      i += 3;
    } else if (is_name(byte) && (byte < '0' || byte > '9')) {
      size_t end = i;
      while (end < grammar.size() && is_name(grammar[end])) ++end;
      std::string name(grammar.substr(i, end - i));
      // Lark's rules are in small letters, its terminals in large ones.
      for (char& c : name) c = c == '-' ? '_' : c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
      lark += name == "root" ? "start" : "g_" + name;
      i = end;
    } else if (byte == '\n') {
      // A rule goes on over a line's end; the next begins with a name and ::=.
      size_t next = i;
      while (next < grammar.size() &&
             (grammar[next] == '\n' || grammar[next] == ' ' || grammar[next] == '\t' || grammar[next] == '\r'))
        ++next;
      size_t end = next;
      while (end < grammar.size() && is_name(grammar[end])) ++end;
      while (end < grammar.size() && grammar[end] == ' ') ++end;
      lark += grammar.substr(end).starts_with("::=") ? '\n' : ' ';
      i = next;
    } else {
      lark += byte;
      ++i;
    }
  }
  return lark;
}

}  // namespace cachalot::openai
