#include "openai/request/structured_outputs.h"

#include "base/process_test_util.h"
#include "openai/api_server_test_util.h"

namespace cachalot::openai {
namespace {

class StructuredOutputsTest : public ApiServerTest {
 protected:
  void SetUp() override {
    start();
    service_.answer_with("x");
  }
  // Whether an answer to a completion with these fields may be this.
  bool may_be(const std::string& fields, std::string_view answer) {
    const Answer got = ask("POST", "/v1/completions", R"({"prompt":"a",)" + fields + "}");
    EXPECT_EQ(got.status, 200) << fields << json::serialize(got.body);
    return last_request_takes(answer);
  }
};

constexpr const char* kPerson =
    R"({"type":"object","properties":{"name":{"type":"string","maxLength":5},"age":{"type":"integer"}},)"
    R"("required":["name","age"],"additionalProperties":false})";

TEST_F(StructuredOutputsTest, DatesAndTimesAreThoseThatThereAre) {
  const auto is_of = [&](const char* format, const char* text) {
    return may_be(fmt::format(R"("structured_outputs":{{"json":{{"type":"string","format":"{}"}}}})", format),
                  fmt::format("\"{}\"", text));
  };
  for (const char* date : {"2024-02-29", "2000-02-29", "2023-02-28", "2023-02-19", "2023-12-31", "2023-04-30",
                           "0001-01-01", "0400-02-29", "1000-10-10", "2010-01-01"})
    EXPECT_TRUE(is_of("date", date)) << date;
  for (const char* date :
       {"2023-02-29", "1900-02-29", "2024-02-30", "2023-04-31", "2023-13-01", "0000-01-01", "0000-02-29"})
    EXPECT_FALSE(is_of("date", date)) << date;
  for (const char* time : {"04:52:59Z", "23:59:00.25+05:30"}) EXPECT_TRUE(is_of("time", time)) << time;
  EXPECT_FALSE(is_of("time", "04:52:60Z"));
  EXPECT_FALSE(is_of("time", "04:52:60-05:30"));
  EXPECT_TRUE(is_of("date-time", "2024-02-29T04:52:09.606z"));
  EXPECT_FALSE(is_of("date-time", "2023-02-29T04:52:09.606z"));
  EXPECT_FALSE(is_of("date-time", "5060-10-02t04:52:60.606z"));
}

TEST_F(StructuredOutputsTest, HostNamesAreAsLongAsHostNamesMayBe) {
  const std::string label = "." + std::string(62, 'a');
  const std::string host = "a" + label + label + label + label;  // of 253
  const auto form = [](const std::string& schema) { return R"("structured_outputs":{"json":)" + schema + "}"; };
  const std::string named =
      form(R"({"anyOf":[{"type":"string","format":"hostname"},{"const":{"format":"hostname"}}]})");
  EXPECT_TRUE(may_be(named, '"' + host + '"'));
  EXPECT_FALSE(may_be(named, '"' + host + "a\""));
  EXPECT_TRUE(may_be(named, R"({"format": "hostname"})")) << "what is no schema stays as it is";
  EXPECT_FALSE(may_be(form(R"({"type":"string","format":"hostname","maxLength":9})"), R"("a.bcdefgh.i")"));
}

TEST_F(StructuredOutputsTest, AreTakenInEverySpelling) {
  const std::string schema = kPerson;
  std::string text;
  append_json_string(schema, text);
  for (const std::string& fields : {
           R"("response_format":{"type":"json_schema","json_schema":{"name":"p","schema":)" + schema + "}}",
           R"("structured_outputs":{"json":)" + schema + "}",
           R"("structured_outputs":{"json":)" + text + "}",
           R"("guided_json":)" + schema,
           R"("json_schema":)" + text,
       }) {
    EXPECT_TRUE(may_be(fields, R"({"name": "Anna", "age": 31})")) << fields;
    EXPECT_TRUE(may_be(fields, R"({"name":"Anna","age":31})")) << fields;
    EXPECT_FALSE(may_be(fields, R"({"name": "Annabel", "age": 31})")) << fields;
    EXPECT_FALSE(may_be(fields, R"({"name": "Anna"})")) << fields;
    EXPECT_FALSE(may_be(fields, "Anna")) << fields;
  }
  for (const std::string fields :
       {R"("response_format":{"type":"json_object"})", R"("structured_outputs":{"json_object":true})"}) {
    EXPECT_TRUE(may_be(fields, R"({"a": [1, {"b": null}], "c": "\u00e9\n"})")) << fields;
    EXPECT_FALSE(may_be(fields, "[1]")) << fields;
    EXPECT_FALSE(may_be(fields, R"({"a": 1)")) << fields;
  }
  for (const std::string fields : {R"("structured_outputs":{"regex":"[a-c]{2}/\\d+"})",
                                   R"("guided_regex":"[a-c]{2}/\\d+")", R"("regex":"[a-c]{2}/\\d+")"}) {
    EXPECT_TRUE(may_be(fields, "ab/42")) << fields;
    EXPECT_FALSE(may_be(fields, "ab/42 ")) << fields;
    EXPECT_FALSE(may_be(fields, "abc/42")) << fields;
  }
  for (const std::string fields :
       {R"("structured_outputs":{"choice":["red","light \"blue\""]})", R"("guided_choice":["red","light \"blue\""])"}) {
    EXPECT_TRUE(may_be(fields, "red")) << fields;
    EXPECT_TRUE(may_be(fields, "light \"blue\"")) << fields;
    EXPECT_FALSE(may_be(fields, "re")) << fields;
    EXPECT_FALSE(may_be(fields, "green")) << fields;
  }
  for (const std::string fields : {
           R"("structured_outputs":{"grammar":"start: \"a\" NUMBER\nNUMBER: /[0-9]+/"})",
           R"x("guided_grammar":"root ::= \"a\" num\nnum ::= [0-9]+")x",
           R"("ebnf":"root ::= \"a\" Num-ber # a digit or more\nNum-ber ::= [0-9]\n  | [0-9] Num-ber")",
       }) {
    EXPECT_TRUE(may_be(fields, "a17")) << fields;
    EXPECT_FALSE(may_be(fields, "a")) << fields;
    EXPECT_FALSE(may_be(fields, "a17b")) << fields;
  }
  EXPECT_TRUE(may_be(R"("response_format":{"type":"text"})", "whatever"));
  EXPECT_TRUE(may_be(R"("response_format":null,"structured_outputs":null)", "whatever"));
}

// vLLM's are closed, too; all that comes is of the schema.
TEST_F(StructuredOutputsTest, AnObjectThatNamesItsPropertiesHasNoOthersUnlessItSaysSo) {
  const auto takes = [&](const std::string& schema, const char* answer) {
    return may_be(R"("structured_outputs":{"json":)" + schema + "}", answer);
  };
  const std::string a = R"("properties":{"a":{"type":"integer"}})";
  const std::string closed = R"({"type":"object",)" + a + "}";
  EXPECT_TRUE(takes(closed, R"({"a": 1})"));
  EXPECT_TRUE(takes(closed, "{}"));
  EXPECT_FALSE(takes(closed, R"({"a": 1, "b": 2})"));
  EXPECT_FALSE(takes(R"({"type":"array","items":{"anyOf":[)" + closed + R"(,{"type":"null"}]}})", R"([{"b": 2}])"));
  EXPECT_FALSE(takes(R"({"$ref":"#/$defs/n","$defs":{"n":)" + closed + "}}", R"({"b": 2})"));
  for (const std::string& open :
       {R"({"type":"object",)" + a + R"(,"additionalProperties":true})", std::string(R"({"type":"object"})"),
        std::string(R"({"type":"object","properties":{}})"), R"({"type":"object",)" + a + R"(,"required":["b"]})",
        R"({"type":"object",)" + a + R"(,"required":["a"],"minProperties":1})",
        R"({"type":"object",)" + a + R"(,"patternProperties":{"^b":{"type":"integer"}}})",
        R"({"allOf":[)" + closed + R"(,{"type":"object","properties":{"b":{"type":"integer"}}}]})",
        R"({"$ref":"#/$defs/n","anyOf":[{"$ref":"#/$defs/m"}],"$defs":{"n":)" + closed +
            R"(,"m":{"type":"object","properties":{"b":{"type":"integer"}}}}})",
        R"({"const":{"a":1,"b":2},"type":"object",)" + a + "}",
        R"({"$ref":"#/$defs/n","$defs":{"n":{"$ref":"#/properties/p"}},"properties":{"p":)" + closed + "}}"})
    EXPECT_TRUE(takes(open, R"({"a": 1, "b": 2})")) << open;
  // Properties of these names are no keywords, and values no schemas.
  EXPECT_FALSE(takes(R"({"type":"object","properties":{"allOf":{"type":"object","properties":{"not":{"const":
      {"type":"object","properties":{"x":1}}}}}}})",
                     R"({"allOf": {"b": 1}})"));
}

TEST_F(StructuredOutputsTest, TagsHoldWhatStandsBetweenThem) {
  const std::string tag =
      R"({"type":"structural_tag","structures":[{"begin":"<f=a>","schema":{"type":"object","properties":{"x":)"
      R"({"type":"integer"}},"required":["x"],"additionalProperties":false},"end":"</f>"}],"triggers":["<f="]})";
  std::string text;
  append_json_string(tag, text);
  for (const std::string& fields :
       {R"("response_format":)" + tag, R"("structured_outputs":{"structural_tag":)" + text + "}"}) {
    EXPECT_TRUE(may_be(fields, "No tag at all.")) << fields;
    EXPECT_TRUE(may_be(fields, R"(First <f=a>{"x": 1}</f> and <f=a>{"x":2}</f>.)")) << fields;
    EXPECT_FALSE(may_be(fields, R"(First <f=b>)")) << fields;
    EXPECT_FALSE(may_be(fields, R"(First <f=a>{"y": 1}</f>)")) << fields;
  }
  // As any schema's: closed, and white space within its bounds.
  const std::string silent =
      R"("response_format":{"type":"structural_tag","structures":[{"begin":"<f>","schema":{"type":"object",)"
      R"("properties":{"x":{"type":"integer"}}},"end":"</f>"}],"triggers":["<f>"]})";
  EXPECT_TRUE(may_be(silent, R"(<f>{"x": 1}</f>)"));
  EXPECT_FALSE(may_be(silent, R"(<f>{"x": 1, "y": 2}</f>)"));
  EXPECT_FALSE(may_be(silent, R"(<f>{"x":    1}</f>)"));
}

TEST_F(StructuredOutputsTest, BeginBehindTheThought) {
  const Answer answer =
      ask("POST", "/v1/chat/completions",
          R"({"messages":[{"role":"user","content":"Hi"}],"response_format":{"type":"json_object"}})");
  EXPECT_EQ(answer.status, 200);
  EXPECT_TRUE(last_request_takes("Let me {see}.\n</think>\n\n{\"a\": 1}"));
  ask("POST", "/v1/chat/completions",
      R"({"messages":[{"role":"user","content":"Hi"}],"response_format":{"type":"json_object"}})");
  EXPECT_FALSE(last_request_takes("Let me {see}.\n</think>\n\nYes")) << "an answer that is not of the form";
  ask("POST", "/v1/chat/completions",
      R"({"messages":[{"role":"user","content":"Hi"}],"response_format":{"type":"json_object"}})");
  EXPECT_FALSE(last_request_takes("Let me {see}.")) << "an end within the thought";
}

TEST_F(StructuredOutputsTest, WhatMayBeginWithWhiteSpaceKeepsIt) {
  for (const auto& [form, content] : {std::pair(R"("guided_regex":" yes")", " yes"),
                                      {R"("guided_choice":["\n\nyes"," yes"])", " yes"},
                                      {R"("guided_regex":"[a-z]+")", "yes"}}) {
    service_.answer_with("hm</think> yes");
    const Answer answer = ask("POST", "/v1/chat/completions",
                              fmt::format(R"({{"messages":[{{"role":"user","content":"Hi"}}],{}}})", form));
    EXPECT_EQ(answer.body.at("choices").at(0).at("message").at("content"), content) << form;
  }
}

TEST_F(StructuredOutputsTest, ThoseThatCannotBeAreRefusedByName) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {R"("response_format":7)", "response_format"},
      {R"("response_format":{})", "response_format"},
      {R"("response_format":{"type":"yaml"})", "response_format"},
      {R"("response_format":{"type":"json_schema"})", "response_format.json_schema"},
      {R"("response_format":{"type":"json_schema","json_schema":{"schema":7}})", "response_format.json_schema.schema"},
      {R"("structured_outputs":[])", "structured_outputs"},
      {R"("structured_outputs":{})", "structured_outputs"},
      {R"("structured_outputs":{"jsn":{"type":"object"}})", "structured_outputs"},
      {R"("structured_outputs":{"json_object":false})", "structured_outputs"},
      {R"("structured_outputs":{"choice":[]})", "structured_outputs.choice"},
      {R"("structured_outputs":{"choice":[1]})", "structured_outputs.choice"},
      {R"("structured_outputs":{"regex":7})", "structured_outputs.regex"},
      {R"("structured_outputs":{"grammar":""})", "structured_outputs.grammar"},
      {R"("structured_outputs":{"json":"{"})", "structured_outputs.json"},
      {R"("structured_outputs":{"structural_tag":{}})", "structured_outputs.structural_tag"},
      {R"("guided_regex":"a","guided_choice":["b"])", "guided_choice"},
  };
  for (const auto& [fields, param] : wrong) {
    const Answer answer = ask("POST", "/v1/completions", R"({"prompt":"a",)" + fields + "}");
    EXPECT_EQ(answer.status, 400) << fields;
    EXPECT_EQ(answer.error().at("param"), json::value(param)) << json::serialize(answer.body);
  }
  for (const std::string fields : {
           R"("guided_regex":"(")",
           R"("guided_grammar":"start: nothing")",
           R"("guided_json":{"type":"object","properties":{"a":{"$ref":"#/nowhere"}}})",
           R"("guided_json":{"type":"string","pattern":"("})",
       }) {
    const Answer answer = ask("POST", "/v1/completions", R"({"prompt":"a",)" + fields + "}");
    EXPECT_EQ(answer.status, 400) << fields;
    EXPECT_EQ(answer.error().at("code"), "invalid_grammar") << json::serialize(answer.body);
  }
  EXPECT_TRUE(service_.requests().empty());
}

// Schemas and expressions that would take hours or gigabytes are refused, in a second or two.
TEST_F(StructuredOutputsTest, HostileOnesAreBounded) {
  std::string deep = R"({"type":"string"})", wide = "{", many = "[", nested = "a";
  for (int i = 0; i < 60; ++i) deep = R"({"type":"object","properties":{"a":)" + deep + R"(},"required":["a"]})";
  for (int i = 0; i < 5000; ++i) wide += fmt::format(R"({}"k{}":{{"type":"integer"}})", i > 0 ? "," : "", i);
  for (int i = 0; i < 5000; ++i)
    many += fmt::format(R"({}{{"type":"string","maxLength":{}}})", i > 0 ? "," : "", i + 1);
  for (int i = 0; i < 12; ++i) nested = "(" + nested + "){1,100}";
  std::string text, choices = "[";
  append_json_string(nested, text);
  for (int i = 0; i < 10'000; ++i) choices += fmt::format("{}\"v{}\"", i > 0 ? "," : "", i);
  choices += "]";
  const std::vector<std::string> hostile = {
      R"("guided_json":)" + deep,
      R"("guided_json":{"type":"object","properties":)" + wide + "}}",
      R"("guided_json":{"anyOf":)" + many + "]}",
      R"("guided_json":{"type":"string","maxLength":1000000000})",
      R"("guided_json":{"type":"array","items":{"type":"integer"},"minItems":1000000000})",
      R"("guided_json":{"type":"string","pattern":"(a|b|ab)*c{1,100000}"})",
      R"("guided_regex":)" + text,
      R"("guided_regex":"(.*a){1000}")",
      R"("guided_regex":"(x+x+)+y")",
      R"("guided_json":{"$ref":"#"})",
      R"("guided_choice":)" + choices,
      R"x("guided_json":{"$defs":{"a":{"anyOf":[{"$ref":"#/$defs/a"},{"$ref":"#/$defs/a"}]}},"$ref":"#/$defs/a"})x",
  };
  OwnTime time;
  for (const std::string& fields : hostile) {
    const auto begin = std::chrono::steady_clock::now();
    const Answer answer = ask("POST", "/v1/completions", R"({"prompt":"a",)" + fields + "}");
    EXPECT_TRUE(answer.status == 200 || answer.status == 400) << answer.status << fields.substr(0, 200);
    EXPECT_LT(time.since(begin), std::chrono::seconds(10)) << fields.substr(0, 80);
  }
}

}  // namespace
}  // namespace cachalot::openai
