#pragma once

#include <yaml-cpp/yaml.h>

#include <boost/json/object.hpp>
#include <optional>
#include <string>
#include <string_view>

// The words of a command line and the entries of its --config file, taken apart.
namespace cachalot {

bool is_flag(std::string_view word);  // and no negative number
// As people write it: true, Yes, on, 1; none: it is none of these.
std::optional<bool> parse_switch(std::string text);

// A word's parts: "--kv_transfer-config.a.b=1" has the name "--kv-transfer-config", the keys "a.b" and the value 1.
struct Spelled {
  std::string typed;  // without the value
  std::string name, keys;
  std::optional<std::string> value;
};
Spelled spell(const std::string& word);

// JSON, a number as Python writes it, or the text itself.
boost::json::value json_of(const std::string& text);
boost::json::value json_of(const YAML::Node& node);
inline constexpr size_t kMostConfigNodes = 100'000;
// Aliases of a few lines may stand for more values than memory holds, or for themselves.
bool is_small(const YAML::Node& node);

// {"a": {"b": VALUE}} for the keys "a.b" goes into what is there; a key with '+' at its end takes items of a list.
void merge(boost::json::object& target, std::string_view keys, boost::json::value value);

}  // namespace cachalot
