#include "config/json.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/basic_parser_impl.hpp>
#include <boost/json/object.hpp>
#include <cmath>
#include <optional>
#include <unordered_set>

#include "base/text.h"
#include "config/model_folder.h"

namespace cachalot {

namespace json = boost::json;

namespace {

// Builds nothing: it only looks for keys that stand twice.
struct RepeatedKeys {
  static constexpr size_t max_object_size = SIZE_MAX, max_array_size = SIZE_MAX, max_key_size = SIZE_MAX,
                          max_string_size = SIZE_MAX;

  std::vector<std::unordered_set<std::string>> open;  // objects
  std::string key, repeated;
  bool has_repeated = false;

  bool on_object_begin(json::error_code&) {
    open.emplace_back();
    return true;
  }
  bool on_object_end(size_t, json::error_code&) {
    open.pop_back();
    return true;
  }
  bool on_key_part(json::string_view part, size_t, json::error_code&) {
    key += part;
    return true;
  }
  bool on_key(json::string_view part, size_t, json::error_code& error) {
    key += part;
    if (open.back().insert(key).second) {
      key.clear();
      return true;
    }
    repeated = std::move(key);
    has_repeated = true;
    error = json::error::syntax;
    return false;
  }
  bool on_document_begin(json::error_code&) { return true; }
  bool on_document_end(json::error_code&) { return true; }
  bool on_array_begin(json::error_code&) { return true; }
  bool on_array_end(size_t, json::error_code&) { return true; }
  bool on_string_part(json::string_view, size_t, json::error_code&) { return true; }
  bool on_string(json::string_view, size_t, json::error_code&) { return true; }
  bool on_number_part(json::string_view, json::error_code&) { return true; }
  bool on_int64(int64_t, json::string_view, json::error_code&) { return true; }
  bool on_uint64(uint64_t, json::string_view, json::error_code&) { return true; }
  bool on_double(double, json::string_view, json::error_code&) { return true; }
  bool on_bool(bool, json::error_code&) { return true; }
  bool on_null(json::error_code&) { return true; }
  bool on_comment_part(json::string_view, json::error_code&) { return true; }
  bool on_comment(json::string_view, json::error_code&) { return true; }
};

// Of a byte order mark.
size_t mark_size(std::string_view text) {
  return text.starts_with("\xef\xbb\xbf") ? 3 : 0;
}

std::string place_text(std::string_view text, size_t offset) {
  const std::string_view before = text.substr(0, offset);
  const size_t line_begin = before.rfind('\n') + 1;  // npos + 1 is 0
  return fmt::format("line {}, column {}", 1 + std::ranges::count(before, '\n'), before.size() - line_begin + 1);
}

// A whole number, also one that is written 4096.0.
std::optional<int64_t> integer_of(const json::value& value) {
  if (value.is_int64()) return value.get_int64();
  if (!value.is_double()) return std::nullopt;  // an uint64 here is beyond int64, so beyond every range of ours
  const double number = value.get_double();
  if (std::nearbyint(number) != number || std::fabs(number) > 1e15) return std::nullopt;
  return static_cast<int64_t>(number);
}

}  // namespace

std::string shown(const json::value& value) {
  const double* number = value.if_double();
  return number ? fmt::format("{}", *number) : escaped(json::serialize(value), 60);
}

Status check_json(std::string_view text, const std::string& path) {
  text.remove_prefix(mark_size(text));
  if (const std::string other = other_than_json(text); !other.empty())
    return make_error(ErrorCode::kCorrupt, "{}: no valid JSON: it is {}", path, other);
  json::basic_parser<RepeatedKeys> parser{json::parse_options()};
  json::error_code fault;
  const size_t num_read = parser.write_some(false, text.data(), text.size(), fault);
  if (!fault && num_read < text.size()) fault = json::error::extra_data;
  if (parser.handler().has_repeated)
    return make_error(ErrorCode::kCorrupt, "{}: no valid JSON: the key {} stands twice in one object, again at {}",
                      path, cachalot::quoted(parser.handler().repeated), place_text(text, num_read));
  if (fault)
    return make_error(ErrorCode::kCorrupt, "{}: no valid JSON at {}: {}", path, place_text(text, num_read),
                      fault.message());
  return {};
}

Result<json::value> parse_json(std::string_view text, const std::string& path) {
  RETURN_IF_ERROR(check_json(text, path));
  json::error_code fault;
  json::value value = json::parse(text.substr(mark_size(text)), fault);
  if (fault) return make_error(ErrorCode::kCorrupt, "{}: no valid JSON: {}", path, fault.message());
  return value;
}

Result<json::object> parse_json_object(std::string_view text, const std::string& path) {
  ASSIGN_OR_RETURN(json::value value, parse_json(text, path));
  if (!value.is_object())
    return make_error(ErrorCode::kCorrupt, "{}: must be a JSON object; it is {}", path, shown(value));
  return std::move(value.get_object());
}

void JsonKeys::optional(std::string_view key, int& field, double min, double max) {
  const json::value* value = find(key);
  if (!value) return;
  const std::optional<int64_t> number = integer_of(*value);
  if (number && static_cast<double>(*number) >= min && static_cast<double>(*number) <= max)
    field = static_cast<int>(*number);
  else
    fault(key, "is " + shown(*value), fmt::format("a whole number from {} to {}", min, max));
}

void JsonKeys::optional(std::string_view key, double& field, double min, double max) {
  const json::value* value = find(key);
  if (!value) return;
  const double number = value->is_number() ? value->to_number<double>() : std::nan("");
  if (number >= min && number <= max)
    field = number;
  else
    fault(key, "is " + shown(*value), fmt::format("a number from {} to {}", min, max));
}

void JsonKeys::optional(std::string_view key, bool& field) {
  const json::value* value = find(key);
  if (!value) return;
  if (!value->is_bool()) return fault(key, "is " + shown(*value), "true or false");
  field = value->get_bool();
}

void JsonKeys::optional(std::string_view key, std::string& field) {
  const json::value* value = find(key);
  if (!value) return;
  if (!value->is_string()) return fault(key, "is " + shown(*value), "a string");
  field = value->get_string();
}

void JsonKeys::optional(std::string_view key, std::vector<std::string>& field) {
  const json::value* value = find(key);
  if (!value) return;
  if (!value->is_array()) return fault(key, "is " + shown(*value), "a list of strings");
  field.clear();
  for (const json::value& item : value->get_array()) {
    if (!item.is_string()) return fault(key, "holds " + shown(item), "a list of strings");
    field.emplace_back(item.get_string());
  }
}

void JsonKeys::optional_ids(std::string_view key, std::vector<int>& field, int vocab_size) {
  const json::value* value = find(key);
  if (!value) return;
  const json::array one = {*value};
  for (const json::value& item : value->is_array() ? value->get_array() : one) {
    const std::optional<int64_t> id = integer_of(item);
    if (!id || *id < -1 || *id >= vocab_size)
      return fault(key, value->is_array() ? "holds " + shown(item) : "is " + shown(item),
                   fmt::format("a token id or a list of them, each below vocab_size ({})", vocab_size));
    if (*id >= 0) field.push_back(static_cast<int>(*id));
  }
}

const json::value* JsonKeys::find(std::string_view key) const {
  const json::value* value = object_.if_contains(key);
  return value && !value->is_null() ? value : nullptr;
}

const json::object* JsonKeys::object(std::string_view key) {
  const json::value* value = find(key);
  if (!value) return nullptr;
  if (!value->is_object()) fault(key, "is " + shown(*value), "an object");
  return value->if_object();
}

void JsonKeys::fault(std::string_view key, std::string_view finding, std::string_view wanted, ErrorCode code) {
  if (!first_fault_) return;
  const std::string name = full_name(key);
  first_fault_ =
      std::unexpected(Error{code, fmt::format("{}: {} {}; it must be {}", path_, name, finding, wanted), name});
}

void JsonKeys::refuse(std::string_view key, std::string_view value, std::string_view wanted) {
  fault(key, fmt::format("is {}, which is not supported", value), wanted, ErrorCode::kUnsupported);
}

Status JsonKeys::status() const {
  if (missing_.empty()) return first_fault_;
  return std::unexpected(Error{ErrorCode::kInvalidArgument,
                               fmt::format("{}: missing {}", path_, fmt::join(missing_, ", ")), missing_.front()});
}

namespace {

void append_escaped(std::string_view characters, std::string& text) {
  constexpr std::string_view kNamed = "\"\\\n\r\t", kNames = "\"\\nrt";
  for (const char character : characters) {
    const size_t named = kNamed.find(character);
    if (named != kNamed.npos)
      (text += '\\') += kNames[named];
    else if (static_cast<unsigned char>(character) < 0x20)
      fmt::format_to(std::back_inserter(text), "\\u{:04x}", static_cast<int>(character));
    else
      text += character;
  }
}

}  // namespace

void append_json_string(std::string_view bytes, std::string& text) {
  text += '"';
  if (std::ranges::all_of(bytes, [](char byte) { return static_cast<unsigned char>(byte) < 0x80; }))
    append_escaped(bytes, text);
  else
    append_escaped(to_valid_utf8(bytes), text);
  text += '"';
}

void append_json_number(double number, std::string& text) {
  if (!std::isfinite(number)) {
    text += "null";
    return;
  }
  const size_t begin = text.size();
  fmt::format_to(std::back_inserter(text), "{}", number);
  // A whole one stays a number with a fraction for readers that tell them apart.
  if (text.find_first_of(".e", begin) == std::string::npos) text += ".0";
}

void append_json(const json::value& value, std::string& text) {
  switch (value.kind()) {
    case json::kind::null:
      text += "null";
      break;
    case json::kind::bool_:
      text += value.get_bool() ? "true" : "false";
      break;
    case json::kind::int64:
      fmt::format_to(std::back_inserter(text), "{}", value.get_int64());
      break;
    case json::kind::uint64:
      fmt::format_to(std::back_inserter(text), "{}", value.get_uint64());
      break;
    case json::kind::double_:
      append_json_number(value.get_double(), text);
      break;
    case json::kind::string:
      append_json_string(value.get_string(), text);
      break;
    case json::kind::array: {
      JsonPieces list(text, "[]");
      for (const json::value& item : value.get_array()) append_json(item, list.next());
      list.end();
      break;
    }
    case json::kind::object: {
      JsonPieces object(text, "{}");
      for (const auto& [key, item] : value.get_object()) object.add(key, item);
      object.end();
      break;
    }
  }
}

std::string json_text(const json::value& value) {
  std::string text;
  append_json(value, text);
  return text;
}

}  // namespace cachalot
