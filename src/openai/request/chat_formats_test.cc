// Conversations as the prompts of each family, by the description of its format: thought, calls, results and switches.
#include "base/file.h"
#include "base/folder_test_util.h"
#include "openai/api_server_test_util.h"
#include "openai/request/chat_request.h"

namespace cachalot::openai {
namespace {

using testing::HasSubstr;

class ChatFormats : public testing::Test {
 protected:
  static std::unique_ptr<ChatTemplate> of_file(const std::string& name) {
    const auto source = read_file(CACHALOT_SOURCE_DIR "/tests/data/chat_templates/" + name);
    return ChatTemplate::from_source(*source, "", "").value();
  }
  static std::unique_ptr<ChatTemplate> of_model(const std::string& config_json) {
    const TestFolder folder;
    EXPECT_TRUE(write_file(folder.path("config.json"), config_json));
    return ChatTemplate::load(folder.path()).value();
  }
  static RenderedChat chat(const ChatTemplate& chat_template, const std::string& body) {
    const json::object request = json::parse(body).as_object();
    const JsonKeys unread(request, "request");
    JsonKeys keys = unread;
    Conversation conversation;
    read_conversation(keys, {}, conversation);
    EXPECT_TRUE(keys.status()) << keys.status().error().message;
    auto rendered = render(conversation, chat_template);
    EXPECT_TRUE(rendered) << rendered.error().message;
    return rendered ? *rendered : RenderedChat();
  }
  // Fields of a request beside the messages.
  static std::string with(const std::string& messages, const std::string& fields = "") {
    return R"({"messages":[)" + messages + "]" + fields + "}";
  }
};

const std::string kUser = R"({"role":"user","content":"Hi <b>"})", kThinks = R"(,"thinking":true)",
                  kThinksNot = R"(,"thinking":false)";
// Two calls in a turn with a thought, and their results.
const std::string kCalls = R"(,{"role":"assistant","content":"See:","reasoning_content":"Hm.","tool_calls":[
    {"id":"a1","type":"function","function":{"name":"weather","arguments":"{\"city\": \"Köln\", \"days\": [1, 2.0]}"}},
    {"id":"functions.now:7","type":"function","function":{"name":"now","arguments":"{}"}}]},
    {"role":"tool","tool_call_id":"a1","content":"grey"},{"role":"tool","tool_call_id":"functions.now:7","content":"noon"})";
const std::string kAnswered = R"(,{"role":"assistant","content":"Grey.","reasoning_content":"So."},
    {"role":"user","content":"And?"})";
const std::string kCityTools =
    R"(,"tools":[{"type":"function","function":{"name":"weather","description":"Of a city\nor two",
    "parameters":{"type":"object","required":["city"],"properties":{"days":{"type":"array","items":{"type":"number",
    "description":"each"}},"city":{"type":"string","maxLength":9,"description":"Which"}}}}}])";

TEST_F(ChatFormats, DeepseekV32HasATemplateOfOurs) {
  const auto v32 = of_model(R"({"model_type": "deepseek_v32"})");
  ASSERT_NE(v32->tool_calls(), nullptr);
  EXPECT_EQ(v32->tool_calls()->names[0], "deepseek_v32");
  EXPECT_EQ(chat(*v32, with(kUser)).text, "<｜begin▁of▁sentence｜><｜User｜>Hi <b><｜Assistant｜></think>");
  const RenderedChat thinking = chat(*v32, with(kUser, kThinks));
  EXPECT_EQ(thinking.text, "<｜begin▁of▁sentence｜><｜User｜>Hi <b><｜Assistant｜><think>");
  EXPECT_TRUE(thinking.opens_thought);
  EXPECT_FALSE(chat(*v32, with(kUser, kThinksNot)).opens_thought);
}

TEST_F(ChatFormats, DeepseekV32ShowsThoughtsCallsAndResultsOfTheLastTurn) {
  const auto v32 = of_model(R"({"model_type": "deepseek_v32"})");
  const std::string calls =
      "See:\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"weather\">\n"
      "<｜DSML｜parameter name=\"city\" string=\"true\">Köln</｜DSML｜parameter>\n"
      "<｜DSML｜parameter name=\"days\" string=\"false\">[1, 2.0]</｜DSML｜parameter>\n"
      "</｜DSML｜invoke>\n<｜DSML｜invoke name=\"now\">\n\n</｜DSML｜invoke>\n</｜DSML｜function_calls>"
      "<｜end▁of▁sentence｜>\n\n<function_results>\n<result>grey</result>\n<result>noon</result>\n</"
      "function_results>\n\n";
  EXPECT_EQ(chat(*v32, with(kUser + kCalls, kThinks)).text,
            "<｜begin▁of▁sentence｜><｜User｜>Hi <b><｜Assistant｜><think>Hm.</think>" + calls + "<think>");
  EXPECT_TRUE(chat(*v32, with(kUser + kCalls, kThinks)).opens_thought);
  EXPECT_EQ(chat(*v32, with(kUser + kCalls + kAnswered, kThinks)).text,
            "<｜begin▁of▁sentence｜><｜User｜>Hi <b><｜Assistant｜></think>" + calls +
                "</think>Grey.<｜end▁of▁sentence｜><｜User｜>And?<｜Assistant｜><think>");
}

TEST_F(ChatFormats, DeepseekV32TellsToolsAndTheAnswersFormInTheFirstMessage) {
  const auto v32 = of_model(R"({"model_type": "deepseek_v32"})");
  const std::string form =
      R"(,"response_format":{"type":"json_schema","json_schema":{"name":"f","schema":{"type":"object"}}})";
  const std::string told_form =
      "\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n{\"type\": \"object\"}";
  const std::string tools = chat(*v32, with(kUser, kCityTools + form)).text;
  EXPECT_THAT(tools, testing::StartsWith("<｜begin▁of▁sentence｜>\n\n## Tools\nYou have access to a set of tools"));
  EXPECT_THAT(
      tools,
      HasSubstr("<functions>\n{\"name\": \"weather\", \"description\": \"Of a city\\nor two\", \"parameters\":"));
  EXPECT_THAT(tools, testing::EndsWith("}\n</functions>\n" + told_form + "<｜User｜>Hi <b><｜Assistant｜></think>"));
  EXPECT_EQ(chat(*v32, with(R"({"role":"system","content":"Be."},)" + kUser, form)).text,
            "<｜begin▁of▁sentence｜>Be." + told_form + "<｜User｜>Hi <b><｜Assistant｜></think>");
  EXPECT_EQ(chat(*v32, with(R"({"role":"developer","content":"Be."})", form + kThinks)).text,
            "<｜begin▁of▁sentence｜><｜User｜>" + told_form + "\n\n# The user's message is: Be.<｜Assistant｜><think>");
}

TEST_F(ChatFormats, DeepseekV32RefusesResultsOfNoCall) {
  const auto v32 = of_model(R"({"model_type": "deepseek_v32"})");
  const auto text = v32->render(R"({"messages":[{"role":"user","content":"a"},{"role":"tool","content":"b"}]})");
  ASSERT_FALSE(text);
  EXPECT_THAT(text.error().message, HasSubstr("must follow the calls"));
}

TEST_F(ChatFormats, ADeveloperIsTheSystemWhereNoTemplateKnowsOne) {
  EXPECT_THAT(chat(*of_file("kimi_k25.jinja"), with(R"({"role":"developer","content":"Be."})")).text,
              HasSubstr("<|im_system|>system<|im_middle|>Be."));
}

TEST_F(ChatFormats, KimiThinksUnlessToldNotTo) {
  const auto kimi = of_file("kimi_k25.jinja");
  ASSERT_NE(kimi->tool_calls(), nullptr);
  EXPECT_EQ(kimi->tool_calls()->names[0], "kimi_k2");
  const std::string user = "<|im_user|>user<|im_middle|>Hi <b><|im_end|><|im_assistant|>assistant<|im_middle|>";
  EXPECT_EQ(chat(*kimi, with(kUser)).text, user + "<think>");
  EXPECT_TRUE(chat(*kimi, with(kUser)).opens_thought);
  for (const std::string& off :
       {kThinksNot, std::string(R"(,"enable_thinking":false)"), std::string(R"(,"reasoning_effort":"none")"),
        std::string(R"(,"chat_template_kwargs":{"thinking":false})")}) {
    EXPECT_EQ(chat(*kimi, with(kUser, off)).text, user + "<think></think>") << off;
    EXPECT_FALSE(chat(*kimi, with(kUser, off)).opens_thought);
  }
}

TEST_F(ChatFormats, KimiKeepsThoughtsBehindTheLastAnswerAndIdsAsSent) {
  const auto kimi = of_file("kimi_k25.jinja");
  const auto calls = [](const std::string& thought) {
    return "<|im_assistant|>assistant<|im_middle|><think>" + thought +
           "</think>See:<|tool_calls_section_begin|><|tool_call_begin|>a1<|tool_call_argument_begin|>"
           "{\"city\": \"Köln\", \"days\": [1, 2.0]}<|tool_call_end|><|tool_call_begin|>functions.now:7"
           "<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|><|im_end|>"
           "<|im_system|>tool<|im_middle|>## Return of a1\ngrey<|im_end|>"
           "<|im_system|>tool<|im_middle|>## Return of functions.now:7\nnoon<|im_end|>";
  };
  const std::string user = "<|im_user|>user<|im_middle|>Hi <b><|im_end|>",
                    opening = "<|im_assistant|>assistant<|im_middle|><think>";
  EXPECT_EQ(chat(*kimi, with(kUser + kCalls)).text, user + calls("Hm.") + opening);
  const auto answered = [&](const std::string& first, const std::string& second) {
    return user + calls(first) + opening + second +
           "</think>Grey.<|im_end|><|im_user|>user<|im_middle|>And?<|im_end|>" + opening;
  };
  EXPECT_EQ(chat(*kimi, with(kUser + kCalls + kAnswered)).text, answered("", ""));
  EXPECT_EQ(chat(*kimi, with(kUser + kCalls + kAnswered, R"(,"chat_template_kwargs":{"preserve_thinking":true})")).text,
            answered("Hm.", "So."));
}

TEST_F(ChatFormats, KimiReadsToolsInTypescriptOrSortedJson) {
  const auto kimi = of_file("kimi_k25.jinja");
  EXPECT_THAT(chat(*kimi, with(kUser, kCityTools)).text,
              testing::StartsWith(R"(<|im_system|>tool_declare<|im_middle|># Tools

## functions
namespace functions {
// Of a city
// or two
type weather = (_: {
  // Which
  // maxLength: 9
  city: string,
  days?: Array<
    // each
    number
  >
}) => any;
}
<|im_end|>)"));
  const std::string odd =
      R"(,"tools":[{"type":"function","function":{"parameters":{"properties":{"x":{"$ref":"#/elsewhere"}}},"name":"f"}}])";
  EXPECT_THAT(
      chat(*kimi, with(kUser, odd)).text,
      testing::StartsWith("<|im_system|>tool_declare<|im_middle|>[{\"function\":{\"name\":\"f\",\"parameters\":"
                          "{\"properties\":{\"x\":{\"$ref\":\"#/elsewhere\"}}}},\"type\":\"function\"}]<|im_end|>"));
}

TEST_F(ChatFormats, GlmReadsArgumentsAsObjectsAndItsSwitches) {
  const auto glm = of_file("glm_52.jinja");
  ASSERT_NE(glm->tool_calls(), nullptr);
  EXPECT_EQ(glm->tool_calls()->names[0], "glm47");
  const auto calls = [](const std::string& thought) {
    return "<|user|>Hi <b><|assistant|><think>" + thought +
           "</think>See:<tool_call>weather<arg_key>city</arg_key><arg_value>Köln</arg_value>"
           "<arg_key>days</arg_key><arg_value>[1, 2.0]</arg_value></tool_call><tool_call>now</tool_call>"
           "<|observation|><tool_response>grey</tool_response><tool_response>noon</tool_response>";
  };
  EXPECT_EQ(chat(*glm, with(kUser + kCalls)).text,
            "[gMASK]<sop><|system|>Reasoning Effort: Max" + calls("Hm.") + "<|assistant|><think>");
  const std::string rest = "<|assistant|><think></think>Grey.<|user|>And?<|assistant|><think>";
  EXPECT_EQ(chat(*glm, with(kUser + kCalls + kAnswered, R"(,"reasoning_effort":"high")")).text,
            "[gMASK]<sop><|system|>Reasoning Effort: High" + calls("") + rest);
  EXPECT_EQ(chat(*glm, with(kUser + kCalls + kAnswered, R"(,"thinking":{"type":"disabled"})")).text,
            "[gMASK]<sop>" + calls("") + rest + "</think>");
  EXPECT_THAT(chat(*glm, with(kUser + kCalls + kAnswered, R"(,"chat_template_kwargs":{"clear_thinking":false})")).text,
              HasSubstr("<|assistant|><think>So.</think>Grey."));
  EXPECT_TRUE(chat(*glm, with(kUser)).opens_thought);
  EXPECT_FALSE(chat(*glm, with(kUser, kThinksNot)).opens_thought);
}

// A server of V3.2's format, whatever its tokens.
TEST_F(ApiServerTest, EveryProtocolTellsDeepseekV32TheAnswersForm) {
  const TestFolder folder;
  EXPECT_TRUE(write_file(folder.path("config.json"), R"({"model_type": "deepseek_v32"})"));
  chat_template_ = ChatTemplate::load(folder.path()).value();
  options_.max_model_len = 2000;
  service_.answer_with("{}");
  const std::string schema = R"({"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":false})";
  const std::vector<std::pair<std::string, std::string>> requests = {
      {"/v1/chat/completions",
       R"({"messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema","json_schema":{"schema":)" +
           schema + "}}}"},
      {"/v1/responses", R"({"input":"x","text":{"format":{"type":"json_schema","name":"n","schema":)" + schema + "}}}"},
      {"/v1/messages",
       R"({"max_tokens":9,"messages":[{"role":"user","content":"x"}],"output_config":{"format":{"type":"json_schema","schema":)" +
           schema + "}}}"},
      {"/v1/messages",
       R"({"max_tokens":9,"messages":[{"role":"user","content":"x"}],"output_format":{"type":"json_schema","schema":)" +
           schema + "}}"}};
  for (const auto& [path, body] : requests) {
    ASSERT_EQ(ask("POST", path, body).status, 200) << path;
    EXPECT_THAT(tokenizer_->decode(service_.requests().back().tokens, false),
                HasSubstr("## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n"
                          "{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}}"))
        << path;
  }
}

// A server with Kimi's tokens.
class KimiServerTest : public ApiServerTest {
 protected:
  KimiServerTest() {
    const auto source = read_file(CACHALOT_SOURCE_DIR "/tests/data/chat_templates/kimi_k25.jinja");
    chat_template_ = ChatTemplate::from_source(*source, "", "").value();
    options_.max_model_len = 2000;
    api_ = std::make_unique<ApiServer>(kimi_service_, *kimi_, chat_template_.get(), options_);
    server_ = std::make_unique<http::Server>(threads_, http::ServerOptions{.host = "127.0.0.1"});
    api_->register_routes(*server_);
    EXPECT_TRUE(server_->start());
  }
  ~KimiServerTest() override {
    server_.reset();
    api_.reset();
  }

  const std::unique_ptr<Tokenizer> kimi_ =
      Tokenizer::load(CACHALOT_SOURCE_DIR "/tests/data/tokenizers/kimi-synthetic").value();
  FakeService kimi_service_{*kimi_};
};

// [EOS] is all that files name.
TEST_F(KimiServerTest, ATurnEndsAtItsMarkThoughNoFileNamesIt) {
  kimi_service_.answer_with("a");
  ask("POST", "/v1/chat/completions", R"({"messages":[{"role":"user","content":"b"}]})");
  const auto& stops = kimi_service_.requests().back().sampling.stop_token_ids;
  EXPECT_THAT(stops, testing::IsSupersetOf({*kimi_->token_id("[EOS]"), *kimi_->token_id("<|im_end|>")}));
}

TEST_F(KimiServerTest, ACallEndsAThoughtThatHasNoEnd) {
  const std::string call =
      "Hm.<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:3<|tool_call_argument_begin|>"
      "{\"city\": \"K\"}<|tool_call_end|><|tool_calls_section_end|>";
  kimi_service_.answer_with(call);
  const Answer answer =
      ask("POST", "/v1/chat/completions",
          R"({"messages":[{"role":"user","content":"b"}],"tool_choice":"required")" + kCityTools + "}");
  ASSERT_EQ(answer.status, 200) << json::serialize(answer.body);
  const json::value& message = answer.body.at("choices").at(0).at("message");
  EXPECT_EQ(message.at("reasoning"), "Hm.");
  EXPECT_EQ(message.at("tool_calls").at(0).at("id"), "functions.weather:3");
  EXPECT_EQ(message.at("tool_calls").at(0).at("function").at("arguments"), R"({"city": "K"})");
  TokenConstraint& constraint = *kimi_service_.requests().back().constraint;
  const std::vector<TokenId> tokens = kimi_->encode(call + "<|im_end|>", false).value();
  for (const TokenId token : tokens) {
    std::vector<uint32_t> mask(static_cast<size_t>(kimi_->vocab_size() + 31) / 32, ~0u);
    ASSERT_TRUE(constraint.fill_mask(mask));
    ASSERT_TRUE(mask[static_cast<size_t>(token) / 32] >> (token % 32) & 1) << kimi_->token_bytes(token, false);
    ASSERT_TRUE(constraint.accept(token));
  }
}

}  // namespace
}  // namespace cachalot::openai
