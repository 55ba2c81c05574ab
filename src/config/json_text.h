#pragma once

#include <boost/json/value.hpp>
#include <string>
#include <string_view>

// JSON for whoever reads it: numbers as a person writes them (1.5, not 1.5E0), and valid UTF-8 whatever bytes the
// strings hold, since what a client sent may stand in them.
namespace cachalot {

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
