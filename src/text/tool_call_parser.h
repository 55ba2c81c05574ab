#pragma once

#include <boost/json/object.hpp>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cachalot {

// How a model writes calls of tools. Every format is a list of calls, most of them within a section:
//
//   text SECTION { CALL header HEADER_END body CALL_END } SECTION_END text
//
// The body is JSON (DeepSeek V3 to V3.1, Kimi) or names and values between marks of their own (DSML, GLM).
struct ToolCallSyntax {
  std::string_view names[2];  // of --tool-call-parser
  std::string_view section = {}, section_end = {};
  std::string_view call = {}, header_end = {}, call_end = {};
  // Of a body that is no JSON: KEY name KEY_END attributes VALUE value VALUE_END.
  std::string_view key = {}, key_end = {}, value = {}, value_end = {};
  // A body of DeepSeek V3: the header is the word "function", the name has a line of its own, JSON stands in a fence.
  bool is_fenced = false;

  // The mark that ends a thought which has no end of its own: Kimi K2-Thinking calls from within one.
  std::string_view thought_end() const { return names[0] == "kimi_k2" ? section : std::string_view(); }
};

std::span<const ToolCallSyntax> tool_call_syntaxes();
std::vector<std::string_view> tool_call_syntax_names();  // all, of all
// Null if there is none of that name; or if a chat template has no mark of any in it.
const ToolCallSyntax* find_tool_call_syntax(std::string_view name);
const ToolCallSyntax* tool_call_syntax_of_template(std::string_view source);

// What is new of one call. The first piece of each has its name, later ones only arguments.
struct ToolCallPiece {
  size_t index = 0;
  std::string name;
  std::string id;         // that the model gave it; empty in formats that have none
  std::string arguments;  // of JSON, if the model wrote JSON
};

// Splits an answer into text and calls of tools as it streams in; how the text is cut into pieces does not matter. Text
// around the calls stays as the model wrote it, but for white space in front of the first and behind any of them.
class ToolCallParser {
 public:
  struct Piece {
    std::string content;
    std::vector<ToolCallPiece> calls;
  };
  // Borrows the syntax. `tools`: of the request, as in OpenAI's API; their schemas tell strings from other values where
  // the format does not.
  ToolCallParser(const ToolCallSyntax& syntax, const boost::json::array& tools);

  // Whole characters.
  Piece add(std::string_view text);
  // The answer ends here. `is_cut`: before the model ended it; what is open then stays open.
  Piece finish(bool is_cut);

  size_t num_calls() const { return num_calls_; }

 private:
  enum class State { kText, kSection, kHeader, kName, kBodyStart, kJson, kParameters, kKey, kAttributes, kValue };

  // Each takes a step if what has come tells enough.
  bool step(Piece& piece);
  bool read_text(Piece& piece);
  bool read_header(Piece& piece);
  bool read_name(Piece& piece);
  bool read_body_start();
  bool read_json(Piece& piece);
  bool read_parameters(Piece& piece);
  bool read_key(Piece& piece);
  bool read_attributes(Piece& piece);
  bool read_value(Piece& piece);

  static constexpr size_t kNone = static_cast<size_t>(-1);
  size_t take_until(std::initializer_list<std::string_view> marks, std::string& text);
  void put_text(std::string_view text, Piece& piece);
  void put_arguments(std::string_view text, Piece& piece);
  void put_json(std::string_view text, Piece& piece);
  void begin_call(std::string_view header, Piece& piece);
  void end_call(Piece& piece);
  bool is_string(std::string_view attributes) const;

  const ToolCallSyntax& syntax_;
  boost::json::object schemas_;                  // from names of tools to those of their parameters
  const boost::json::object* schema_ = nullptr;  // of the tool that is called
  State state_ = State::kText;
  std::string pending_;         // not yet understood; but for names, at most the beginning of a mark
  std::string collected_;       // header, key, attributes or value that is not over yet
  std::string space_;           // white space that stands beside a call, or may
  bool is_beside_call_ = true;  // nothing but white space since the answer's or the last call's end
  bool is_in_section_ = false, is_fenced_ = false;
  bool is_string_ = false;
  bool has_arguments_ = false;  // something of the call that is read was given out
  std::string key_;
  size_t num_calls_ = 0;
};

}  // namespace cachalot
