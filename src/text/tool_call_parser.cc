#include "text/tool_call_parser.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <utility>

#include "base/text.h"
#include "config/json.h"

namespace cachalot {

namespace json = boost::json;

namespace {

constexpr std::string_view kBlanks = " \t\r\n";
constexpr std::string_view kFence = "```", kFenceOrSpace = " \t\r\n`";
constexpr std::string_view kIdPrefix = "functions.";  // of Kimi's ids: functions.NAME:INDEX

// DSML, of which two versions name the section differently.
constexpr ToolCallSyntax dsml(std::string_view name, std::string_view section, std::string_view section_end) {
  return {.names = {name},
          .section = section,
          .section_end = section_end,
          .call = "<｜DSML｜invoke name=\"",
          .header_end = "\">",
          .call_end = "</｜DSML｜invoke>",
          .key = "<｜DSML｜parameter name=\"",
          .key_end = "\"",
          .value = ">",
          .value_end = "</｜DSML｜parameter>"};
}

constexpr ToolCallSyntax deepseek(std::string_view name, bool is_fenced) {
  return {.names = {name},
          .section = "<｜tool▁calls▁begin｜>",
          .section_end = "<｜tool▁calls▁end｜>",
          .call = "<｜tool▁call▁begin｜>",
          .header_end = "<｜tool▁sep｜>",
          .call_end = "<｜tool▁call▁end｜>",
          .is_fenced = is_fenced};
}

constexpr ToolCallSyntax kSyntaxes[] = {
    dsml("deepseek_v4", "<｜DSML｜tool_calls>", "</｜DSML｜tool_calls>"),
    dsml("deepseek_v32", "<｜DSML｜function_calls>", "</｜DSML｜function_calls>"),
    // The two differ in the body alone, and the parser reads either.
    deepseek("deepseek_v3", true),
    deepseek("deepseek_v31", false),
    {.names = {"kimi_k2"},
     .section = "<|tool_calls_section_begin|>",
     .section_end = "<|tool_calls_section_end|>",
     .call = "<|tool_call_begin|>",
     .header_end = "<|tool_call_argument_begin|>",
     .call_end = "<|tool_call_end|>"},
    {.names = {"glm47", "glm45"},
     .call = "<tool_call>",
     .call_end = "</tool_call>",
     .key = "<arg_key>",
     .key_end = "</arg_key>",
     .value = "<arg_value>",
     .value_end = "</arg_value>"},
};

// Whether a schema wants a string and nothing else.
bool wants_string(const json::value& schema) {
  const json::object* object = schema.if_object();
  if (!object) return false;
  if (const json::value* type = object->if_contains("type")) return *type == "string";
  const json::value* values = object->if_contains("enum");
  return values && values->is_array() && !values->get_array().empty() &&
         std::ranges::all_of(values->get_array(), &json::value::is_string);
}

bool is_json(std::string_view text) {
  boost::system::error_code error;
  json::parse_options options;
  options.max_depth = 64;
  json::parse(text, error, {}, options);
  return !error;
}

}  // namespace

std::span<const ToolCallSyntax> tool_call_syntaxes() {
  return kSyntaxes;
}

std::vector<std::string_view> tool_call_syntax_names() {
  std::vector<std::string_view> names;
  for (const ToolCallSyntax& syntax : kSyntaxes)
    std::ranges::copy_if(syntax.names, std::back_inserter(names), [](std::string_view name) { return !name.empty(); });
  return names;
}

const ToolCallSyntax* find_tool_call_syntax(std::string_view name) {
  const auto found = std::ranges::find_if(kSyntaxes, [&](const ToolCallSyntax& syntax) {
    return !name.empty() && (name == syntax.names[0] || name == syntax.names[1]);
  });
  return found == std::end(kSyntaxes) ? nullptr : found;
}

const ToolCallSyntax* tool_call_syntax_of_template(std::string_view source) {
  const auto found = std::ranges::find_if(kSyntaxes, [&](const ToolCallSyntax& syntax) {
    // A template may put its marks together from pieces (DSML's), but each end of a section stands as it is.
    return source.contains(syntax.section.empty() ? syntax.key : syntax.section) &&
           (!syntax.is_fenced || source.contains("```json"));
  });
  return found == std::end(kSyntaxes) ? nullptr : found;
}

ToolCallParser::ToolCallParser(const ToolCallSyntax& syntax, const json::array& tools) : syntax_(syntax) {
  for (const json::value& tool : tools) {
    const json::object& function = tool.at("function").as_object();
    const json::value* parameters = function.if_contains("parameters");
    const json::object* schema = parameters ? parameters->if_object() : nullptr;
    const json::value* properties = schema ? schema->if_contains("properties") : nullptr;
    if (properties && properties->is_object()) schemas_[function.at("name").as_string()] = *properties;
  }
}

ToolCallParser::Piece ToolCallParser::add(std::string_view text) {
  Piece piece;
  pending_ += text;
  while (step(piece)) continue;
  return piece;
}

ToolCallParser::Piece ToolCallParser::finish(bool is_cut) {
  Piece piece;
  switch (state_) {
    case State::kText:
    case State::kSection:
      put_text(pending_, piece);
      if (num_calls_ == 0) piece.content += space_;
      break;
    case State::kJson:
      if (!pending_.empty()) put_arguments(collected_ + pending_, piece);
      break;
    case State::kValue:
      is_string_ ? put_json(pending_, piece) : put_arguments(collected_ + pending_, piece);
      break;
    case State::kBodyStart:
    case State::kParameters:
      if (!is_cut) end_call(piece);
      break;
    default:  // a name that is not whole is none
      break;
  }
  pending_.clear();
  return piece;
}

bool ToolCallParser::step(Piece& piece) {
  switch (state_) {
    case State::kText:
    case State::kSection:
      return read_text(piece);
    case State::kHeader:
      return read_header(piece);
    case State::kName:
      return read_name(piece);
    case State::kBodyStart:
      return read_body_start();
    case State::kJson:
      return read_json(piece);
    case State::kParameters:
      return read_parameters(piece);
    case State::kKey:
      return read_key(piece);
    case State::kAttributes:
      return read_attributes(piece);
    case State::kValue:
      return read_value(piece);
  }
  return false;
}

// Moves what stands before the first of the marks to `text`, takes the mark away and tells which it is; kNone: there is
// none yet, and what may be its beginning waits.
size_t ToolCallParser::take_until(std::initializer_list<std::string_view> marks, std::string& text) {
  size_t begin = std::string::npos, which = kNone, num_held = 0, index = 0;
  for (const std::string_view mark : marks) {
    const size_t found = mark.empty() ? std::string::npos : pending_.find(mark);
    if (found < begin) begin = found, which = index;
    num_held = std::max(num_held, partial_mark(pending_, mark));
    ++index;
  }
  if (which == kNone) begin = pending_.size() - num_held;
  text.append(pending_, 0, begin);
  pending_.erase(0, begin + (which == kNone ? 0 : marks.begin()[which].size()));
  return which;
}

bool ToolCallParser::read_text(Piece& piece) {
  std::string text;
  const bool is_in_section = state_ == State::kSection;
  const size_t which = take_until({syntax_.call, is_in_section ? syntax_.section_end : syntax_.section}, text);
  put_text(text, piece);
  if (which == kNone) return false;
  if (which == 0) {
    is_in_section_ = is_in_section;
    state_ = State::kHeader;
  } else {
    state_ = is_in_section ? State::kText : State::kSection;
  }
  is_beside_call_ = true;
  space_.clear();
  return true;
}

bool ToolCallParser::read_header(Piece& piece) {
  // GLM's header ends where the first key or the call's end begins.
  const std::string_view first_key = syntax_.header_end.empty() ? syntax_.key : std::string_view();
  const size_t which = take_until({syntax_.header_end, syntax_.call_end, first_key}, collected_);
  if (which == kNone) return false;
  const std::string header = std::exchange(collected_, {});
  if (which == 0 && syntax_.key.empty() && trimmed(header) == "function") {
    state_ = State::kName;
    return true;
  }
  begin_call(trimmed(header), piece);
  if (which == 1) end_call(piece);
  if (which == 2) state_ = State::kKey;
  return true;
}

// DeepSeek V3's header is the word "function", its body the name on a line, then JSON in a fence.
bool ToolCallParser::read_name(Piece& piece) {
  if (collected_.empty()) {
    pending_.erase(0, pending_.find_first_not_of(kBlanks));
    if (pending_.empty()) return false;
    if (pending_.front() == '{') {  // V3.1, and a tool that is called so
      begin_call("function", piece);
      return true;
    }
  }
  const size_t which = take_until({"\n", syntax_.call_end}, collected_);
  if (which == kNone) return false;
  const std::string name = std::exchange(collected_, {});
  begin_call(trimmed(name), piece);
  if (which == 1) end_call(piece);
  return true;
}

bool ToolCallParser::read_body_start() {
  pending_.erase(0, pending_.find_first_not_of(kBlanks));
  if (pending_.empty()) return false;
  state_ = !syntax_.key.empty() && pending_.front() != '{' ? State::kParameters : State::kJson;
  if (pending_.front() != kFence.front()) return true;
  const size_t end = pending_.find('\n');
  if (end == std::string::npos && !pending_.contains(syntax_.call_end)) {
    state_ = State::kBodyStart;
    return false;
  }
  is_fenced_ = end != std::string::npos && pending_.starts_with(kFence);
  if (is_fenced_) pending_.erase(0, end + 1);
  return true;
}

bool ToolCallParser::read_json(Piece& piece) {
  const size_t which = take_until({syntax_.call_end}, collected_);
  // White space and the fence at the end are no part of it.
  const size_t certain = collected_.find_last_not_of(is_fenced_ ? kFenceOrSpace : kBlanks) + 1;
  put_arguments(std::string_view(collected_).substr(0, certain), piece);
  collected_.erase(0, certain);
  if (which == kNone) return false;
  end_call(piece);
  return true;
}

bool ToolCallParser::read_parameters(Piece& piece) {
  std::string ignored;
  const size_t which = take_until({syntax_.key, syntax_.call_end}, ignored);
  if (which == 0) state_ = State::kKey;
  if (which == 1) end_call(piece);
  return which != kNone;
}

bool ToolCallParser::read_key(Piece& piece) {
  if (take_until({syntax_.key_end}, collected_) == kNone) return false;
  key_ = trimmed(std::exchange(collected_, {}));
  std::string text = has_arguments_ ? ", " : "{";
  append_json_string(key_, text);
  put_arguments(text + ": ", piece);
  state_ = State::kAttributes;
  return true;
}

bool ToolCallParser::read_attributes(Piece& piece) {
  if (take_until({syntax_.value}, collected_) == kNone) return false;
  is_string_ = is_string(std::exchange(collected_, {}));
  if (is_string_) put_arguments("\"", piece);
  state_ = State::kValue;
  return true;
}

bool ToolCallParser::read_value(Piece& piece) {
  const size_t which = take_until({syntax_.value_end}, collected_);
  if (is_string_) put_json(std::exchange(collected_, {}), piece);
  if (which == kNone) return false;
  const std::string value = std::exchange(collected_, {});
  if (is_string_) {
    put_arguments("\"", piece);
  } else if (is_json(value)) {
    put_arguments(trimmed(value), piece);
  } else {
    put_arguments("\"", piece);
    put_json(value, piece);
    put_arguments("\"", piece);
  }
  state_ = State::kParameters;
  return true;
}

// White space beside a call is no text; whether it stands beside one is known when more has come.
void ToolCallParser::put_text(std::string_view text, Piece& piece) {
  if (is_beside_call_) {
    const size_t begin = std::min(text.find_first_not_of(kBlanks), text.size());
    space_ += text.substr(0, begin);
    text.remove_prefix(begin);
    if (text.empty()) return;
    piece.content += std::exchange(space_, {});
    is_beside_call_ = false;
  }
  piece.content += text;
}

void ToolCallParser::begin_call(std::string_view header, Piece& piece) {
  ToolCallPiece call = {.index = num_calls_++};
  // Kimi's header is the call's id, functions.NAME:INDEX.
  const size_t colon = header.rfind(':');
  if (syntax_.names[0] == "kimi_k2") {
    if (colon != header.npos && parse_number<int>(header.substr(colon + 1))) {
      call.id = header;
      header = header.substr(0, colon);
    }
    if (header.starts_with(kIdPrefix)) header.remove_prefix(kIdPrefix.size());
  }
  call.name = header;
  schema_ = nullptr;
  if (const auto found = schemas_.find(call.name); found != schemas_.end()) schema_ = &found->value().get_object();
  piece.calls.push_back(std::move(call));
  has_arguments_ = is_fenced_ = false;
  state_ = State::kBodyStart;
}

void ToolCallParser::put_arguments(std::string_view text, Piece& piece) {
  if (text.empty()) return;
  has_arguments_ = true;
  if (piece.calls.empty()) piece.calls.push_back({.index = num_calls_ - 1});
  piece.calls.back().arguments += text;
}

// A part of a JSON string.
void ToolCallParser::put_json(std::string_view text, Piece& piece) {
  std::string quoted_text;
  append_json_string(text, quoted_text);
  put_arguments(std::string_view(quoted_text).substr(1, quoted_text.size() - 2), piece);
}

void ToolCallParser::end_call(Piece& piece) {
  if (!has_arguments_)
    put_arguments("{}", piece);
  else if (state_ == State::kParameters)
    put_arguments("}", piece);
  collected_.clear();
  is_beside_call_ = true;
  state_ = is_in_section_ ? State::kSection : State::kText;
}

bool ToolCallParser::is_string(std::string_view attributes) const {
  if (!syntax_.header_end.empty()) return attributes.contains("string=\"true\"");
  const json::value* schema = schema_ ? schema_->if_contains(key_) : nullptr;
  return schema && wants_string(*schema);
}

}  // namespace cachalot
