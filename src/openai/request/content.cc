#include "openai/request/content.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/text.h"
#include "openai/request/generation_params.h"
#include "openai/request/transcript.h"

namespace cachalot::openai {

namespace json = boost::json;

namespace {

std::string told_types(std::string_view words) {
  return fmt::format("of type {}", fmt::join(words_of(words), " or "));
}

// A conversation that once had a picture in it goes on: the model knows that there was one.
std::string in_place_of(std::string_view type) {
  warn_once(
      fmt::format("requests bring parts of type {}, which this model does not see: it is told so in their place "
                  "(said once)",
                  quoted(type)));
  std::string_view name = type;
  if (name.starts_with("input_")) name.remove_prefix(std::string_view("input_").size());
  if (name.ends_with("_url")) name.remove_suffix(std::string_view("_url").size());
  return fmt::format("[{} left out: this model reads text only]", name);
}

// Anthropic's documents and search results may be texts, or blocks of them.
const json::value* texts_of(const json::object& part) {
  const json::value* source = part.if_contains("source");
  const json::object* object = source ? source->if_object() : nullptr;
  if (text_at(part, "type") == "search_result") return part.if_contains("content");
  if (object && text_at(*object, "type") == "text") return object->if_contains("data");
  return object && text_at(*object, "type") == "content" ? object->if_contains("content") : nullptr;
}

}  // namespace

std::optional<std::string> text_of_part(const json::value& part, const std::string& where, const PartTypes& types,
                                        JsonKeys& keys) {
  const json::object* object = part.if_object();
  const std::string_view type = object ? text_at(*object, "type") : "";
  if (type.empty()) return keys.fault(where + ".type", "is missing", told_types(types.texts)), std::nullopt;
  if (has_word(types.unseen, type)) {
    const json::value* texts = texts_of(*object);
    if (!texts) return in_place_of(type);
    std::string text;
    return read_content(texts, where + ".content", types, keys, text) ? std::optional(text) : std::nullopt;
  }
  if (!has_word(types.texts, type))
    return keys.fault(where + ".type", "is " + quoted(type), told_types(types.texts), ErrorCode::kUnsupported),
           std::nullopt;
  const char* key = type == "refusal" ? "refusal" : "text";
  const json::value* text = object->if_contains(key);
  if (!text || !text->is_string())
    return keys.fault(fmt::format("{}.{}", where, key), "is missing", "a string"), std::nullopt;
  return std::string(text->get_string());
}

bool read_content(const json::value* content, const std::string& where, const PartTypes& types, JsonKeys& keys,
                  std::string& text) {
  if (content && content->is_string()) {
    text = content->get_string();
    return true;
  }
  if (!content || !content->is_array()) {
    keys.fault(where, content ? "is something else" : "is missing", "a string or a list of parts");
    return false;
  }
  const json::array& parts = content->get_array();
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::optional<std::string> line = text_of_part(parts[i], fmt::format("{}[{}]", where, i), types, keys);
    if (!line) return false;
    if (types.skips_empty && line->empty()) continue;
    if (types.skips_empty ? !text.empty() : i > 0) text += '\n';
    text += *line;
  }
  return true;
}

}  // namespace cachalot::openai
