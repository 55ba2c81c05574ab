#include "text/tool_call_parser.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <random>

#include "config/json.h"

namespace cachalot {
namespace {

namespace json = boost::json;

const json::array& tools() {
  static const json::value list = json::parse(R"([
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {
      "city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["C", "F"]}}}}},
    {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {
      "text": {"type": "string"}, "filter": {"type": "object"}, "limit": {"type": "integer"},
      "exact": {"type": "boolean"}, "either": {"type": ["string", "null"]}}}}},
    {"type": "function", "function": {"name": "now"}}])");
  return list.get_array();
}

struct Call {
  std::string name, arguments, id;
  bool operator==(const Call&) const = default;
};

struct Parsed {
  std::string content;
  std::vector<Call> calls;
  bool operator==(const Parsed&) const = default;
};

void PrintTo(const Parsed& parsed, std::ostream* out) {
  *out << testing::PrintToString(parsed.content);
  for (const Call& call : parsed.calls) *out << "\n  " << call.name << '(' << call.arguments << ") " << call.id;
}

Parsed parse(const char* syntax, const std::vector<std::string_view>& pieces, bool is_cut) {
  ToolCallParser parser(*find_tool_call_syntax(syntax), tools());
  Parsed parsed;
  const auto take = [&](const ToolCallParser::Piece& piece) {
    parsed.content += piece.content;
    for (const ToolCallPiece& call : piece.calls) {
      EXPECT_EQ(!call.name.empty(), call.index == parsed.calls.size()) << "the first piece has the name";
      if (call.index == parsed.calls.size())
        parsed.calls.push_back({.name = call.name, .arguments = {}, .id = call.id});
      parsed.calls.at(call.index).arguments += call.arguments;
    }
  };
  for (const std::string_view piece : pieces) take(parser.add(piece));
  take(parser.finish(is_cut));
  EXPECT_EQ(parser.num_calls(), parsed.calls.size());
  return parsed;
}

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> all;
  for (size_t begin = 0, end = 0; begin < text.size(); begin = end) {
    for (++end; end < text.size() && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80;) ++end;
    all.push_back(text.substr(begin, end - begin));
  }
  return all;
}

// Character by character, and cut at each place: always the same.
void expect_calls(const char* syntax, std::string_view text, const Parsed& expected, bool is_cut = false) {
  EXPECT_EQ(parse(syntax, characters(text), is_cut), expected) << syntax << ", character by character: " << text;
  for (const std::string_view character : characters(text)) {
    const auto cut = static_cast<size_t>(character.data() - text.data());
    ASSERT_EQ(parse(syntax, {text.substr(0, cut), text.substr(cut)}, is_cut), expected)
        << syntax << ", cut at " << cut << ": " << text;
  }
}

struct Case {
  const char* syntax;
  std::string_view text;
};

TEST(ToolCallParser, FindsACallInEveryFormat) {
  const Parsed expected{"I look.\n\n", {{"weather", R"({"city": "Paris", "days": 3})", ""}}};
  for (const Case& format : {
           Case{
               "deepseek_v3",
               "I "
               "look.\n\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\": "
               "\"Paris\", \"days\": 3}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"},
           Case{"deepseek_v31",
                "I look.\n\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": \"Paris\", "
                "\"days\": "
                "3}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"},
           Case{"deepseek_v32",
                "I look.\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"weather\">\n<｜DSML｜parameter "
                "name=\"city\" "
                "string=\"true\">Paris</｜DSML｜parameter>\n<｜DSML｜parameter name=\"days\" "
                "string=\"false\">3</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>"},
           Case{"deepseek_v4",
                "I look.\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"weather\">\n{\"city\": \"Paris\", \"days\": "
                "3}\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>\n"},
           Case{"glm47",
                "I look.\n\n<tool_call>weather<arg_key>city</arg_key><arg_value>Paris</arg_value><arg_key>days</"
                "arg_key><arg_value>3</arg_value></tool_call>"},
           Case{"glm45",
                "I look.\n\n<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n<arg_key>days</"
                "arg_key>\n<arg_value>3</arg_value>\n</tool_call>\n"},
       })
    expect_calls(format.syntax, format.text, expected);
  Parsed with_id = expected;
  with_id.calls[0].id = "functions.weather:0";
  expect_calls("kimi_k2",
               "I look.\n\n<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_"
               "begin|>{\"city\": \"Paris\", \"days\": 3}<|tool_call_end|><|tool_calls_section_end|>",
               with_id);
}

TEST(ToolCallParser, FindsSeveralCallsAndTextAroundThem) {
  expect_calls(
      "deepseek_v3",
      "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜>\n"
      "<｜tool▁call▁begin｜>function<｜tool▁sep｜>find\n```json\n{\"text\": \"```\"}\n```<｜tool▁call▁end｜>"
      "<｜tool▁calls▁end｜>\n",
      {"", {{"now", "{}", ""}, {"find", R"({"text": "```"})", ""}}});
  expect_calls("glm47", "\n<tool_call>now</tool_call>\n<tool_call>now\n</tool_call>\nThat is all. <b>",
               {"\nThat is all. <b>", {{"now", "{}", ""}, {"now", "{}", ""}}});
  expect_calls("kimi_k2",
               "<|tool_calls_section_begin|> <|tool_call_begin|> functions.find:7 <|tool_call_argument_begin|> {\"a\": "
               "[1]} <|tool_call_end|><|tool_call_begin|>functions.a.b:8<|tool_call_argument_begin|>{}<|tool_call_end|>"
               "<|tool_calls_section_end|>",
               {"", {{"find", R"({"a": [1]})", "functions.find:7"}, {"a.b", "{}", "functions.a.b:8"}}});
}

TEST(ToolCallParser, WritesValuesAsTheirKindsAre) {
  const Parsed expected{"",
                        {{"find",
                          R"({"text": "say \"hi\"\nC:\\new, 雨 <b>", "filter": {"a": [1, null]}, "limit": -3, )"
                          R"("exact": false})",
                          ""}}};
  expect_calls(
      "deepseek_v32",
      "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"find\">\n<｜DSML｜parameter name=\"text\" string=\"true\">say "
      "\"hi\"\nC:\\new, 雨 <b></｜DSML｜parameter>\n<｜DSML｜parameter name=\"filter\" string=\"false\">{\"a\": [1, "
      "null]}</｜DSML｜parameter>\n<｜DSML｜parameter name=\"limit\" string=\"false\">-3</｜DSML｜parameter>\n"
      "<｜DSML｜parameter name=\"exact\" string=\"false\">false</｜DSML｜parameter>\n</｜DSML｜invoke>\n"
      "</｜DSML｜function_calls>",
      expected);
  expect_calls("glm47",
               "<tool_call>find<arg_key>text</arg_key><arg_value>say \"hi\"\nC:\\new, 雨 <b></arg_value><arg_key>filter"
               "</arg_key><arg_value>{\"a\": [1, null]}</arg_value><arg_key>limit</arg_key><arg_value>-3</arg_value>"
               "<arg_key>exact</arg_key><arg_value>false</arg_value></tool_call>",
               expected);
  // A string that looks like a number, a kind of its own, two kinds, a value that is no JSON, names nobody declared.
  expect_calls("glm47",
               "<tool_call>weather<arg_key>city</arg_key><arg_value>7</arg_value><arg_key>unit</arg_key><arg_value>C"
               "</arg_value><arg_key>days</arg_key><arg_value>three</arg_value><arg_key>x</arg_key><arg_value>1"
               "</arg_value></tool_call>",
               {"", {{"weather", R"({"city": "7", "unit": "C", "days": "three", "x": 1})", ""}}});
  expect_calls(
      "glm47",
      "<tool_call>find<arg_key>either</arg_key><arg_value>null</arg_value></tool_call><tool_call>find<arg_key>"
      "either</arg_key><arg_value>so</arg_value></tool_call><tool_call>other<arg_key>a</arg_key><arg_value>"
      "[1]</arg_value></tool_call>",
      {"", {{"find", R"({"either": null})", ""}, {"find", R"({"either": "so"})", ""}, {"other", R"({"a": [1]})", ""}}});
}

TEST(ToolCallParser, LeavesTextWithoutCallsAsItIs) {
  for (const ToolCallSyntax& syntax : tool_call_syntaxes())
    for (const std::string text : {"", "  \n", " 1 < 2 ", "<", "<｜tool", "<tool_", "\n\n<｜DSML｜"})
      expect_calls(std::string(syntax.names[0]).c_str(), text, {text, {}});
}

TEST(ToolCallParser, KeepsWhatWasSaidOfACallThatIsCut) {
  expect_calls("deepseek_v31", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>wea", {"", {}}, true);
  expect_calls("deepseek_v31", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": \"<",
               {"", {{"weather", "{\"city\": \"<", ""}}}, true);
  expect_calls("glm47", "<tool_call>weather<arg_key>city</arg_key><arg_value>Par",
               {"", {{"weather", "{\"city\": \"Par", ""}}}, true);
  expect_calls("glm47", "<tool_call>weather<arg_key>city</arg_key><arg_value>Paris</arg_value>",
               {"", {{"weather", "{\"city\": \"Paris\"", ""}}}, true);
  // The model ended its answer there itself.
  expect_calls("glm47", "<tool_call>weather<arg_key>city</arg_key><arg_value>Paris</arg_value>",
               {"", {{"weather", "{\"city\": \"Paris\"}", ""}}}, false);
  expect_calls("deepseek_v32", "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"now\">\n", {"", {{"now", "{}", ""}}},
               false);
}

TEST(ToolCallParser, PassesArgumentsThatAreNoJsonOn) {
  expect_calls(
      "deepseek_v3",
      "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>find\nno json at all\n<｜tool▁call▁end｜>"
      "<｜tool▁calls▁end｜>",
      {"", {{"find", "no json at all", ""}}});
  expect_calls("kimi_k2", "<|tool_call_begin|>find<|tool_call_argument_begin|>{\"a\": <|tool_call_end|>after",
               {"after", {{"find", "{\"a\":", ""}}});
  expect_calls(
      "deepseek_v31",
      "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁call▁begin｜>x<｜tool▁call▁end｜>",
      {"", {{"function", "{}", ""}, {"x", "{}", ""}}});
}

// Writes answers as the models do.
class Writer {
 public:
  explicit Writer(uint32_t seed) : random_(seed) {}

  size_t below(size_t count) { return random_() % count; }
  std::string_view one_of(std::initializer_list<std::string_view> words) { return words.begin()[below(words.size())]; }
  std::string text() {
    std::string text;
    for (size_t i = below(6); i > 0; --i)
      text += one_of(
          {"rain", " ", "雨", "\"", "\\", "<b>", "é", "\n", "😀", "1 < 2", "{", "}", ", ", "</arg", "｜", "<｜", "`"});
    return text;
  }
  json::value value(int depth) {
    switch (below(depth > 0 ? 8 : 6)) {
      case 0:
        return static_cast<int64_t>(below(2000)) - 1000;
      case 1:
        return below(2) == 0;
      case 2:
        return 0.5 + static_cast<double>(below(9));
      case 3:
        return nullptr;
      case 6: {
        json::array list;
        for (size_t i = below(3); i > 0; --i) list.push_back(value(depth - 1));
        return list;
      }
      case 7: {
        json::object object;
        for (size_t i = below(3); i > 0; --i) object[std::string(one_of({"a", "b c", "日"}))] = value(depth - 1);
        return object;
      }
      default:
        return json::value(text());
    }
  }

 private:
  std::mt19937 random_;
};

// Python's json.dumps, as chat templates and models have it.
std::string spaced(const json::value& value) {
  std::string text;
  if (const json::array* list = value.if_array()) {
    for (const json::value& item : *list) text += (text.empty() ? "" : ", ") + spaced(item);
    return "[" + text + "]";
  }
  if (const json::object* object = value.if_object()) {
    for (const auto& [key, item] : *object) {
      text += text.empty() ? "" : ", ";
      append_json_string(std::string_view(key), text);
      text += ": " + spaced(item);
    }
    return "{" + text + "}";
  }
  return json_text(value);
}

struct Made {
  std::string name;
  json::object arguments;
};

// What each format's makers say that their model writes.
std::string written(std::string_view format, const std::vector<Made>& calls) {
  const bool is_v32 = format == "deepseek_v32";
  std::string text;
  for (size_t i = 0; i < calls.size(); ++i) {
    const auto& [name, arguments] = calls[i];
    const std::string all = spaced(arguments);
    if (format == "deepseek_v3") {
      text += fmt::format("{}<｜tool▁call▁begin｜>function<｜tool▁sep｜>{}\n```json\n{}\n```<｜tool▁call▁end｜>",
                          i ? "\n" : "", name, all);
    } else if (format == "deepseek_v31") {
      text += "<｜tool▁call▁begin｜>" + name + "<｜tool▁sep｜>" + all + "<｜tool▁call▁end｜>";
    } else if (format == "kimi_k2") {
      text += fmt::format("<|tool_call_begin|>functions.{}:{}<|tool_call_argument_begin|>{}<|tool_call_end|>", name, i,
                          all);
    } else if (format == "glm47") {
      text += (i ? "\n<tool_call>" : "<tool_call>") + name;
      for (const auto& [key, value] : arguments)
        text += fmt::format("<arg_key>{}</arg_key><arg_value>{}</arg_value>", std::string_view(key),
                            value.is_string() ? std::string(value.get_string()) : spaced(value));
      text += "</tool_call>";
    } else {
      text += "<｜DSML｜invoke name=\"" + name + "\">\n";
      for (const auto& [key, value] : arguments)
        text +=
            fmt::format("<｜DSML｜parameter name=\"{}\" string=\"{}\">{}</｜DSML｜parameter>\n", std::string_view(key),
                        value.is_string(), value.is_string() ? std::string(value.get_string()) : spaced(value));
      text += "</｜DSML｜invoke>\n";
    }
  }
  if (format.starts_with("deepseek_v31") || format == "deepseek_v3")
    return "<｜tool▁calls▁begin｜>" + text + "<｜tool▁calls▁end｜>";
  if (format == "kimi_k2") return "<|tool_calls_section_begin|>" + text + "<|tool_calls_section_end|>";
  if (format == "glm47") return text;
  const std::string_view section = is_v32 ? "function_calls" : "tool_calls";
  return fmt::format("<｜DSML｜{}>\n{}</｜DSML｜{}>", section, text, section);
}

class RandomAnswers : public testing::TestWithParam<const char*> {};

TEST_P(RandomAnswers, AreReadWholeAndInEveryCut) {
  const std::string_view format = GetParam();
  Writer writer(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<Made> calls;
    for (size_t i = 1 + writer.below(3); i > 0; --i) {
      Made call{.name = std::string(writer.one_of({"find", "weather", "a.b-c_d", "now"})), .arguments = {}};
      // Kinds that the schemas say: a format without kinds needs them to tell "7" from 7.
      if (call.name == "find") {
        if (writer.below(2)) call.arguments["text"] = writer.text();
        if (writer.below(2)) call.arguments["filter"] = json::object{{"a", writer.value(2)}};
        if (writer.below(2)) call.arguments["limit"] = static_cast<int64_t>(writer.below(100)) - 50;
        if (writer.below(2)) call.arguments["exact"] = writer.below(2) == 0;
      } else if (call.name == "weather") {
        call.arguments["city"] = writer.text();
      } else if (call.name != "now" && format != "glm47") {
        call.arguments["any"] = writer.value(2);
      }
      calls.push_back(std::move(call));
    }
    std::string before = writer.text();
    const std::string text = before + written(format, calls);
    Parsed expected{before, {}};
    if (expected.content.find_first_not_of(" \t\r\n") == expected.content.npos) expected.content.clear();
    for (size_t i = 0; i < calls.size(); ++i)
      expected.calls.push_back({calls[i].name, spaced(calls[i].arguments),
                                format == "kimi_k2" ? fmt::format("functions.{}:{}", calls[i].name, i) : ""});
    expect_calls(std::string(format).c_str(), text, expected);
    if (HasFailure()) break;
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, RandomAnswers,
                         testing::Values("deepseek_v3", "deepseek_v31", "deepseek_v32", "deepseek_v4", "kimi_k2",
                                         "glm47"),
                         [](const auto& param) { return std::string(param.param); });

TEST(ToolCallParser, IsChosenByNameOrByTheTemplate) {
  EXPECT_EQ(find_tool_call_syntax("deepseek"), nullptr);
  EXPECT_EQ(find_tool_call_syntax(""), nullptr);
  EXPECT_EQ(tool_call_syntax_of_template("{{ messages }}"), nullptr);
  EXPECT_EQ(tool_call_syntax_of_template("'<｜tool▁calls▁begin｜>'"), find_tool_call_syntax("deepseek_v31"));
  EXPECT_EQ(tool_call_syntax_of_template("<｜tool▁calls▁begin｜>```json"), find_tool_call_syntax("deepseek_v3"));
  EXPECT_EQ(tool_call_syntax_of_template("<｜DSML｜function_calls>"), find_tool_call_syntax("deepseek_v32"));
  EXPECT_EQ(tool_call_syntax_of_template("<tool_call>{{ name }}<arg_key>"), find_tool_call_syntax("glm47"));
  EXPECT_EQ(tool_call_syntax_of_template("<|tool_calls_section_begin|>"), find_tool_call_syntax("kimi_k2"));
}

}  // namespace
}  // namespace cachalot
