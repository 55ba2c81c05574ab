#include "openai/api_server_test_util.h"
#include "openai/responses/responses_request.h"

namespace cachalot::openai {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

// Calls of DeepSeek V3.1, and what a message may hold beside them.
constexpr const char* kItemTemplate =
    "{% for tool in tools %}({{ tool.function.name }}){% endfor %}{% for m in messages %}[{{ m.role }}|{{ m.name }}|"
    "{{ m.tool_call_id }}|{{ m.reasoning_content }}|{{ m.content }}{% for c in m.tool_calls or [] %}"
    "{{ '<｜tool▁calls▁begin｜>' + c.function.name + '=' + c.function.arguments + ' ' + (c.id or '') }}{% endfor %}]"
    "{% endfor %}{{ reasoning_effort }}";

const std::string kItemCall =
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": \"Paris\"}<｜tool▁call▁end｜>"
    "<｜tool▁calls▁end｜>";
const std::string kFlatTools = R"("tools":[{"type":"web_search"},{"type":"function","name":"weather","strict":false,
    "parameters":{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}])";

class ResponsesTest : public ApiServerTest {
 protected:
  ResponsesTest() {
    options_.max_model_len = 3000;
    chat_template_ = ChatTemplate::from_source(kItemTemplate, "", "").value();
  }

  Answer respond(const std::string& body) { return ask("POST", "/v1/responses", body); }
  std::string prompt_of(const std::string& body) {
    const Answer answer = respond(body);
    EXPECT_EQ(answer.status, 200) << json::serialize(answer.body);
    return answer.status == 200 ? tokenizer_->decode(service_.requests().back().tokens, false) : "";
  }
  // The events, whose names stand in them, too.
  std::vector<json::value> events_of(const std::string& body) {
    const http::Response response = send("POST", "/v1/responses", body);
    EXPECT_EQ(response.status, 200) << response.body;
    std::vector<json::value> events;
    const auto parsed = http::SseParser().add(response.body);
    for (const auto& event : *parsed) {
      events.push_back(json::parse(event.data));
      EXPECT_EQ(events.back().at("type").as_string(), event.event);
      EXPECT_EQ(events.back().at("sequence_number").to_number<size_t>(), events.size() - 1);
    }
    return events;
  }
  static std::string text(const json::value& value) { return std::string(value.as_string()); }
};

TEST_F(ResponsesTest, AnAnswerIsAListOfItems) {
  service_.answer_with("<think>let me see</think>\n\nMonday");
  const Answer answer = respond(R"({"input":"Sunday?","instructions":"Be brief.","metadata":{"a":"b"},"user":"me",
      "temperature":0.6,"frequency_penalty":0.5,"max_output_tokens":90,"reasoning":{"effort":"low","summary":"auto"}})");
  ASSERT_EQ(answer.status, 200) << json::serialize(answer.body);
  const json::object& response = answer.body.as_object();
  EXPECT_EQ(tokenizer_->decode(service_.requests().back().tokens, false), "[system||||Be brief.][user||||Sunday?]low");
  EXPECT_THAT(text(response.at("id")), StartsWith("resp_"));
  EXPECT_EQ(response.at("object"), "response");
  EXPECT_EQ(response.at("status"), "completed");
  EXPECT_GE(response.at("completed_at").as_int64(), response.at("created_at").as_int64());
  EXPECT_TRUE(response.at("error").is_null());
  EXPECT_TRUE(response.at("incomplete_details").is_null());
  EXPECT_EQ(response.at("model"), "nano");
  EXPECT_EQ(response.at("instructions"), "Be brief.");
  EXPECT_EQ(response.at("temperature"), 0.6);
  EXPECT_EQ(response.at("presence_penalty").to_number<double>(), 0);
  EXPECT_EQ(response.at("frequency_penalty"), 0.5);
  EXPECT_EQ(response.at("max_output_tokens"), 90);
  EXPECT_EQ(response.at("metadata"), json::value({{"a", "b"}}));
  EXPECT_EQ(response.at("reasoning"), json::value({{"effort", "low"}, {"summary", "auto"}}));
  EXPECT_EQ(response.at("text").at("format"), json::value({{"type", "text"}}));
  EXPECT_EQ(response.at("tools"), json::array());
  const json::array& output = response.at("output").as_array();
  ASSERT_EQ(output.size(), 2u);
  EXPECT_EQ(output[0].at("type"), "reasoning");
  EXPECT_THAT(text(output[0].at("id")), StartsWith("rs_"));
  EXPECT_EQ(output[0].at("content"), json::value({{{"type", "reasoning_text"}, {"text", "let me see"}}}));
  EXPECT_TRUE(output[0].at("encrypted_content").is_null());
  EXPECT_EQ(output[1].at("type"), "message");
  EXPECT_EQ(output[1].at("role"), "assistant");
  EXPECT_EQ(output[1].at("status"), "completed");
  EXPECT_EQ(output[1].at("content").at(0).at("type"), "output_text");
  EXPECT_EQ(output[1].at("content").at(0).at("text"), "Monday");
  const json::value& usage = response.at("usage");
  EXPECT_EQ(usage.at("input_tokens_details").at("cached_tokens"), 3);
  EXPECT_GT(usage.at("output_tokens_details").at("reasoning_tokens").as_int64(), 3);
  EXPECT_EQ(usage.at("total_tokens").as_int64(),
            usage.at("input_tokens").as_int64() + usage.at("output_tokens").as_int64());
}

TEST_F(ResponsesTest, EventsAreThoseOfOpenAi) {
  service_.answer_with("<think>hm</think>\n\nI look." + kItemCall);
  const auto events = events_of(R"({"input":"Paris?","stream":true,)" + kFlatTools + "}");
  std::vector<std::string> types;  // of deltas one
  for (const json::value& event : events)
    if (const std::string type = text(event.at("type")); types.empty() || types.back() != type) types.push_back(type);
  EXPECT_THAT(
      types, ElementsAre("response.created", "response.in_progress", "response.output_item.added",
                         "response.content_part.added", "response.reasoning_text.delta", "response.reasoning_text.done",
                         "response.content_part.done", "response.output_item.done", "response.output_item.added",
                         "response.content_part.added", "response.output_text.delta", "response.output_text.done",
                         "response.content_part.done", "response.output_item.done", "response.output_item.added",
                         "response.function_call_arguments.delta", "response.function_call_arguments.done",
                         "response.output_item.done", "response.completed"));
  std::string content, arguments, thought;
  for (const json::value& event : events) {
    const std::string type = text(event.at("type"));
    if (type == "response.output_text.delta") content += text(event.at("delta"));
    if (type == "response.reasoning_text.delta") thought += text(event.at("delta"));
    if (type == "response.function_call_arguments.delta") arguments += text(event.at("delta"));
  }
  EXPECT_EQ(thought, "hm");
  EXPECT_EQ(content, "I look.");
  EXPECT_EQ(arguments, R"({"city": "Paris"})");
  EXPECT_EQ(events[0].at("response").at("status"), "in_progress");
  EXPECT_EQ(events[0].at("response").at("output"), json::array());
  const json::value& response = events.back().at("response");
  EXPECT_EQ(response.at("status"), "completed");
  EXPECT_EQ(response.at("id"), events[0].at("response").at("id"));
  const json::array& output = response.at("output").as_array();
  ASSERT_EQ(output.size(), 3u);
  EXPECT_EQ(output[2].at("type"), "function_call");
  EXPECT_EQ(output[2].at("name"), "weather");
  EXPECT_EQ(output[2].at("arguments"), R"({"city": "Paris"})");
  EXPECT_THAT(text(output[2].at("call_id")), StartsWith("call_"));
  for (const json::value& event : events)
    if (event.at("type") == "response.output_item.done") {
      EXPECT_EQ(event.at("item"), output[event.at("output_index").to_number<size_t>()]);
    }
  EXPECT_GT(response.at("usage").at("output_tokens").as_int64(), 20);
}

TEST_F(ResponsesTest, WhiteSpaceBeforeACallIsNoMessage) {
  service_.answer_with("<think>hm</think>\n\n" + kItemCall);
  const Answer answer = respond(R"({"input":"Paris?",)" + kFlatTools + "}");
  const json::array& output = answer.body.at("output").as_array();
  ASSERT_EQ(output.size(), 2u) << json::serialize(answer.body);
  EXPECT_EQ(output[1].at("type"), "function_call");
  EXPECT_EQ(answer.body.at("tools").as_array().size(), 1u) << "those that exist here";
}

TEST_F(ResponsesTest, AnAnswerThatIsCutIsIncomplete) {
  service_.answer_with("abcdefgh", false);
  const Answer answer = respond(R"({"input":"x","max_output_tokens":5})");
  EXPECT_EQ(answer.body.at("status"), "incomplete");
  EXPECT_EQ(answer.body.at("incomplete_details"), json::value({{"reason", "max_output_tokens"}}));
  EXPECT_EQ(answer.body.at("output").at(0).at("status"), "incomplete");
  const auto events = events_of(R"({"input":"x","max_output_tokens":5,"stream":true})");
  EXPECT_EQ(events.back().at("type"), "response.incomplete");
}

TEST_F(ResponsesTest, AnAnswerOfNothingHasAnEmptyText) {
  service_.answer_with("");
  const Answer answer = respond(R"({"input":"x"})");
  EXPECT_EQ(answer.body.at("output").at(0).at("content").at(0).at("text"), "");
}

TEST_F(ResponsesTest, InputItemsBecomeMessages) {
  service_.answer_with("x");
  EXPECT_EQ(prompt_of(R"({"input":[
      {"role":"developer","content":"D"},
      {"type":"message","role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_text","text":"b"}]},
      {"type":"reasoning","id":"rs_1","summary":[],"content":[{"type":"reasoning_text","text":"T"}]},
      {"type":"message","id":"msg_1","status":"completed","role":"assistant",
       "content":[{"type":"output_text","text":"I look.","annotations":[]}]},
      {"type":"function_call","call_id":"c1","name":"weather","arguments":"{\"city\": \"Paris\"}"},
      {"type":"function_call","call_id":"c2","name":"weather","arguments":"{}"},
      {"type":"function_call_output","call_id":"c2","output":"rain"},
      {"type":"function_call_output","call_id":"c1","output":[{"type":"input_text","text":"sun"}]},
      {"type":"reasoning","id":"rs_2","summary":[],"encrypted_content":"cachalot:U"},
      {"type":"reasoning","id":"rs_3","summary":[],"encrypted_content":"another's"}]})"),
            "[system||||D][user||||a\nb]"
            "[assistant|||T|I look.<｜tool▁calls▁begin｜>weather={\"city\": \"Paris\"} c1"
            "<｜tool▁calls▁begin｜>weather={} c2]"
            "[tool|weather|c2||rain][tool|weather|c1||sun][assistant|||U|]");
}

TEST_F(ResponsesTest, APictureIsToldOfAndRefusesNothing) {
  service_.answer_with("x");
  EXPECT_EQ(prompt_of(R"({"input":[
      {"role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_image","image_url":"data:x"}]},
      {"type":"function_call","call_id":"c1","name":"view_image","arguments":"{}"},
      {"type":"function_call_output","call_id":"c1","output":[{"type":"input_image","image_url":"data:x"}]},
      {"role":"user","content":[{"type":"input_file","file_data":"x"}]}]})"),
            "[user||||a\n[image left out: this model reads text only]]"
            "[assistant||||<｜tool▁calls▁begin｜>view_image={} c1]"
            "[tool|view_image|c1||[image left out: this model reads text only]]"
            "[user||||[file left out: this model reads text only]]");
}

TEST_F(ResponsesTest, ThoughtsComeBackInWhatIsCalledEncrypted) {
  service_.answer_with("<think>hm</think>a");
  const Answer answer = respond(R"({"input":"x","store":false,"include":["reasoning.encrypted_content"]})");
  EXPECT_EQ(answer.body.at("output").at(0).at("encrypted_content"), "cachalot:hm");
  EXPECT_EQ(ask("GET", "/v1/responses/" + text(answer.body.at("id"))).status, 404) << "it was not to be stored";
}

TEST_F(ResponsesTest, GoOnFromWhatIsStored) {
  service_.answer_with("<think>hm</think>one");
  const Answer first = respond(R"({"input":"a","instructions":"I"})");
  const std::string id = text(first.body.at("id"));
  service_.answer_with("two");
  const Answer second = respond(R"({"input":[{"role":"user","content":"b"}],"previous_response_id":")" + id + "\"}");
  ASSERT_EQ(second.status, 200) << json::serialize(second.body);
  EXPECT_EQ(second.body.at("previous_response_id").as_string(), id);
  EXPECT_EQ(
      prompt_of(R"({"input":"c","instructions":"J","previous_response_id":")" + text(second.body.at("id")) + "\"}"),
      "[system||||J][user||||a][assistant|||hm|one][user||||b][assistant||||two][user||||c]");
  const std::string item = text(first.body.at("output").at(1).at("id"));
  EXPECT_EQ(prompt_of(R"({"input":[{"type":"item_reference","id":")" + item + R"("},{"role":"user","content":"d"}]})"),
            "[assistant||||one][user||||d]");

  EXPECT_EQ(ask("GET", "/v1/responses/" + id).body, first.body);
  EXPECT_EQ(ask("GET", "/v1/responses/" + id + "?stream=true").status, 400);
  EXPECT_EQ(ask("POST", "/v1/responses/" + id + "/cancel").status, 400);
  EXPECT_EQ(ask("DELETE", "/v1/responses/" + id).body,
            json::value({{"id", id}, {"object", "response"}, {"deleted", true}}));
  const Answer gone = ask("GET", "/v1/responses/" + id);
  EXPECT_EQ(gone.status, 404);
  EXPECT_EQ(gone.error().at("code"), "response_not_found");
  const Answer no_more = respond(R"({"input":"c","previous_response_id":")" + text(second.body.at("id")) + "\"}");
  EXPECT_EQ(no_more.status, 404) << "what it builds upon was deleted";
  EXPECT_EQ(no_more.error().at("code"), "previous_response_not_found");
  EXPECT_EQ(no_more.error().at("param"), "previous_response_id");
  EXPECT_EQ(respond(R"({"input":[{"type":"item_reference","id":"msg_1"}]})").status, 404);
}

TEST_F(ResponsesTest, StreamedAnswersAreStoredToo) {
  service_.answer_with("one");
  const auto events = events_of(R"({"input":"a","stream":true})");
  const json::value& response = events.back().at("response");
  EXPECT_EQ(ask("GET", "/v1/responses/" + text(response.at("id"))).body, response);
}

TEST_F(ResponsesTest, InputItemsAreListed) {
  service_.answer_with("one");
  const std::string id = text(respond(R"({"input":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},
      {"type":"function_call_output","call_id":"c","output":"d"}]})")
                                  .body.at("id"));
  const json::value all = ask("GET", "/v1/responses/" + id + "/input_items?order=asc").body;
  EXPECT_EQ(all.at("object"), "list");
  EXPECT_EQ(all.at("has_more"), false);
  ASSERT_EQ(all.at("data").as_array().size(), 3u);
  EXPECT_EQ(all.at("data").at(0).at("content"), json::value({{{"type", "input_text"}, {"text", "a"}}}));
  EXPECT_EQ(all.at("data").at(1).at("content").at(0).at("type"), "output_text");
  EXPECT_EQ(all.at("first_id"), all.at("data").at(0).at("id"));
  const json::value page =
      ask("GET", "/v1/responses/" + id + "/input_items?limit=1&after=" + text(all.at("last_id"))).body;
  ASSERT_EQ(page.at("data").as_array().size(), 1u) << json::serialize(page);
  EXPECT_EQ(page.at("data").at(0).at("role"), "assistant") << "the last first, unless it is asked otherwise";
  EXPECT_EQ(page.at("has_more"), true);
  for (const char* query : {"limit=0", "limit=101", "limit=x", "order=up", "after=y"})
    EXPECT_EQ(ask("GET", "/v1/responses/" + id + "/input_items?" + query).status, 400) << query;
  EXPECT_EQ(ask("GET", "/v1/responses/" + id + "/other").status, 404);
}

TEST_F(ResponsesTest, AnotherKeySeesNothing) {
  options_.api_keys = {"one", "two"};
  headers_.set("Authorization", "Bearer one");
  service_.answer_with("x");
  const std::string id = text(respond(R"({"input":"a"})").body.at("id"));
  EXPECT_EQ(ask("GET", "/v1/responses/" + id).status, 200);
  headers_.set("Authorization", "Bearer two");
  EXPECT_EQ(ask("GET", "/v1/responses/" + id).status, 404);
  EXPECT_EQ(ask("DELETE", "/v1/responses/" + id).status, 404);
  EXPECT_EQ(respond(R"({"input":"a","previous_response_id":")" + id + "\"}").status, 404);
  headers_ = {{"x-api-key", "one"}};
  EXPECT_EQ(ask("GET", "/v1/responses/" + id).status, 200) << "the same key";
  headers_.set("X-Cachalot-Client", "somebody");
  EXPECT_EQ(ask("GET", "/v1/responses/" + id).status, 404) << "another client of a router";
}

TEST_F(ResponsesTest, ToolChoiceIsReadInEveryForm) {
  service_.answer_with(kItemCall);
  for (const std::string choice :
       {R"("auto")", R"("required")", R"({"type":"function","name":"weather"})",
        R"({"type":"allowed_tools","mode":"auto","tools":[{"type":"function","name":"weather"}]})"}) {
    const Answer answer = respond(R"({"input":"a","tool_choice":)" + choice + "," + kFlatTools + "}");
    ASSERT_EQ(answer.status, 200) << json::serialize(answer.body);
    EXPECT_EQ(answer.body.at("output").at(0).at("type"), "function_call");
  }
  const Answer none = respond(R"({"input":"a","tool_choice":"none",)" + kFlatTools + "}");
  EXPECT_EQ(none.body.at("output").at(0).at("type"), "message");
}

TEST_F(ResponsesTest, ToolsOfANamespaceAreToldUnderOneName) {
  service_.answer_with(
      "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>agents__close<｜tool▁sep｜>{}<｜tool▁call▁end｜><"
      "｜tool▁calls▁end｜>");
  const std::string tools = R"("tools":[{"type":"namespace","name":"agents","description":"d","tools":[
      {"type":"function","name":"open"},{"type":"custom","name":"free"},{"type":"function","name":"close"}]},
      {"type":"namespace","name":"mcp__","tools":[{"type":"function","name":"f"}]}])";
  const Answer answer = respond(R"({"input":"a",)" + tools + "}");
  const json::object& call = answer.body.at("output").at(0).as_object();
  EXPECT_EQ(call.at("name"), "close") << json::serialize(answer.body);
  EXPECT_EQ(call.at("namespace"), "agents");
  EXPECT_EQ(answer.body.at("tools").as_array().size(), 2u);
  EXPECT_EQ(prompt_of(R"({"input":[{"type":"function_call","call_id":"c","name":"close","namespace":"agents",
      "arguments":"{}"},{"role":"user","content":"a"}],)" +
                      tools + "}"),
            "(agents__open)(agents__close)(mcp__f)"
            "[assistant||||<｜tool▁calls▁begin｜>agents__close={} c][user||||a]");
  EXPECT_EQ(
      respond(R"({"input":"a","tool_choice":{"type":"function","name":"close","namespace":"agents"},)" + tools + "}")
          .status,
      200);
  EXPECT_EQ(respond(R"({"input":"a","tools":[{"type":"namespace","name":"n","tools":[{"type":"function"}]}]})")
                .error()
                .at("param"),
            "tools[0].tools[0].name");
}

TEST_F(ResponsesTest, WhatIsSaidInARowIsOneMessage) {
  service_.answer_with("x");
  EXPECT_EQ(prompt_of(R"({"instructions":"I","input":[{"role":"developer","content":"D"},{"role":"user","content":"a"},
      {"role":"user","content":"b"},{"role":"developer","content":"E"},{"role":"assistant","content":"c"},
      {"role":"system","content":"F"}]})"),
            "[system||||I\n\nD][user||||a\n\nb\n\nE][assistant||||c][user||||F]");
}

TEST_F(ResponsesTest, TruncationDropsTheOldestTurns) {
  options_.max_model_len = 200;
  service_.answer_with("x");
  std::string items = R"({"role":"system","content":"S"})";
  for (char turn = 'a'; turn < 'k'; ++turn)
    items += fmt::format(R"(,{{"role":"user","content":"{} {}"}},{{"role":"assistant","content":"ok"}})", turn,
                         std::string(40, turn));
  items += R"(,{"role":"user","content":"last"})";
  const auto with = [&](const std::string& fields) { return R"({"input":[)" + items + "]," + fields + "}"; };
  EXPECT_EQ(respond(with(R"("max_output_tokens":20)")).error().at("code"), "context_length_exceeded");
  const std::string prompt = prompt_of(with(R"("max_output_tokens":20,"truncation":"auto")"));
  EXPECT_THAT(prompt, StartsWith("[system||||S][user||||"));
  EXPECT_THAT(prompt, HasSubstr("[user||||last]"));
  EXPECT_THAT(prompt, testing::Not(HasSubstr("[user||||a ")));
  EXPECT_THAT(prompt, HasSubstr("[user||||j ")) << "no more than must be";
  EXPECT_LE(service_.requests().back().tokens.size(), 180u);
  const std::string huge = R"({"input":[{"role":"user","content":"a"},{"role":"user","content":")" +
                           std::string(5000, 'z') + R"("}],"truncation":"auto"})";
  EXPECT_EQ(respond(huge).error().at("code"), "context_length_exceeded") << "a turn is not cut";
}

TEST_F(ResponsesTest, ProbabilitiesAreOfTheTextAlone) {
  service_.answer_with("<think>hm</think>\n\nab");
  const Answer answer = respond(R"({"input":"x","include":["message.output_text.logprobs"],"top_logprobs":2})");
  ASSERT_EQ(answer.status, 200) << json::serialize(answer.body);
  const json::array& logprobs = answer.body.at("output").at(1).at("content").at(0).at("logprobs").as_array();
  std::string tokens;
  for (const json::value& token : logprobs) {
    tokens += text(token.at("token"));
    EXPECT_EQ(token.at("top_logprobs").as_array().size(), 2u);
  }
  EXPECT_EQ(tokens, "ab");
}

TEST_F(ResponsesTest, CountsInputTokens) {
  const Answer answer = ask("POST", "/v1/responses/input_tokens", R"({"input":"Sunday?"})");
  EXPECT_EQ(answer.body.at("object"), "response.input_tokens");
  EXPECT_EQ(answer.body.at("input_tokens").to_number<size_t>(), tokenizer_->encode("[user||||Sunday?]", false)->size());
}

TEST_F(ResponsesTest, WhatOtherClientsSendIsTaken) {
  service_.answer_with("x");
  // Codex, and OpenAI's agents.
  EXPECT_EQ(respond(R"({"model":"nano","instructions":"I","input":[{"type":"message","role":"user","content":
      [{"type":"input_text","text":"a"}]}],"tools":[{"type":"local_shell"},{"type":"custom","name":"apply_patch"}],
      "tool_choice":"auto","parallel_tool_calls":false,"reasoning":{"effort":"medium","summary":"auto"},"store":false,
      "stream":false,"include":["reasoning.encrypted_content"],"prompt_cache_key":"k","text":{"verbosity":"low"},
      "client_metadata":{"a":"b"},"unheard_of":1})")
                .status,
            200);
  EXPECT_EQ(respond(R"({"input":"a","background":false,"conversation":null,"stream_options":null,"truncation":"auto",
      "text":{"format":{"type":"json_schema","name":"n","strict":true,"schema":{"type":"object"}}},"prompt":null})")
                .status,
            200);
}

TEST_F(ResponsesTest, WhatIsWrongIsRefusedByName) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {R"({})", "input"},
      {R"({"input":7})", "input"},
      {R"({"input":[]})", "input"},
      {R"({"input":[7]})", "input[0]"},
      {R"({"input":[{"type":"computer_call"}]})", "input[0].type"},
      {R"({"input":[{"role":"robot","content":"a"}]})", "input[0].role"},
      {R"({"input":[{"role":"user"}]})", "input[0].content"},
      {R"({"input":[{"role":"user","content":[{"type":"summary_text","text":"x"}]}]})", "input[0].content[0].type"},
      {R"({"input":[{"type":"function_call","call_id":"c","arguments":"{}"}]})", "input[0].name"},
      {R"({"input":[{"type":"function_call","name":"f","arguments":"{}"}]})", "input[0].call_id"},
      {R"({"input":[{"type":"function_call","name":"f","call_id":"c"}]})", "input[0].arguments"},
      {R"({"input":[{"type":"function_call_output","call_id":"c"}]})", "input[0].output"},
      {R"({"input":"a","background":true})", "background"},
      {R"({"input":"a","conversation":"c"})", "conversation"},
      {R"({"input":"a","prompt":{"id":"p"}})", "prompt"},
      {R"({"input":"a","max_output_tokens":0})", "max_output_tokens"},
      {R"({"input":"a","temperature":9})", "temperature"},
      {R"({"input":"a","truncation":"some"})", "truncation"},
      {R"({"input":"a","metadata":{"a":1}})", "metadata"},
      {R"({"input":"a","include":["everything"]})", "include"},
      {R"({"input":"a","top_logprobs":99})", "top_logprobs"},
      {R"({"input":"a","reasoning":{"effort":"some"}})", "reasoning.effort"},
      {R"({"input":"a","reasoning":7})", "reasoning"},
      {R"({"input":"a","text":{"format":{"type":"xml"}}})", "text.format"},
      {R"({"input":"a","text":{"format":{"type":"json_schema"}}})", "text.format.schema"},
      {R"({"input":"a","instructions":7})", "instructions"},
      {R"({"input":"a","previous_response_id":7})", "previous_response_id"},
      {R"({"input":"a","tools":7})", "tools"},
      {R"({"input":"a","tools":[{"type":"function"}]})", "tools[0].name"},
      {R"({"input":"a","tools":[{"name":"f"}]})", "tools[0].type"},
      {R"({"input":"a","tool_choice":"required"})", "tool_choice"},
      {R"({"input":"a","tools":[{"type":"web_search"}],"tool_choice":{"type":"web_search"}})", "tool_choice"},
      {R"({"input":"a","tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"function","name":"g"}})",
       "tool_choice"},
      {R"({"input":"a","model":7})", "model"},
      {R"({"input":"a","structured_outputs":{"regex":7}})", "structured_outputs.regex"},
      {R"({"input":"a","structured_outputs":{"choice":["a"]},"text":{"format":{"type":"json_object"}}})",
       "text.format"},
  };
  for (const auto& [body, parameter] : wrong) {
    const Answer answer = respond(body);
    EXPECT_EQ(answer.status, 400) << body;
    EXPECT_EQ(answer.error().at("param"), json::value(parameter)) << body << json::serialize(answer.body);
  }
  EXPECT_EQ(respond(R"({"input":"a","model":"other"})").status, 404);
  EXPECT_EQ(respond(R"({"input":"a","previous_response_id":"resp_1"})").status, 404);
  const Answer too_long = respond(R"({"input":"a","max_output_tokens":5000})");
  EXPECT_EQ(too_long.error().at("code"), "context_length_exceeded");
  EXPECT_EQ(too_long.error().at("param"), "input");
}

TEST_F(ResponsesTest, TakeTheFormsOfVllmToo) {
  service_.answer_with("red");
  const std::string form = R"("structured_outputs":{"choice":["red","blue"]})";
  for (const char* text : {"", R"(,"text":{"verbosity":"low"})", R"(,"text":{"format":{"type":"text"}})"}) {
    EXPECT_EQ(respond(R"({"input":"a",)" + form + text + "}").status, 200);
    ASSERT_TRUE(service_.requests().back().constraint) << text;
    EXPECT_FALSE(last_request_takes("</think>green")) << text;
  }
}

TEST_F(ResponsesTest, AnyBodyGetsAnAnswer) {
  service_.answer_with(kItemCall);
  const std::string valid =
      R"({"model":"nano","instructions":"I","input":[{"role":"developer","content":"D"},{"type":"reasoning","summary":[],
      "content":[{"type":"reasoning_text","text":"T"}]},{"type":"function_call","call_id":"c","name":"f","arguments":"{}"},
      {"type":"function_call_output","call_id":"c","output":[{"type":"input_text","text":"r"}]}],"tools":[{"type":
      "function","name":"f","parameters":{"type":"object"}}],"tool_choice":{"type":"allowed_tools","mode":"auto","tools":
      [{"type":"function","name":"f"}]},"text":{"verbosity":"low"},"include":["message.output_text.logprobs"],
      "top_logprobs":2,"metadata":{"a":"b"},"truncation":"auto","max_output_tokens":9,"reasoning":{"effort":"low"}})";
  send_damaged("/v1/responses", valid);
}

TEST_F(ResponsesTest, AnEngineErrorFailsTheResponse) {
  service_.answer_with("abcdefgh");
  service_.fail_after(3);
  const auto events = events_of(R"({"input":"x","stream":true})");
  EXPECT_EQ(events.back().at("type"), "response.failed");
  EXPECT_EQ(events.back().at("response").at("status"), "failed");
  EXPECT_THAT(text(events.back().at("response").at("error").at("message")), HasSubstr("on fire"));
  EXPECT_EQ(events.back().at("response").at("error").at("code"), "server_error");
  EXPECT_EQ(respond(R"({"input":"x"})").status, 500);
  service_.fail_after(3, true);
  EXPECT_EQ(events_of(R"({"input":"x","stream":true})").back().at("response").at("error").at("code"), "invalid_prompt")
      << "which clients do not send again";
}

}  // namespace
}  // namespace cachalot::openai
