#pragma once

#include <boost/describe.hpp>
#include <boost/json.hpp>
#include <boost/mp11.hpp>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "base/text.h"

namespace cachalot {

// A file's text as JSON. What is no JSON is an error that names `path`, line and column, as is a key that stands twice
// in one object, of which every reader takes another. A byte order mark is skipped; what is obviously another file (a
// git-lfs pointer, a web page) is called that.
Result<boost::json::value> parse_json(std::string_view text, const std::string& path);
Result<boost::json::object> parse_json_object(std::string_view text, const std::string& path);
// Only the checks of that.
Status check_json(std::string_view text, const std::string& path);
// How a value is shown in an error: short, on one line, valid UTF-8, whatever it is.
std::string shown(const boost::json::value& value);

// Reads the keys of one JSON object into typed fields, each checked for type and range. A key that is absent or null
// leaves an optional field at its default. Reading goes on after a fault; status() reports the first one, or all
// missing keys at once.
class JsonKeys {
 public:
  // `prefix` stands before every key in errors ("rope_scaling."); the object is borrowed.
  JsonKeys(const boost::json::object& object, std::string path, std::string prefix = {})
      : object_(object), path_(std::move(path)), prefix_(std::move(prefix)) {}

  template <class Number>
  void require(std::string_view key, Number& field, double min, double max) {
    if (!find(key)) miss(key);
    optional(key, field, min, max);
  }
  void optional(std::string_view key, int& field, double min, double max);
  void optional(std::string_view key, double& field, double min, double max);
  void optional(std::string_view key, bool& field);
  void optional(std::string_view key, std::string& field);
  void optional(std::string_view key, std::vector<std::string>& field);

  // A token id or a list of them, below `vocab_size`; -1 stands for none in some files.
  void optional_ids(std::string_view key, std::vector<int>& field, int vocab_size);

  const std::string& path() const { return path_; }
  const boost::json::object& object() const { return object_; }
  std::string full_name(std::string_view key) const { return prefix_ + std::string(key); }
  bool is_null(std::string_view key) const {
    const boost::json::value* value = object_.if_contains(key);
    return value && value->is_null();
  }
  // The value, or null if the key is absent or null.
  const boost::json::value* find(std::string_view key) const;
  // The nested object, or null if absent; another type is a fault.
  const boost::json::object* object(std::string_view key);
  JsonKeys nested(std::string_view key, const boost::json::object& object) const {
    return JsonKeys(object, path_, full_name(key) + ".");
  }

  // Notes a fault about a key, e.g. fault("bits", "is 8", "4"): "config.json: quantization_config.bits is 8; it must be
  // 4".
  void fault(std::string_view key, std::string_view finding, std::string_view wanted,
             ErrorCode code = ErrorCode::kInvalidArgument);
  // "KEY is VALUE, which is not supported; it must be WANTED"
  void refuse(std::string_view key, std::string_view value, std::string_view wanted);
  void miss(std::string_view key) { missing_.push_back(full_name(key)); }
  Status status() const;

 private:
  const boost::json::object& object_;
  std::string path_, prefix_;
  std::vector<std::string> missing_;
  Status first_fault_;
};

// --- A struct that lists its fields (BOOST_DESCRIBE_STRUCT) as one line of JSON, and back.

template <class Struct>
std::string to_json_line(const Struct& value) {
  return boost::json::serialize(boost::json::value_from(value));
}

// Fields that are not known here are passed over. `refusal`: how the error begins; empty: with the text itself.
template <class Struct>
Result<Struct> from_json_line(const std::string& text, const std::string& refusal = {}) {
  try {
    Struct value;
    const boost::json::value parsed = boost::json::parse(text);
    using Fields = boost::describe::describe_members<Struct, boost::describe::mod_public>;
    boost::mp11::mp_for_each<Fields>([&](auto field) {
      auto& target = value.*field.pointer;
      target = boost::json::value_to<std::remove_reference_t<decltype(target)>>(parsed.as_object().at(field.name));
    });
    return value;
  } catch (const std::exception& exception) {
    return make_error(ErrorCode::kCorrupt, "{}: {}",
                      refusal.empty() ? quoted(text, 200) + " is not what was expected" : refusal, exception.what());
  }
}

// --- JSON for whoever reads it: numbers as a person writes them (1.5, not 1.5E0), and valid UTF-8 whatever bytes the
// strings hold, since what a client sent may stand in them.

std::string json_text(const boost::json::value& value);
void append_json(const boost::json::value& value, std::string& text);

// A string with its quotes; a number, or null if it is none.
void append_json_string(std::string_view bytes, std::string& text);
void append_json_number(double number, std::string& text);

// An object or a list written piece by piece, where a tree of values would take many times the memory of its text.
class JsonPieces {
 public:
  // Of `text`, which is borrowed, the end is written. `brackets`: "{}" or "[]".
  JsonPieces(std::string& text, const char* brackets) : text_(text), close_(brackets[1]) { text_ += brackets[0]; }

  void add(std::string_view key, const boost::json::value& value) { append_json(value, next(key)); }
  // Where the value is to be appended.
  std::string& next(std::string_view key) {
    next();
    append_json_string(key, text_);
    text_ += ':';
    return text_;
  }
  std::string& next() {
    if (!is_empty_) text_ += ',';
    is_empty_ = false;
    return text_;
  }
  void end() { text_ += close_; }

 private:
  std::string& text_;
  const char close_;
  bool is_empty_ = true;
};

}  // namespace cachalot
