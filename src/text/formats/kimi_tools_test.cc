#include "text/formats/kimi_tools.h"

#include <gtest/gtest.h>

#include "config/json.h"

namespace cachalot {
namespace {

namespace json = boost::json;

// Of one function with these parameters; "none": it has no such form.
std::string declared(const std::string& parameters) {
  const json::array tools = {
      {{"type", "function"}, {"function", {{"name", "f"}, {"parameters", json::parse(parameters)}}}}};
  const std::string begin = "# Tools\n\n## functions\nnamespace functions {\n", end = "\n}\n";
  const auto text = tools_in_typescript(sorted_deeply(tools).as_array());
  if (!text) return "none";
  EXPECT_TRUE(text->starts_with(begin) && text->ends_with(end)) << *text;
  return text->substr(begin.size(), text->size() - begin.size() - end.size());
}

std::string type_of(const std::string& schema) {
  const std::string text = declared(R"({"properties": {"a": )" + schema + R"(}, "required": ["a"]})");
  const std::string begin = "type f = (_: {\n  a: ", end = "\n}) => any;";
  return text.starts_with(begin) ? text.substr(begin.size(), text.size() - begin.size() - end.size()) : text;
}

TEST(KimiTools, KeysAreSortedDeeply) {
  EXPECT_EQ(
      json_text(sorted_deeply(json::parse(R"({"b": [{"z": 1, "a": {"d": 2, "c": 3}}], "a": "x", "é": 0, "B": 0})"))),
      R"({"B":0,"a":"x","b":[{"a":{"c":3,"d":2},"z":1}],"é":0})");
}

TEST(KimiTools, SchemasAreTypes) {
  for (const auto& [schema, type] : {
           std::pair{R"({"type": "string"})", "string"},
           std::pair{R"({"type": "integer"})", "number"},
           std::pair{R"({"type": "boolean"})", "boolean"},
           std::pair{"{}", "any"},
           std::pair{"true", "any"},
           std::pair{"false", "null"},
           std::pair{R"({"enum": ["b", "a\"", 1, 2.0, 1e20, true, null]})",
                     R"("b" | "a"" | 1 | 2.0 | 1e+20 | True | None)"},
           std::pair{R"({"type": "string", "enum": [1]})", "none"},
           std::pair{R"({"type": ["integer", "null", "array", "object"]})", "number | null | Array<any> | {}"},
           std::pair{R"({"type": ["weird"]})", "none"},
           std::pair{R"({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}]})",
                     "string | Array<number>"},
           std::pair{R"({"type": "array", "items": {}})", "Array<any>"},
           std::pair{R"({"type": "object"})", "{}"},
           std::pair{R"({"type": "object", "additionalProperties": false})", "{\n    [k: string]: never\n  }"},
           std::pair{R"({"type": "object", "additionalProperties": {"type": "string"}})",
                     "{\n    [k: string]: string\n  }"},
           std::pair{R"({"title": "no type"})", "none"},
           std::pair{R"({"$ref": "#/$defs/absent"})", "none"},
       })
    EXPECT_EQ(type_of(schema), type) << schema;
}

TEST(KimiTools, RequiredFieldsGoFirstUnderTheirCommentsAndBounds) {
  EXPECT_EQ(declared(R"({"required": ["z", "m"], "properties": {
      "b": {"type": "number", "minimum": 0, "maximum": 2.5, "default": [1, {"k": "é"}]}, "a": {"type": "string", "default": ""},
      "z": {"type": "string", "description": "One\n\nTwo", "pattern": "^x", "minLength": 1}, "m": {"type": "array", "minItems": 2}}})"),
            "type f = (_: {\n"
            "  // minItems: 2\n  m: Array<any>,\n"
            "  // One\n\n  // Two\n  // minLength: 1, pattern: ^x\n  z: string,\n"
            "  // Default: \"\"\n  a?: string,\n"
            "  // maximum: 2.5, minimum: 0\n  // Default: [1, {\"k\": \"é\"}]\n  b?: number\n"
            "}) => any;");
}

TEST(KimiTools, ReferencesAreInterfaces) {
  EXPECT_EQ(
      declared(
          R"({"$defs": {"P": {"type": "object", "description": "A point", "properties": {"x": {"type": "number"}}}},
      "properties": {"p": {"$ref": "#/$defs/P"}}})"),
      "// A point\ninterface P {\n  x?: number\n}\ntype f = (_: {\n  p?: P\n}) => any;");
  EXPECT_EQ(declared(R"({"properties": {"next": {"$ref": "#"}, "a": {"type": "string"}}, "required": ["next"]})"),
            "interface parameters {\n  a?: string,\n  next: parameters\n}\ntype f = (_: parameters) => any;");
}

TEST(KimiTools, AFunctionWithoutParametersHasAnEmptyType) {
  EXPECT_EQ(declared("{}"), "type f = (_: {}) => any;");
  EXPECT_EQ(tools_in_typescript({}), std::nullopt);
  for (const char* unchecked : {"[1]", "[{}]", R"([{"function": "f"}])", R"([{"function": {}}])",
                                R"([{"function": {"name": 3}}])", R"([{"function": {"name": "f"}}, null])"})
    EXPECT_EQ(tools_in_typescript(json::parse(unchecked).as_array()), std::nullopt) << unchecked;
}

}  // namespace
}  // namespace cachalot
