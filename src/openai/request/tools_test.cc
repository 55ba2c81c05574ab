#include "openai/request/tools.h"

#include "openai/api_server_test_util.h"

namespace cachalot::openai {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

const std::string kTools = R"("tools":[
  {"type":"function","function":{"name":"weather","description":"Of a city","parameters":{"type":"object","properties":
    {"city":{"type":"string"},"days":{"type":"integer"}},"required":["city"]}}},
  {"type":"function","function":{"name":"now"}}])";

// Calls of DeepSeek V3.1, and what a message may hold beside them.
constexpr const char* kTemplate =
    "{% for tool in tools %}({{ tool.function.name }}){% endfor %}{% for m in messages %}[{{ m.role }}|{{ m.name }}|"
    "{{ m.tool_call_id }}|{{ m.content }}{% for c in m.tool_calls or [] %}"
    "{{ '<｜tool▁calls▁begin｜>' + c.function.name + '=' + c.function.arguments + ' ' + (c.id or '') }}{% endfor %}]"
    "{% endfor %}";

class ToolsTest : public ApiServerTest {
 protected:
  ToolsTest() {
    options_.max_model_len = 2000;
    use_template(kTemplate);
  }
  void use_template(const char* source) { chat_template_ = ChatTemplate::from_source(source, "", "").value(); }

  static std::string chat(const std::string& fields) {
    return R"({"messages":[{"role":"user","content":"Paris?"}],"max_tokens":900,)" + fields + "}";
  }
  std::string prompt_of(const std::string& body) {
    const Answer answer = ask("POST", "/v1/chat/completions", body);
    EXPECT_EQ(answer.status, 200) << json::serialize(answer.body);
    return answer.status == 200 ? tokenizer_->decode(service_.requests().back().tokens, false) : "";
  }
};

const std::string kTwoCalls =
    "I look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": \"Paris\"}<｜tool▁call▁end｜>"
    "<｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";

TEST_F(ToolsTest, CallsStandInTheMessage) {
  service_.answer_with(kTwoCalls);
  const Answer answer = ask("POST", "/v1/chat/completions", chat(kTools));
  ASSERT_EQ(answer.status, 200) << json::serialize(answer.body);
  const json::value& choice = answer.body.at("choices").at(0);
  EXPECT_EQ(choice.at("finish_reason"), "tool_calls");
  EXPECT_EQ(choice.at("message").at("content"), "I look.");
  const json::array& calls = choice.at("message").at("tool_calls").as_array();
  ASSERT_EQ(calls.size(), 2u);
  EXPECT_EQ(calls[0].at("type"), "function");
  EXPECT_EQ(calls[0].at("function"), json::value({{"name", "weather"}, {"arguments", R"({"city": "Paris"})"}}));
  EXPECT_EQ(calls[1].at("function"), json::value({{"name", "now"}, {"arguments", "{}"}}));
  for (const json::value& call : calls) {
    EXPECT_THAT(call.at("id").as_string().c_str(), StartsWith("call_"));
    EXPECT_EQ(call.at("id").as_string().size(), 29u);
  }
  EXPECT_NE(calls[0].at("id"), calls[1].at("id"));
}

TEST_F(ToolsTest, CallsStreamAsTheyCome) {
  service_.answer_with(kTwoCalls);
  std::string content, finish;
  std::vector<json::object> calls;
  const std::vector<std::string> events = stream("/v1/chat/completions", chat(kTools + R"(,"stream":true)"));
  ASSERT_EQ(events.back(), "[DONE]");
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    const json::value choice = json::parse(events[i]).at("choices").at(0);
    const json::object& delta = choice.at("delta").as_object();
    if (const json::value* text = delta.if_contains("content")) content += text->as_string();
    if (choice.at("finish_reason").is_string()) finish = choice.at("finish_reason").as_string();
    if (!delta.contains("tool_calls")) continue;
    for (const json::value& call : delta.at("tool_calls").as_array()) {
      const json::value& function = call.at("function");
      if (const json::value* id = call.as_object().if_contains("id")) {
        EXPECT_EQ(call.at("index").to_number<size_t>(), calls.size());
        EXPECT_EQ(call.at("type"), "function");
        calls.push_back({{"id", *id}, {"name", function.at("name")}, {"arguments", ""}});
      }
      json::value& arguments = calls.at(call.at("index").to_number<size_t>()).at("arguments");
      arguments = std::string(arguments.as_string()) + std::string(function.at("arguments").as_string());
    }
  }
  EXPECT_EQ(content, "I look.");
  EXPECT_EQ(finish, "tool_calls");
  ASSERT_EQ(calls.size(), 2u);
  EXPECT_EQ(calls[0].at("name"), "weather");
  EXPECT_EQ(calls[0].at("arguments"), R"({"city": "Paris"})");
  EXPECT_EQ(calls[1].at("name"), "now");
  EXPECT_EQ(calls[1].at("arguments"), "{}");
  EXPECT_GT(events.size(), 20u) << "they come piece by piece";
}

TEST_F(ToolsTest, AnAnswerThatOnlyCallsHasNoContent) {
  service_.answer_with(kTwoCalls.substr(7));
  const Answer answer = ask("POST", "/v1/chat/completions", chat(kTools));
  EXPECT_TRUE(answer.body.at("choices").at(0).at("message").at("content").is_null());
}

TEST_F(ToolsTest, ACallThatIsCutKeepsWhatItHad) {
  service_.answer_with(kTwoCalls);
  const int num_tokens =
      static_cast<int>(tokenizer_->encode(kTwoCalls.substr(0, kTwoCalls.find("is\"}")), false)->size());
  const Answer answer = ask(
      "POST", "/v1/chat/completions",
      R"({"messages":[{"role":"user","content":"a"}],"max_tokens":)" + std::to_string(num_tokens) + "," + kTools + "}");
  const json::value& choice = answer.body.at("choices").at(0);
  EXPECT_EQ(choice.at("finish_reason"), "length");
  EXPECT_THAT(choice.at("message").at("tool_calls").at(0).at("function").at("arguments").as_string().c_str(),
              StartsWith(R"({"city": "Par)"));
}

TEST_F(ToolsTest, WithoutToolsOrWithChoiceNoneTextStaysText) {
  service_.answer_with(kTwoCalls);
  for (const std::string& fields : {std::string(R"("tools":[])"), kTools + R"(,"tool_choice":"none")",
                                    std::string(R"("tools":null,"tool_choice":"auto")")}) {
    const json::value choice = ask("POST", "/v1/chat/completions", chat(fields)).body.at("choices").at(0);
    EXPECT_EQ(choice.at("message").at("content").as_string(), kTwoCalls) << fields;
    EXPECT_FALSE(choice.at("message").as_object().contains("tool_calls")) << "as in OpenAI's answers";
    EXPECT_EQ(choice.at("finish_reason"), "stop");
  }
}

TEST_F(ToolsTest, ReachTheTemplateWithTheirHistory) {
  service_.answer_with("x");
  EXPECT_EQ(prompt_of(chat(kTools)), "(weather)(now)[user|||Paris?]");
  EXPECT_EQ(prompt_of(R"({"messages":[{"role":"assistant","content":null,"tool_calls":[
      {"id":"call_1","type":"function","function":{"name":"weather","arguments":"{\"city\": \"Paris\"}"}},
      {"id":"call_2","type":"function","function":{"name":"now","arguments":""}}]},
      {"role":"tool","tool_call_id":"call_1","name":"weather","content":[{"type":"text","text":"rain"}]}]})"),
            "[assistant|||<｜tool▁calls▁begin｜>weather={\"city\": \"Paris\"} call_1<｜tool▁calls▁begin｜>now= call_2]"
            "[tool|weather|call_1|rain]");
  EXPECT_EQ(prompt_of(chat(R"("tools":[{"function":{"name":"f"}}])")), "(f)[user|||Paris?]") << "as vLLM takes them";
  // OpenAI's older names.
  EXPECT_EQ(prompt_of(R"({"functions":[{"name":"f"}],"messages":[{"role":"assistant","function_call":
      {"name":"f","arguments":"{}"}},{"role":"function","name":"f","content":"3"}]})"),
            "(f)[assistant|||<｜tool▁calls▁begin｜>f={} ][tool|f||3]");
}

TEST_F(ToolsTest, TemplatesGetCallsInTheFormThatTheyRead) {
  service_.answer_with("x");
  const std::string history =
      R"({"messages":[{"role":"assistant","content":"","tool_calls":[{"id":"a","type":"function",
      "function":{"name":"f","arguments":"{\"k\": [1]}"}}]},{"role":"user","content":"b"}]})";
  use_template(
      "{% for m in messages %}{% for c in m.tool_calls or [] %}{% for k, v in c.function.arguments|items %}"
      "{{ c.function.name }} {{ k }}={{ v|tojson }};{% endfor %}{% endfor %}{% endfor %}");
  EXPECT_EQ(prompt_of(history), "f k=[1];") << "arguments as an object";
  server_.reset();
  use_template(
      "{% for m in messages %}{% if m.content is none %}{{ m.tool_calls[0].function.arguments }}{% else %}"
      "{{ m.content }}{% endif %}{% endfor %}");
  EXPECT_EQ(prompt_of(history), R"({"k": [1]}b)") << "calls beside a content that is null";
}

TEST_F(ToolsTest, AreRefusedByNameWhereTheyAreWrong) {
  service_.answer_with("x");
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {R"("tools":{})", "tools"},
      {R"("tools":[1])", "tools[0].function"},
      {R"("tools":[{"type":7,"function":{"name":"a"}}])", "tools[0].type"},
      {R"("tools":[{"type":"web_search"}])", "tools[0].type"},
      {R"("tools":[{"type":"function"}])", "tools[0].function"},
      {R"("tools":[{"type":"function","function":{"name":""}}])", "tools[0].function.name"},
      {R"("tools":[{"type":"function","function":{"name":"a b"}}])", "tools[0].function.name"},
      {R"("tools":[{"type":"function","function":{"name":"a","parameters":[]}}])", "tools[0].function.parameters"},
      {R"("tools":[{"type":"function","function":{"name":"a","description":1}}])", "tools[0].function.description"},
      {R"("tool_choice":"required")", "tool_choice"},
      {R"("tool_choice":"always")", "tool_choice"},
      {kTools + R"(,"tool_choice":7)", "tool_choice"},
      {kTools + R"(,"tool_choice":{"type":"function"})", "tool_choice"},
      {kTools + R"(,"tool_choice":{"type":"function","function":{"name":"then"}})", "tool_choice"},
      {kTools + R"(,"parallel_tool_calls":"yes")", "parallel_tool_calls"},
      {R"("functions":[{"name":7}])", "functions[0].name"},
  };
  for (const auto& [fields, param] : wrong) {
    const Answer answer = ask("POST", "/v1/chat/completions", chat(fields));
    EXPECT_EQ(answer.status, 400) << fields;
    EXPECT_EQ(answer.error().at("param"), json::value(param)) << json::serialize(answer.body);
  }
  const Answer message =
      ask("POST", "/v1/chat/completions",
          R"({"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":7}}]}]})");
  EXPECT_EQ(message.error().at("param"), "messages[0].tool_calls[0].function.arguments");
}

TEST_F(ToolsTest, CallsThatMustComeAreHeldToTheirSchemas) {
  service_.answer_with("x");
  const auto accepts = [&](const std::string& choice, const std::string& answer) {
    EXPECT_EQ(ask("POST", "/v1/chat/completions", chat(kTools + R"(,"tool_choice":)" + choice)).status, 200);
    return last_request_takes(answer);
  };
  const std::string
      weather =
          "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": \"Par\"}<｜tool▁call▁end｜>",
      now = "<｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜>", end = "<｜tool▁calls▁end｜>";
  const std::string by_name = R"({"type":"function","function":{"name":"weather"}})";
  EXPECT_TRUE(accepts(R"("required")", weather + end));
  EXPECT_TRUE(accepts(R"("required")", weather + now + end));
  EXPECT_TRUE(accepts(by_name, weather + end));
  EXPECT_FALSE(accepts(by_name, weather + now + end));
  EXPECT_FALSE(accepts(R"("required")", "It rains."));
  EXPECT_FALSE(
      accepts(R"("required")", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"days\": 3}"));
  EXPECT_FALSE(accepts(R"("required","parallel_tool_calls":false)", weather + now));
}

TEST_F(ToolsTest, WhatTheirSchemasLeaveOpenIsClosedWhereTheyAreHeldToThem) {
  service_.answer_with("x");
  const std::string call = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>",
                    end = "<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
  EXPECT_EQ(ask("POST", "/v1/chat/completions", chat(kTools + R"(,"tool_choice":"required")")).status, 200);
  EXPECT_TRUE(last_request_takes(call + R"({"city": "Paris"})" + end));
  EXPECT_FALSE(last_request_takes(call + R"({"city": "Paris", "more": 1})" + end));
}

TEST_F(ToolsTest, AFormBesideThemBeginsAsItSays) {
  use_template((std::string(kTemplate) + "{% if add_generation_prompt %}<think>{% endif %}").c_str());
  service_.answer_with("hm</think>\n\n{}");
  for (const auto& [form, content] :
       {std::pair(R"("response_format":{"type":"json_object"})", "{}"), {R"("guided_regex":"\n+\\{\\}")", "\n\n{}"}}) {
    const Answer answer = ask("POST", "/v1/chat/completions", chat(kTools + "," + form));
    EXPECT_EQ(answer.body.at("choices").at(0).at("message").at("content"), content) << json::serialize(answer.body);
  }
}

TEST_F(ToolsTest, AModelWithoutAKnownFormatSaysSo) {
  service_.answer_with("x");
  use_template("{{ messages[0].content }}");
  const Answer answer = ask("POST", "/v1/chat/completions", chat(kTools));
  EXPECT_EQ(answer.status, 400);
  EXPECT_EQ(answer.error().at("param"), "tools");
  EXPECT_THAT(answer.error().at("message").as_string().c_str(), HasSubstr("--tool-call-parser"));
}

TEST_F(ToolsTest, TheFormatMayBeNamed) {
  options_.tool_call_parser = "glm47";
  service_.answer_with("<tool_call>weather<arg_key>city</arg_key><arg_value>7</arg_value></tool_call>");
  const json::value choice = ask("POST", "/v1/chat/completions", chat(kTools)).body.at("choices").at(0);
  EXPECT_EQ(choice.at("message").at("tool_calls").at(0).at("function").at("arguments"), R"({"city": "7"})");
}

}  // namespace
}  // namespace cachalot::openai
