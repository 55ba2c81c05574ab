#include "config/json_text.h"

#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <cmath>

#include "base/text.h"

namespace cachalot {

namespace json = boost::json;

namespace {

void append_escaped(std::string_view characters, std::string& text) {
  for (const char character : characters) {
    switch (character) {
      case '"':
        text += "\\\"";
        break;
      case '\\':
        text += "\\\\";
        break;
      case '\n':
        text += "\\n";
        break;
      case '\r':
        text += "\\r";
        break;
      case '\t':
        text += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(character) < 0x20)
          fmt::format_to(std::back_inserter(text), "\\u{:04x}", static_cast<int>(character));
        else
          text += character;
    }
  }
}

}  // namespace

void append_json_string(std::string_view bytes, std::string& text) {
  text += '"';
  bool is_ascii = true;
  for (const char byte : bytes) is_ascii &= static_cast<unsigned char>(byte) < 0x80;
  if (is_ascii)
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
      char separator = '[';
      for (const json::value& item : value.get_array()) {
        text += separator;
        append_json(item, text);
        separator = ',';
      }
      text += separator == '[' ? "[]" : "]";
      break;
    }
    case json::kind::object: {
      char separator = '{';
      for (const auto& [key, item] : value.get_object()) {
        text += separator;
        append_json_string(key, text);
        text += ':';
        append_json(item, text);
        separator = ',';
      }
      text += separator == '{' ? "{}" : "}";
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
