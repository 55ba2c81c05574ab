#include <thread>

#include "openai/api_server_test_util.h"
#include "openai/messages/messages_request.h"

namespace cachalot::openai {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

// Calls of DeepSeek V3.1, and what a message may hold beside them.
constexpr const char* kBlockTemplate =
    "{% for tool in tools %}({{ tool.function.name }} {{ tool.function.parameters.type }}){% endfor %}"
    "{% for m in messages %}[{{ m.role }}|{{ m.name }}|{{ m.tool_call_id }}|{{ m.reasoning_content }}|{{ m.content }}"
    "{% for c in m.tool_calls or [] %}"
    "{{ '<｜tool▁calls▁begin｜>' + c.function.name + '=' + c.function.arguments + ' ' + (c.id or '') }}{% endfor %}]"
    "{% endfor %}{{ reasoning_effort }} {{ thinking|tojson }}";

const std::string kBlockCall =
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": \"Paris\"}<｜tool▁call▁end｜>"
    "<｜tool▁calls▁end｜>";
const std::string kMessageTools = R"("tools":[{"type":"web_search_20250305","name":"web_search"},
    {"name":"weather","description":"Of a city","input_schema":{"type":"object","properties":{"city":{"type":"string"}}},
     "cache_control":{"type":"ephemeral"}}])";

class MessagesTest : public ApiServerTest {
 protected:
  MessagesTest() {
    options_.max_model_len = 3000;
    chat_template_ = ChatTemplate::from_source(kBlockTemplate, "", "").value();
  }

  static std::string message(const std::string& fields) {
    return R"({"model":"nano","max_tokens":900,"messages":[{"role":"user","content":"Paris?"}])" +
           (fields.empty() ? "" : "," + fields) + "}";
  }
  Answer send_message(const std::string& body) { return ask("POST", "/v1/messages", body); }
  std::string prompt_of(const std::string& body) {
    const Answer answer = send_message(body);
    EXPECT_EQ(answer.status, 200) << json::serialize(answer.body);
    return answer.status == 200 ? tokenizer_->decode(service_.requests().back().tokens, false) : "";
  }
  std::vector<json::value> events_of(const std::string& body) {
    const http::Response response = send("POST", "/v1/messages", body);
    EXPECT_EQ(response.status, 200) << response.body;
    std::vector<json::value> events;
    const auto parsed = http::SseParser().add(response.body);
    for (const auto& event : *parsed) {
      events.push_back(json::parse(event.data));
      EXPECT_EQ(events.back().at("type").as_string(), event.event);
    }
    return events;
  }
  static std::string text(const json::value& value) { return std::string(value.as_string()); }
};

TEST_F(MessagesTest, AnAnswerIsAListOfBlocks) {
  service_.answer_with("<think>hm</think>\n\nI look." + kBlockCall);
  headers_.set("X-Request-Id", "abc");
  const Answer answer = send_message(message(R"("thinking":{"type":"enabled","budget_tokens":1024},)" + kMessageTools));
  ASSERT_EQ(answer.status, 200) << json::serialize(answer.body);
  EXPECT_EQ(answer.headers.find("request-id"), "abc");
  const json::object& body = answer.body.as_object();
  EXPECT_EQ(body.at("id"), "msg_abc");
  EXPECT_EQ(body.at("type"), "message");
  EXPECT_EQ(body.at("role"), "assistant");
  EXPECT_EQ(body.at("model"), "nano");
  EXPECT_EQ(body.at("stop_reason"), "tool_use");
  EXPECT_TRUE(body.at("stop_sequence").is_null());
  const json::array& content = body.at("content").as_array();
  ASSERT_EQ(content.size(), 3u);
  EXPECT_EQ(content[0].at("type"), "thinking");
  EXPECT_EQ(content[0].at("thinking"), "hm");
  EXPECT_EQ(content[0].at("signature").as_string().size(), 32u);
  EXPECT_EQ(content[1], json::value({{"type", "text"}, {"text", "I look."}}));
  EXPECT_EQ(content[2].at("type"), "tool_use");
  EXPECT_THAT(text(content[2].at("id")), StartsWith("toolu_"));
  EXPECT_EQ(content[2].at("name"), "weather");
  EXPECT_EQ(content[2].at("input"), json::value({{"city", "Paris"}}));
  const json::value& usage = body.at("usage");
  EXPECT_EQ(usage.at("cache_read_input_tokens"), 3);
  EXPECT_EQ(usage.at("input_tokens").to_number<size_t>() + 3, service_.requests().back().tokens.size());
  EXPECT_GT(usage.at("output_tokens").as_int64(), 20);
  EXPECT_GT(usage.at("output_tokens_details").at("thinking_tokens").as_int64(), 0);
}

TEST_F(MessagesTest, EventsAreThoseOfAnthropic) {
  service_.answer_with("<think>hm</think>\n\nI look." + kBlockCall);
  const auto events = events_of(message(R"("stream":true,"thinking":{"type":"adaptive"},)" + kMessageTools));
  std::vector<std::string> types;  // of deltas one
  std::string thought, content, input;
  for (const json::value& event : events) {
    std::string type = text(event.at("type"));
    if (type == "content_block_delta") {
      const json::value& delta = event.at("delta");
      type = text(delta.at("type"));
      if (type == "thinking_delta") thought += text(delta.at("thinking"));
      if (type == "text_delta") content += text(delta.at("text"));
      if (type == "input_json_delta") input += text(delta.at("partial_json"));
    }
    if (types.empty() || types.back() != type) types.push_back(type);
  }
  EXPECT_THAT(types, ElementsAre("message_start", "content_block_start", "thinking_delta", "signature_delta",
                                 "content_block_stop", "content_block_start", "text_delta", "content_block_stop",
                                 "content_block_start", "input_json_delta", "content_block_stop", "message_delta",
                                 "message_stop"));
  EXPECT_EQ(thought, "hm");
  EXPECT_EQ(content, "I look.");
  EXPECT_EQ(input, R"({"city": "Paris"})");
  const json::value& start = events[0].at("message");
  EXPECT_EQ(start.at("content"), json::array());
  EXPECT_TRUE(start.at("stop_reason").is_null());
  EXPECT_EQ(start.at("usage").at("input_tokens").to_number<size_t>(), service_.requests().back().tokens.size());
  EXPECT_EQ(events[1].at("content_block"), json::value({{"type", "thinking"}, {"thinking", ""}, {"signature", ""}}));
  const json::value& end = events[events.size() - 2];
  EXPECT_EQ(end.at("delta"), json::value({{"stop_reason", "tool_use"}, {"stop_sequence", nullptr}}));
  EXPECT_EQ(end.at("usage").at("cache_read_input_tokens"), 3);
}

TEST_F(MessagesTest, WhoAsksForNoThoughtGetsNone) {
  service_.answer_with("<think>hm</think>a");
  for (const std::string thinking : {"", R"("thinking":{"type":"disabled"})",
                                     R"("thinking":{"type":"enabled","budget_tokens":2000,"display":"omitted"})"}) {
    const Answer answer = send_message(message(thinking));
    EXPECT_EQ(answer.body.at("content"), json::value({{{"type", "text"}, {"text", "a"}}})) << thinking;
    EXPECT_EQ(answer.body.at("stop_reason"), "end_turn");
  }
  EXPECT_THAT(prompt_of(message("")), HasSubstr(" false"));
  EXPECT_THAT(prompt_of(message(R"("thinking":{"type":"adaptive"},"output_config":{"effort":"high"})")),
              HasSubstr("high true"));
}

TEST_F(MessagesTest, MessagesBecomeThoseOfTheTemplate) {
  service_.answer_with("x");
  const std::string prompt = prompt_of(R"({"max_tokens":9,
      "system":[{"type":"text","text":"x-anthropic-billing-header: cc_version=2"},
                {"type":"text","text":"S","cache_control":{"type":"ephemeral"}},{"type":"text","text":"T"}],
      "messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
        {"role":"assistant","content":[{"type":"thinking","thinking":"T","signature":"s"},
          {"type":"redacted_thinking","data":"?"},{"type":"text","text":"I look."},
          {"type":"tool_use","id":"t1","name":"weather","input":{"city":"Paris"}},
          {"type":"tool_use","id":"t2","name":"weather","input":{}}]},
        {"role":"user","content":[{"type":"tool_result","tool_use_id":"t2","content":"rain"},
          {"type":"tool_result","tool_use_id":"t1","is_error":true,"content":[{"type":"text","text":"none"}]},
          {"type":"tool_result","tool_use_id":"t1"},
          {"type":"text","text":"c"}]}]})");
  EXPECT_EQ(prompt,
            "[system||||S\nT][user||||a\nb]"
            "[assistant|||T|I look.<｜tool▁calls▁begin｜>weather={\"city\":\"Paris\"} t1"
            "<｜tool▁calls▁begin｜>weather={} t2]"
            "[tool|weather|t2||rain][tool|weather|t1||none][tool|weather|t1||][user||||c] false");
  // Claude Code's reminders.
  EXPECT_EQ(prompt_of(R"({"max_tokens":9,"system":"S","messages":[{"role":"user","content":"a"},
      {"role":"system","content":"R"},{"role":"user","content":"b"}]})"),
            "[system||||S][user||||a\n\nR\n\nb] false");
  EXPECT_EQ(prompt_of(message(kMessageTools)), "(weather object)[user||||Paris?] false");
}

// Claude Code's history holds for ever what a tool once read.
TEST_F(MessagesTest, APictureInTheHistoryIsToldOfAndRefusesNothing) {
  service_.answer_with("x");
  EXPECT_EQ(prompt_of(R"({"max_tokens":9,"messages":[{"role":"user","content":[{"type":"text","text":"Read a.png"},
      {"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBO"}}]},
      {"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"Read","input":{}}]},
      {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"a.png:"},
        {"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBO"}}]},
      {"type":"document","source":{"type":"text","media_type":"text/plain","data":"D"}},
      {"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"JVBE"}}]}]})"),
            "[user||||Read a.png\n[image left out: this model reads text only]]"
            "[assistant||||<｜tool▁calls▁begin｜>Read={} t1]"
            "[tool|Read|t1||a.png:\n[image left out: this model reads text only]]"
            "[user||||D\n[document left out: this model reads text only]] false");
}

TEST_F(MessagesTest, WhatIsTextInDocumentsAndSearchResultsIsRead) {
  service_.answer_with("x");
  EXPECT_EQ(prompt_of(R"({"max_tokens":9,"messages":[{"role":"user","content":[
      {"type":"search_result","source":"https://a.b","title":"T","content":[{"type":"text","text":"S1"},
        {"type":"text","text":"S2"}]},
      {"type":"document","source":{"type":"content","content":[{"type":"text","text":"C"},
        {"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBO"}}]}},
      {"type":"document","source":{"type":"content","content":"plain"}},
      {"type":"document","source":{"type":"url","url":"https://a.b/c.pdf"}}]}]})"),
            "[user||||S1\nS2\nC\n[image left out: this model reads text only]\nplain"
            "\n[document left out: this model reads text only]] false");
  const Answer wrong = send_message(R"({"max_tokens":9,"messages":[{"role":"user","content":[
      {"type":"search_result","content":[{"type":"text","text":7}]}]}]})");
  EXPECT_EQ(wrong.status, 400);
  EXPECT_THAT(json::serialize(wrong.body), HasSubstr("messages[0].content[0].content[0].text"));
}

TEST_F(MessagesTest, EmptyBlocksOfASystemAddNoLines) {
  service_.answer_with("x");
  EXPECT_EQ(prompt_of(R"({"max_tokens":9,"system":[{"type":"text","text":""},{"type":"text","text":"S"},
      {"type":"text","text":""},{"type":"text","text":"T"}],"messages":[{"role":"user","content":"a"}]})"),
            "[system||||S\nT][user||||a] false");
}

TEST_F(MessagesTest, AnAssistantsTextAtTheEndIsContinued) {
  chat_template_ = ChatTemplate::load(kModelFolder).value();
  service_.answer_with(" 4.");
  EXPECT_THAT(prompt_of(R"({"max_tokens":9,"messages":[{"role":"user","content":"2 + 2?"},
      {"role":"assistant","content":"It is"}]})"),
              testing::EndsWith("It is"));
}

TEST_F(MessagesTest, ReasonsToStop) {
  service_.answer_with("one two three");
  const Answer stopped = send_message(message(R"("stop_sequences":["two"])"));
  EXPECT_EQ(stopped.body.at("stop_reason"), "stop_sequence");
  EXPECT_EQ(stopped.body.at("stop_sequence"), "two");
  EXPECT_EQ(stopped.body.at("content").at(0).at("text"), "one ");
  const std::string some = R"({"max_tokens":2,"messages":[{"role":"user","content":"a"}]})";
  EXPECT_EQ(send_message(some).body.at("stop_reason"), "max_tokens");
  options_.max_model_len = 60;
  server_.reset();
  service_.answer_with("x", false);
  const Answer full = send_message(message(""));
  EXPECT_EQ(full.status, 200) << "as much as there is room for";
  EXPECT_EQ(full.body.at("stop_reason"), "model_context_window_exceeded");
}

TEST_F(MessagesTest, WithNoTokensThePromptAloneIsComputed) {
  service_.answer_with("x");
  const Answer answer = send_message(R"({"max_tokens":0,"messages":[{"role":"user","content":"a"}]})");
  EXPECT_EQ(answer.status, 200) << json::serialize(answer.body);
  EXPECT_EQ(answer.body.at("content"), json::array());
  EXPECT_EQ(answer.body.at("stop_reason"), "max_tokens");
  EXPECT_EQ(answer.body.at("usage").at("output_tokens"), 0);
}

TEST_F(MessagesTest, ArgumentsThatAreNoJsonAreShown) {
  service_.answer_with("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{city<｜tool▁call▁end｜>");
  const Answer answer = send_message(message(kMessageTools));
  EXPECT_EQ(answer.body.at("content").at(0).at("input"), json::value({{"INVALID_JSON", "{city"}}))
      << json::serialize(answer.body);
}

TEST_F(MessagesTest, ToolChoiceIsReadInEveryForm) {
  service_.answer_with(kBlockCall);
  for (const std::string choice : {R"({"type":"auto"})", R"({"type":"any","disable_parallel_tool_use":true})",
                                   R"({"type":"tool","name":"weather"})"})
    EXPECT_EQ(send_message(message(R"("tool_choice":)" + choice + "," + kMessageTools)).body.at("stop_reason"),
              "tool_use")
        << choice;
  EXPECT_EQ(send_message(message(R"("tool_choice":{"type":"none"},)" + kMessageTools)).body.at("stop_reason"),
            "end_turn");
}

TEST_F(MessagesTest, CountsTokens) {
  const Answer answer =
      ask("POST", "/v1/messages/count_tokens", R"({"messages":[{"role":"user","content":"Paris?"}]})");
  EXPECT_EQ(answer.status, 200) << json::serialize(answer.body);
  EXPECT_EQ(answer.body.at("input_tokens").to_number<size_t>(),
            tokenizer_->encode("[user||||Paris?] false", false)->size());
}

TEST_F(MessagesTest, WhatClaudeCodeSendsIsTaken) {
  service_.answer_with("x");
  headers_ = {{"x-api-key", "k"}, {"anthropic-version", "2023-06-01"}, {"anthropic-beta", "interleaved-thinking"}};
  const Answer answer = ask("POST", "/v1/messages?beta=true",
                            message(R"("system":[{"type":"text","text":"S","cache_control":{"type":"ephemeral"}}],
      "metadata":{"user_id":"u"},"context_management":{"edits":[{"type":"clear_thinking_20251015"}]},
      "betas":["a"],"temperature":1,"output_config":{"effort":"medium"},"unheard_of":{"a":1},)" +
                                    kMessageTools));
  EXPECT_EQ(answer.status, 200) << json::serialize(answer.body);
}

TEST_F(MessagesTest, ModelsAreListedInTheClientsForm) {
  headers_.set("anthropic-version", "2023-06-01");
  const json::value list = ask("GET", "/v1/models").body;
  EXPECT_EQ(list.at("has_more"), false);
  EXPECT_EQ(list.at("data").at(0).at("type"), "model");
  EXPECT_EQ(list.at("data").at(0).at("display_name"), "nano");
  EXPECT_THAT(text(list.at("data").at(0).at("created_at")), testing::MatchesRegex("20..-..-..T..:..:..Z"));
  EXPECT_EQ(ask("GET", "/v1/models/nano").body, list.at("data").at(0));
}

TEST_F(MessagesTest, WhatIsWrongWithModelsIsToldInTheClientsForm) {
  options_.api_keys = {"secret"};
  EXPECT_EQ(ask("GET", "/v1/models").error().at("type"), "invalid_request_error");
  headers_ = {{"anthropic-version", "2023-06-01"}};
  EXPECT_EQ(ask("GET", "/v1/models").error().at("type"), "authentication_error");
  headers_.set("x-api-key", "secret");
  const Answer absent = ask("GET", "/v1/models/other");
  EXPECT_EQ(absent.status, 404);
  EXPECT_EQ(absent.error().at("type"), "not_found_error");
}

TEST_F(MessagesTest, EitherFormOfTheKeyOpens) {
  options_.api_keys = {"secret"};
  service_.answer_with("x");
  const Answer refused = send_message(message(""));
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(refused.body.at("type"), "error");
  EXPECT_EQ(refused.error().at("type"), "authentication_error");
  headers_ = {{"x-api-key", "secret"}};
  EXPECT_EQ(send_message(message("")).status, 200);
  headers_ = {{"Authorization", "Bearer secret"}};
  EXPECT_EQ(send_message(message("")).status, 200);
  headers_ = {{"x-api-key", "other"}};
  EXPECT_EQ(send_message(message("")).status, 401);
}

TEST_F(MessagesTest, ClientsAreToldThatTheyMustGoOnWithoutAThread) {
  const Answer refused = send_message(message(R"("thread":{"type":"create"})"));
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(refused.error().at("details").at("error_code"), "thread_unsupported_request");
  EXPECT_EQ(send_message(message(R"("thread":null)")).status, 200);
}

TEST_F(MessagesTest, WhatIsWrongIsRefusedByName) {
  const auto with = [](const std::string& messages) { return R"({"max_tokens":9,"messages":)" + messages + "}"; };
  const auto block = [&](const std::string& role, const std::string& content) {
    return with(R"([{"role":")" + role + R"(","content":[)" + content + "]}]");
  };
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {R"({"messages":[{"role":"user","content":"a"}]})", "max_tokens is missing"},
      {R"({"max_tokens":-1,"messages":[{"role":"user","content":"a"}]})", "max_tokens is -1"},
      {message(R"("container":{"id":"c"})"), "container is given"},
      {R"({"max_tokens":9})", "messages is missing"},
      {with("[]"), "messages holds no message"},
      {with("[7]"), "messages[0] is not an object"},
      {with(R"([{"role":"robot","content":"a"}])"), "messages[0].role is 'robot'"},
      {with(R"([{"role":"user"}])"), "messages[0].content is missing"},
      {with(R"([{"role":"user","content":7}])"), "messages[0].content is something else"},
      {block("user", R"({"type":"hologram","source":{}})"), "messages[0].content[0].type is 'hologram'"},
      {block("assistant", R"({"type":"image","source":{}})"), "messages[0].content[0].type is 'image'"},
      {block("user", R"({"type":"tool_result"})"), "messages[0].content[0].tool_use_id"},
      {block("user", R"({"type":"tool_result","tool_use_id":"t","content":[{"type":"thinking"}]})"),
       "messages[0].content[0].content[0].type is 'thinking'"},
      {block("user", "7"), "messages[0].content[0].type is missing"},
      {block("assistant", R"({"type":"tool_use","name":"f","input":{}})"), "messages[0].content[0].id"},
      {block("assistant", R"({"type":"tool_use","id":"t","input":{}})"), "messages[0].content[0].name"},
      {block("assistant", R"({"type":"tool_use","id":"t","name":"f"})"), "messages[0].content[0].input"},
      {block("assistant", R"({"type":"thinking"})"), "messages[0].content[0].thinking"},
      {message(R"("system":7)"), "system is something else"},
      {message(R"("system":[{"type":"image"}])"), "system[0].type is 'image'"},
      {message(R"("temperature":9)"), "temperature is 9"},
      {message(R"("top_k":-7)"), "top_k is -7"},
      {message(R"("stop_sequences":[""])"), "stop_sequences holds an empty string"},
      {message(R"("thinking":{"type":"some"})"), "thinking.type is 'some'"},
      {message(R"("thinking":{"type":"enabled","budget_tokens":"x"})"), "thinking.budget_tokens"},
      {message(R"("output_config":{"effort":7})"), "output_config.effort"},
      {message(R"("output_config":{"format":{"type":"xml"}})"), "output_config.format"},
      {message(R"("service_tier":"flex")"), "service_tier"},
      {message(R"("metadata":{"user_id":7})"), "metadata.user_id"},
      {message(R"("mcp_servers":[{"url":"x"}])"), "mcp_servers is given"},
      {message(R"("tools":[{"name":"f","input_schema":7}])"), "tools[0].input_schema"},
      {message(R"("tools":[{"input_schema":{}}])"), "tools[0].name"},
      {message(R"("tool_choice":{"type":"any"})"), "tool_choice.type is any"},
      {message(R"("tools":[{"type":"bash_20250124","name":"bash"}],"tool_choice":{"type":"tool","name":"bash"})"),
       "tool_choice.name names 'bash'"},
  };
  for (const auto& [body, finding] : wrong) {
    const Answer answer = send_message(body);
    EXPECT_EQ(answer.status, 400) << body;
    EXPECT_EQ(answer.body.at("type"), "error");
    EXPECT_EQ(answer.error().at("type"), "invalid_request_error");
    EXPECT_TRUE(answer.body.at("request_id").is_string());
    EXPECT_THAT(text(answer.error().at("message")), HasSubstr(finding)) << body;
  }
  const Answer other = send_message(R"({"model":"claude","max_tokens":9,"messages":[{"role":"user","content":"a"}]})");
  EXPECT_EQ(other.status, 404);
  EXPECT_EQ(other.error().at("type"), "not_found_error");
  EXPECT_EQ(ask("GET", "/v1/messages").body.at("type"), "error") << "of the server itself, too";
}

TEST_F(MessagesTest, AnyBodyGetsAnAnswer) {
  service_.answer_with(kBlockCall);
  const std::string valid =
      R"({"model":"nano","max_tokens":9,"system":[{"type":"text","text":"S"}],"messages":[{"role":"user","content":"a"},
      {"role":"assistant","content":[{"type":"thinking","thinking":"T"},{"type":"text","text":"b"},{"type":"tool_use",
      "id":"t","name":"f","input":{"k":[1]}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t",
      "content":[{"type":"text","text":"r"}]}]}],"tools":[{"name":"f","input_schema":{"type":"object"}}],"tool_choice":
      {"type":"auto","disable_parallel_tool_use":true},"thinking":{"type":"enabled","budget_tokens":9},"output_config":
      {"effort":"low"},"stop_sequences":["x"],"metadata":{"user_id":"u"},"top_k":5})";
  send_damaged("/v1/messages", valid);
}

TEST_F(MessagesTest, AnEngineErrorIsAnEvent) {
  service_.answer_with("abcdefgh");
  service_.fail_after(3);
  const auto events = events_of(message(R"("stream":true)"));
  EXPECT_EQ(events.back().at("type"), "error");
  EXPECT_EQ(events.back().at("error").at("type"), "api_error");
  const Answer whole = send_message(message(""));
  EXPECT_EQ(whole.status, 500);
  EXPECT_EQ(whole.error().at("type"), "api_error");
}

TEST_F(MessagesTest, AStreamLivesWhileItsRequestWaits) {
  options_.keep_alive = std::chrono::milliseconds(20);
  service_.answer_with("x");
  service_.hold(true);
  std::jthread later([&] {
    service_.wait_for_requests(1);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    service_.hold(false);
  });
  const auto events = events_of(message(R"("stream":true)"));
  EXPECT_EQ(events.at(1).at("type"), "ping");
}

}  // namespace
}  // namespace cachalot::openai
