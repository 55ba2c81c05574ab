#include "cli/argument_values.h"

#include <algorithm>
#include <boost/json.hpp>

#include "base/text.h"
#include "cli/flags.h"

namespace cachalot {

namespace json = boost::json;

namespace {

constexpr int kMostConfigDepth = 32;

}  // namespace

bool is_flag(std::string_view word) {
  return word.size() > 1 && word[0] == '-' && word.find_first_of("0123456789.", 1) != 1;
}

std::optional<bool> parse_switch(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char letter) { return static_cast<char>(tolower(letter)); });
  if (has_word("true yes on 1", text)) return true;
  if (has_word("false no off 0", text)) return false;
  return std::nullopt;
}

Spelled spell(const std::string& word) {
  Spelled spelled;
  const size_t equals = word.find('=');
  spelled.typed = word.substr(0, equals);
  if (equals != word.npos) spelled.value = word.substr(equals + 1);
  const size_t dot = spelled.typed.find('.');
  spelled.name = spelled.typed.substr(0, dot);
  if (dot != spelled.typed.npos) spelled.keys = spelled.typed.substr(dot + 1);
  if (spelled.name.starts_with("--")) std::ranges::replace(spelled.name, '_', '-');
  if (spelled.name.starts_with("-O") && spelled.name.size() > 2) {  // -O3
    spelled.value = spelled.name.substr(2);
    spelled.name = "-O";
  }
  if (spelled.name == "-O" && !spelled.keys.empty()) spelled.name = "-cc";  // -O.mode=3
  return spelled;
}

json::value json_of(const std::string& text) {
  boost::system::error_code error;
  json::value value = json::parse(text, error);
  if (!error) return value;
  if (const std::optional<int64_t> number = parse_whole_number(text)) return *number;
  return json::string(text);
}

namespace {

// `num_left` values; counts them down.
bool fits_into(const YAML::Node& node, int depth, size_t& num_left) {
  if (num_left-- == 0 || depth > kMostConfigDepth) return false;
  if (node.IsMap()) {
    for (const auto& entry : node)
      if (!fits_into(entry.first, depth + 1, num_left) || !fits_into(entry.second, depth + 1, num_left)) return false;
  } else if (node.IsSequence()) {
    for (const YAML::Node& item : node)
      if (!fits_into(item, depth + 1, num_left)) return false;
  }
  return true;
}

}  // namespace

bool is_small(const YAML::Node& node) {
  size_t num_left = kMostConfigNodes;
  return fits_into(node, 0, num_left);
}

json::value json_of(const YAML::Node& node) {
  if (node.IsMap()) {
    json::object object;
    for (const auto& entry : node) object[entry.first.as<std::string>()] = json_of(entry.second);
    return object;
  }
  if (node.IsSequence()) {
    json::array array;
    for (const YAML::Node& item : node) array.push_back(json_of(item));
    return array;
  }
  if (node.IsNull()) return nullptr;
  return node.Tag() == "!" ? json::string(node.Scalar()) : json_of(node.Scalar());  // "!": in quotes
}

void merge(json::object& target, std::string_view keys, json::value value) {
  const size_t dot = keys.find('.');
  const std::string_view key = keys.substr(0, dot);
  if (dot != keys.npos) {
    json::value& inner = target[key];
    if (!inner.is_object()) inner = json::object();
    merge(inner.get_object(), keys.substr(dot + 1), std::move(value));
  } else if (key.ends_with('+')) {
    json::value& list = target[key.substr(0, key.size() - 1)];
    if (!list.is_array()) list = json::array();
    list.get_array().push_back(std::move(value));
  } else {
    target[key] = std::move(value);
  }
}

}  // namespace cachalot
