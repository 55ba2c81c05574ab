#pragma once

#include <gmock/gmock.h>

#include <algorithm>
#include <regex>
#include <string>
#include <vector>

#include "http/message.h"

// Answers of every kind that there is, and what a client gets of them, for tests that cut them.
namespace cachalot::openai {

namespace answer_kinds {

inline constexpr const char* kCallTemplate =
    "{% for tool in tools %}({{ tool.function.name }}){% endfor %}{% for m in messages %}[{{ m.role }}|{{ m.content }}"
    "{% for c in m.tool_calls or [] %}"
    "{{ '<｜tool▁calls▁begin｜>' + c.function.name + '=' + c.function.arguments + ' ' + (c.id or '') }}{% endfor %}]"
    "{% endfor %}";
inline const std::string kTwoCalls =
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": \"Paris\"}<｜tool▁call▁end｜>"
    "<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": \"Lomé\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
inline const std::string kHello = R"({"messages":[{"role":"user","content":"hi"}],"max_tokens":90,)";
inline const std::string kStream = R"("stream":true,)";
inline const std::string kWeather =
    R"({"type":"object","properties":{"city":{"type":"string"}},"required":["city"],"additionalProperties":false})";
inline const std::string kTools =
    R"("tools":[{"type":"function","function":{"name":"weather","parameters":)" + kWeather;

struct Kind {
  const char* name;
  std::string path, body, answer;
  bool ends = true;
  friend void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }
};

inline std::vector<Kind> kinds() {
  const std::string half = "A é, a 🙂 and 中文.", think = "<think>let me 🙂</think>\n\nMonday, é.";
  const std::string completion = R"({"prompt":"Sunday",)" + kStream, chat = kHello + kStream;
  const std::string respond = R"({"input":"hi","max_output_tokens":90,)" + kStream;
  const std::string message = R"({"messages":[{"role":"user","content":"hi"}],"max_tokens":90,)" + kStream;
  const std::string flat_tool = R"("tools":[{"type":"function","name":"weather","parameters":)" + kWeather + "}]}";
  const std::string block_tool = R"("tools":[{"name":"weather","input_schema":)" + kWeather + "}]}";
  const std::string usage = R"("stream_options":{"include_usage":true,"continuous_usage_stats":true})";
  const std::string completions = "/v1/completions", chats = "/v1/chat/completions", responses = "/v1/responses",
                    messages = "/v1/messages";
  return {
      {"Completion", completions, completion + R"("max_tokens":40})", half},
      {"CompletionCutByLength", completions, completion + R"("max_tokens":7})", half},
      {"CompletionWithSeed", completions, completion + R"("max_tokens":40,"seed":7,"temperature":0.7})", half},
      {"CompletionWithProbabilities", completions, completion + R"("max_tokens":40,"logprobs":2})", half},
      {"CompletionWithEcho", completions, completion + R"("max_tokens":40,"echo":true,"logprobs":1})", half},
      {"CompletionWithIds", completions, completion + R"("max_tokens":40,"return_token_ids":true})", half},
      {"CompletionWithUsage", completions, completion + R"("max_tokens":40,)" + usage + "}", half},
      {"CompletionOfManyChoices", completions, completion + R"("max_tokens":9,"n":3})", half},
      {"CompletionOfManyPrompts", completions, R"({"prompt":["a","b"],"n":2,"max_tokens":9,"stream":true})", half},
      {"CompletionWithStop", completions, completion + R"("max_tokens":40,"stop":["and 中"]})", half},
      {"CompletionWithStopKept", completions,
       completion + R"("max_tokens":40,"stop":["文."],"include_stop_str_in_output":true})", half},
      {"CompletionWithMinimum", completions, completion + R"("max_tokens":40,"min_tokens":9,"bad_words":["no"]})",
       half},
      {"CompletionByPriority", completions, completion + R"("max_tokens":40,"priority":3,"cache_salt":"s"})", half},
      {"CompletionOfAnExpression", completions, completion + R"("max_tokens":40,"guided_regex":"[ab]+c"})", "ababbac"},
      {"CompletionOfAChoice", completions, completion + R"("max_tokens":40,"guided_choice":["abc","abd"]})", "abd"},
      {"CompletionOfAGrammar", completions,
       completion + R"("max_tokens":40,"structured_outputs":{"grammar":"start: \"ab\" \"cd\"+"}})", "abcdcd"},
      {"CompletionWhole", completions, R"({"prompt":"Sunday","max_tokens":40,"n":2})", half},
      {"Chat", chats, chat + R"("seed":7})", think},
      {"ChatWithoutThought", chats, chat + R"("include_reasoning":false})", think},
      {"ChatWithProbabilities", chats, chat + R"("logprobs":true,"top_logprobs":2})", think},
      {"ChatWithIds", chats, chat + R"("return_token_ids":true,)" + usage + "}", think},
      {"ChatOfManyChoices", chats, chat + R"("n":2})", think},
      {"ChatWithStop", chats, chat + R"("stop":["day"]})", think},
      {"ChatWithBudget", chats, chat + R"("thinking_token_budget":60})", think},
      {"ChatOfASchema", chats,
       chat + R"("response_format":{"type":"json_schema","json_schema":{"name":"a","schema":)" + kWeather + "}}}",
       R"(<think>hm</think>{"city":"Lomé"})"},
      {"ChatOfAnObject", chats, chat + R"("response_format":{"type":"json_object"}})", R"(<think>hm</think>{"a":[1]})"},
      {"ChatOfATag", chats,
       chat + R"("response_format":{"type":"structural_tag","structures":[{"begin":"<f>","schema":)" + kWeather +
           R"(,"end":"</f>"}],"triggers":["<f"]}})",
       R"(<think>hm</think>see <f>{"city":"a"}</f> so)"},
      {"ChatThatCalls", chats, chat + kTools + "}}]}", "<think>hm</think>I look." + kTwoCalls},
      {"ChatThatMustCall", chats, chat + kTools + R"(}}],"tool_choice":"required"})", "<think>hm</think>" + kTwoCalls},
      {"ChatThatCallsStrictly", chats, chat + kTools + R"(,"strict":true}}]})", "<think>hm</think>I look." + kTwoCalls},
      {"ChatThatCallsOneTool", chats,
       chat + kTools + R"(}}],"tool_choice":{"type":"function","function":{"name":"weather"}}})",
       "<think>hm</think>" + kTwoCalls},
      {"ChatWhole", chats, kHello + R"("seed":7})", think},
      {"ChatWholeThatCalls", chats, kHello + kTools + "}}]}", "<think>hm</think>I look." + kTwoCalls},
      {"ChatsAtOnce", "/v1/chat/completions/batch",
       R"({"messages":[[{"role":"user","content":"a"}],[{"role":"user","content":"b"}]],"max_tokens":40})", think},
      {"Response", responses, respond + R"("seed":7})", think},
      {"ResponseCutByLength", responses, R"({"input":"hi","max_output_tokens":14,"stream":true})", think},
      {"ResponseWithProbabilities", responses,
       respond + R"("include":["message.output_text.logprobs"],"top_logprobs":2})", think},
      {"ResponseWithThought", responses, respond + R"("include":["reasoning.encrypted_content"]})", think},
      {"ResponseThatCalls", responses, respond + flat_tool, "<think>hm</think>\n\nI look." + kTwoCalls},
      {"ResponseOfASchema", responses,
       respond + R"("text":{"format":{"type":"json_schema","name":"a","schema":)" + kWeather + "}}}",
       R"(<think>hm</think>{"city":"a"})"},
      {"ResponseWhole", responses, R"({"input":"hi","max_output_tokens":90})", think},
      {"Message", messages, message + R"("stop_sequences":["zz"]})", think},
      {"MessageWithStop", messages, message + R"("stop_sequences":["day"]})", think},
      {"MessageThatCalls", messages, message + block_tool, "<think>hm</think>\n\nI look." + kTwoCalls},
      {"MessageWhole", messages, kHello + R"("temperature":0})", think},
  };
}

// What clients get with a record, and the record.
struct Part {
  std::string told, record;
};

inline std::vector<Part> parts_of(const std::string& stream) {
  std::vector<Part> parts;
  for (size_t begin = 0; begin < stream.size();) {
    const size_t found = stream.find("\n:@", begin);
    const bool is_at_once = stream.compare(begin, 2, ":@") == 0;
    EXPECT_TRUE(is_at_once || found != stream.npos) << "nothing accounts for " << stream.substr(begin);
    if (!is_at_once && found == stream.npos) break;
    const size_t mark = is_at_once ? begin : found + 1, end = stream.find("\n\n", mark) + 2;
    parts.push_back({stream.substr(begin, mark - begin), stream.substr(mark, end - mark)});
    begin = end;
  }
  return parts;
}

// The moment of its end is each run's own.
inline std::string without_time(const std::string& told) {
  return std::regex_replace(told, std::regex("\"completed_at\":[0-9]+"), "\"completed_at\":0");
}

inline std::string told_by(const std::vector<Part>& parts) {
  std::string told;
  for (const Part& part : parts) told += part.told;
  return told;
}

// Of some choices each one's events stand in order, among each other they may not. What an answer uses up until then is
// all choices'.
inline std::vector<std::string> by_choice(const std::string& told) {
  std::vector<std::string> events;
  const auto parsed = http::SseParser().add(told);
  for (const auto& event : *parsed) events.push_back(event.data);
  std::ranges::stable_sort(events, {}, [](const std::string& event) {
    const size_t at = event.find("\"index\":");
    return at == event.npos ? 'z' : event[at + 8];
  });
  return events;
}

}  // namespace answer_kinds

}  // namespace cachalot::openai
