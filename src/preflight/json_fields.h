#pragma once

#include <boost/json.hpp>
#include <concepts>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "base/text.h"

// Structs of numbers, strings and the like as JSON objects and back: those that list their `fields` with their names.
namespace cachalot {

class JsonFieldsWriter {
 public:
  template <class T>
  void operator()(const char* name, const T& field) {
    object[name] = value_of(field);
  }
  boost::json::object object;

 private:
  template <class T>
  static boost::json::value value_of(const T& field) {
    if constexpr (std::is_arithmetic_v<T> || std::is_convertible_v<T, std::string>) {
      return boost::json::value(field);
    } else if constexpr (requires { field.begin(); }) {
      boost::json::array array;
      for (const auto& element : field) array.push_back(value_of(element));
      return array;
    } else {
      JsonFieldsWriter writer;
      T::fields(writer, field);
      return std::move(writer.object);
    }
  }
};

// Throws what Boost.JSON throws.
class JsonFieldsReader {
 public:
  explicit JsonFieldsReader(const boost::json::value& value) : object_(value.as_object()) {}
  template <class T>
  void operator()(const char* name, T& field) {
    read(object_.at(name), field);
  }

 private:
  template <class T>
  static void read(const boost::json::value& value, T& field) {
    if constexpr (std::is_same_v<T, bool>) {
      field = value.as_bool();
    } else if constexpr (std::is_arithmetic_v<T>) {
      field = value.to_number<T>();
    } else if constexpr (std::is_same_v<T, std::string>) {
      field = std::string(value.as_string());
    } else if constexpr (requires { field.emplace_back(); }) {
      field.clear();
      for (const boost::json::value& element : value.as_array()) read(element, field.emplace_back());
    } else {
      JsonFieldsReader reader(value);
      T::fields(reader, field);
    }
  }
  const boost::json::object& object_;
};

template <class T>
std::string to_json_line(const T& value) {
  JsonFieldsWriter writer;
  T::fields(writer, value);
  return boost::json::serialize(writer.object);
}

template <class T>
Result<T> from_json_line(const std::string& text) {
  try {
    T value;
    const boost::json::value parsed = boost::json::parse(text);
    JsonFieldsReader reader(parsed);
    T::fields(reader, value);
    return value;
  } catch (const std::exception& exception) {
    return make_error(ErrorCode::kCorrupt, "{} is not what was expected: {}", quoted(text, 200), exception.what());
  }
}

}  // namespace cachalot
