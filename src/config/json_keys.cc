#include "config/json_keys.h"

#include <fmt/ranges.h>

#include <cmath>
#include <optional>
#include <type_traits>

namespace cachalot {
namespace {

// How a value is shown in an error: short, whatever it is.
std::string shown(const boost::json::value& value) {
  std::string text = boost::json::serialize(value);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

// A whole number, also one that is written 4096.0.
std::optional<int64_t> integer_of(const boost::json::value& value) {
  if (value.is_int64()) return value.get_int64();
  if (!value.is_double()) return std::nullopt;  // an uint64 here is beyond int64, so beyond every range of ours
  const double number = value.get_double();
  if (std::nearbyint(number) != number || std::fabs(number) > 1e15) return std::nullopt;
  return static_cast<int64_t>(number);
}

template <class Number>
std::optional<Number> number_of(const boost::json::value& value) {
  if constexpr (std::is_same_v<Number, int64_t>) {
    return integer_of(value);
  } else {
    if (!value.is_number()) return std::nullopt;
    return value.to_number<double>();
  }
}

}  // namespace

template <class Number>
void JsonKeys::read(std::string_view key, Number& field, Number min, Number max) {
  const boost::json::value* value = find(key);
  if (!value) return;
  const std::optional<Number> number = number_of<Number>(*value);
  if (number && *number >= min && *number <= max) {
    field = *number;
  } else {
    fault(key, "is " + shown(*value),
          fmt::format("a {} from {} to {}", std::is_same_v<Number, int64_t> ? "whole number" : "number", min, max));
  }
}

void JsonKeys::require(std::string_view key, int& field, int64_t min, int64_t max) {
  if (!find(key)) missing_.push_back(prefix_ + std::string(key));
  optional(key, field, min, max);
}

void JsonKeys::require(std::string_view key, double& field, double min, double max) {
  if (!find(key)) missing_.push_back(prefix_ + std::string(key));
  optional(key, field, min, max);
}

void JsonKeys::optional(std::string_view key, int& field, int64_t min, int64_t max) {
  int64_t value = field;
  read<int64_t>(key, value, min, max);
  field = static_cast<int>(value);
}

void JsonKeys::optional(std::string_view key, double& field, double min, double max) {
  read<double>(key, field, min, max);
}

void JsonKeys::optional(std::string_view key, bool& field) {
  const boost::json::value* value = find(key);
  if (!value) return;
  if (!value->is_bool()) return fault(key, "is " + shown(*value), "true or false");
  field = value->get_bool();
}

void JsonKeys::optional(std::string_view key, std::string& field) {
  const boost::json::value* value = find(key);
  if (!value) return;
  if (!value->is_string()) return fault(key, "is " + shown(*value), "a string");
  field = value->get_string();
}

void JsonKeys::optional(std::string_view key, std::vector<std::string>& field) {
  const boost::json::value* value = find(key);
  if (!value) return;
  if (!value->is_array()) return fault(key, "is " + shown(*value), "a list of strings");
  field.clear();
  for (const boost::json::value& item : value->get_array()) {
    if (!item.is_string()) return fault(key, "holds " + shown(item), "a list of strings");
    field.emplace_back(item.get_string());
  }
}

const boost::json::value* JsonKeys::find(std::string_view key) const {
  const boost::json::value* value = object_.if_contains(key);
  return value && !value->is_null() ? value : nullptr;
}

const boost::json::object* JsonKeys::object(std::string_view key) {
  const boost::json::value* value = find(key);
  if (!value) return nullptr;
  if (!value->is_object()) fault(key, "is " + shown(*value), "an object");
  return value->if_object();
}

void JsonKeys::fault(std::string_view key, std::string_view finding, std::string_view wanted, ErrorCode code) {
  if (!first_fault_) return;
  const std::string name = prefix_ + std::string(key);
  first_fault_ =
      std::unexpected(Error{code, fmt::format("{}: {} {}; it must be {}", path_, name, finding, wanted), name});
}

Status JsonKeys::status() const {
  if (missing_.empty()) return first_fault_;
  return std::unexpected(Error{ErrorCode::kInvalidArgument,
                               fmt::format("{}: missing {}", path_, fmt::join(missing_, ", ")), missing_.front()});
}

}  // namespace cachalot
