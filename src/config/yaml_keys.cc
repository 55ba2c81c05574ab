#include "config/yaml_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>

#include "base/text.h"

namespace cachalot {
namespace {

// Words of a command line and names end at a NUL.
bool is_text(const YAML::Node& node) {
  return node.IsScalar() && !node.Scalar().empty() && !node.Scalar().contains('\0');
}

std::string what_it_is(const YAML::Node& node) {
  if (!node.IsDefined()) return "absent";  // of a node that is not there nothing else may be asked
  if (node.IsScalar()) return node.Scalar().empty() ? "empty" : cachalot::quoted(node.Scalar());
  return node.IsMap() ? "a mapping" : node.IsSequence() ? "a list" : "empty";
}

}  // namespace

std::string yaml_place(const YAML::Mark& mark) {
  return mark.is_null() ? std::string() : fmt::format("{}:{}", mark.line + 1, mark.column + 1);
}

YamlKeys::YamlKeys(YAML::Node node, std::string path, std::string prefix)
    : node_(std::move(node)), path_(std::move(path)), prefix_(std::move(prefix)) {
  if (!node_.IsDefined() || node_.IsNull()) return;
  if (!node_.IsMap()) {
    fault_at(node_, fmt::format("{} is {}; it must be a mapping of keys", where(), what_it_is(node_)));
    return;
  }
  std::set<std::string> seen;
  for (const auto& entry : node_) {
    if (!entry.first.IsScalar())
      fault_at(entry.first, fmt::format("a key of {} is {}; it must be a name", where(), what_it_is(entry.first)));
    else if (!seen.insert(entry.first.Scalar()).second)
      fault_at(entry.first, fmt::format("{}{} stands here twice", prefix_, name_text(entry.first.Scalar())));
  }
}

std::string YamlKeys::where() const {
  return prefix_.empty() ? "the file" : prefix_.substr(0, prefix_.size() - 1);
}

YAML::Node YamlKeys::find(const std::string& key) {
  asked_.push_back(key);
  const YAML::Node& node = node_;  // reading a missing key of a const node adds none
  return node.IsDefined() && node.IsMap() ? node[key] : YAML::Node(YAML::NodeType::Undefined);
}

YamlKeys YamlKeys::nested(const std::string& key) {
  return {find(key), path_, prefix_ + key + "."};
}

std::vector<std::string> YamlKeys::keys() const {
  std::vector<std::string> keys;
  if (!node_.IsDefined() || !node_.IsMap()) return keys;
  for (const auto& entry : node_)
    if (entry.first.IsScalar()) keys.push_back(entry.first.Scalar());
  return keys;
}

void YamlKeys::fault_at(const YAML::Node& node, std::string message) {
  if (!first_fault_) return;
  const YAML::Node& known = node.IsDefined() ? node : node_;
  const std::string place = known.IsDefined() ? yaml_place(known.Mark()) : std::string();
  first_fault_ = make_error(ErrorCode::kInvalidArgument, "{}{}{}: {}", path_, place.empty() ? "" : ":", place, message);
}

std::string YamlKeys::place(const std::string& key) {
  const YAML::Node node = find(key);
  return node.IsDefined() ? yaml_place(node.Mark()) : std::string();
}

void YamlKeys::fault(const std::string& key, std::string_view wanted) {
  const YAML::Node node = find(key);
  fault_at(node, fmt::format("{}{} is {}; it must be {}", prefix_, name_text(key), what_it_is(node), wanted));
}

void YamlKeys::add(const Status& status) {
  if (first_fault_) first_fault_ = status;
}

const std::string* YamlKeys::scalar(const std::string& key, std::string_view wanted) {
  const YAML::Node node = find(key);
  if (!node.IsDefined()) return nullptr;
  if (is_text(node)) return &node.Scalar();
  fault(key, wanted);
  return nullptr;
}

void YamlKeys::read(const std::string& key, std::string& field) {
  if (const std::string* text = scalar(key, "a text")) field = *text;
}

void YamlKeys::read(const std::string& key, bool& field) {
  const std::string* text = scalar(key, "true or false");
  if (!text) return;
  if (*text != "true" && *text != "false") return fault(key, "true or false");
  field = *text == "true";
}

void YamlKeys::read(const std::string& key, int& field, int min, int max) {
  const std::string wanted = fmt::format("a whole number from {} to {}", min, max);
  const std::string* text = scalar(key, wanted);
  if (!text) return;
  const std::optional<int> value = parse_number<int>(*text);
  if (!value || *value < min || *value > max) return fault(key, wanted);
  field = *value;
}

void YamlKeys::read(const std::string& key, uint16_t& field) {
  int port = field;
  read(key, port, 0, 65535);
  field = static_cast<uint16_t>(port);
}

void YamlKeys::read(const std::string& key, double& field, double min, double max) {
  const std::string wanted = fmt::format("a number from {} to {}", min, max);
  const std::string* text = scalar(key, wanted);
  if (!text) return;
  const std::optional<double> value = parse_number<double>(*text);
  if (!value || !(*value >= min && *value <= max)) return fault(key, wanted);
  field = *value;
}

void YamlKeys::read(const std::string& key, std::vector<std::string>& field) {
  const YAML::Node node = find(key);
  if (!node.IsDefined()) return;
  if (is_text(node)) {
    field = {node.Scalar()};
  } else if (node.IsSequence() && node.size() > 0 && std::all_of(node.begin(), node.end(), is_text)) {
    field.clear();
    for (const YAML::Node& item : node) field.push_back(item.Scalar());
  } else {
    fault(key, "a text or a list of texts");
  }
}

void YamlKeys::read(const std::string& key, std::map<std::string, std::string>& field) {
  const YAML::Node node = find(key);
  if (!node.IsDefined()) return;
  if (!node.IsMap()) return fault(key, "a mapping of names to texts");
  for (const auto& entry : node) {
    if (!entry.first.IsScalar() || entry.first.Scalar().empty())
      return fault_at(entry.first,
                      fmt::format("a key of {}{} is {}; it must be a name", prefix_, key, what_it_is(entry.first)));
    if (!entry.second.IsScalar() || entry.second.Scalar().contains('\0'))
      return fault_at(entry.second, fmt::format("{}{}.{} is {}; it must be a text", prefix_, key,
                                                name_text(entry.first.Scalar()), what_it_is(entry.second)));
    field[entry.first.Scalar()] = entry.second.Scalar();
  }
}

Status YamlKeys::finish() {
  if (!node_.IsDefined() || !node_.IsMap()) return first_fault_;
  for (const auto& entry : node_) {
    if (!entry.first.IsScalar()) continue;  // has been told
    const std::string& key = entry.first.Scalar();
    if (std::ranges::find(asked_, key) != asked_.end()) continue;
    const std::string known = nearest_name(key, asked_);
    fault_at(entry.first, fmt::format("{}{}: no such key{}", prefix_, name_text(key),
                                      known.empty() ? "" : fmt::format("; the nearest is {}", known)));
  }
  return first_fault_;
}

}  // namespace cachalot
