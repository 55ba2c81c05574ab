#include "text/mark_guard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/file.h"
#include "base/folder_test_util.h"
#include "config/json.h"
#include "text/chat_template.h"
#include "text/huggingface_test_util.h"

namespace cachalot {
namespace {

namespace json = boost::json;

struct Family {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const ChatTemplate> chat_template;
};

std::shared_ptr<const Tokenizer> deepseek_tokenizer() {
  static const std::shared_ptr<const Tokenizer> tokenizer = Tokenizer::load(kDeepseekFolder).value();
  return tokenizer;
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  for (size_t place = 0; (place = text.find(from, place)) != std::string::npos; place += to.size())
    text.replace(place, from.size(), to);
  return text;
}

// The built-in model's tokenizer, with other texts in place of some of its marks.
std::unique_ptr<Tokenizer> nano_with(const std::vector<std::pair<std::string, std::string>>& renamed) {
  const TestFolder folder;
  std::string text = *read_file(kNanoFolder + "/tokenizer.json");
  for (const auto& [from, to] : renamed) text = replaced(text, "\"" + from + "\"", "\"" + to + "\"");
  EXPECT_TRUE(write_file(folder.path("tokenizer.json"), text));
  EXPECT_TRUE(write_file(folder.path("tokenizer_config.json"), "{}"));
  return Tokenizer::load(folder.path()).value();
}

std::unique_ptr<ChatTemplate> template_of_file(const std::string& name) {
  const auto source = read_file(CACHALOT_SOURCE_DIR "/tests/data/chat_templates/" + name);
  return ChatTemplate::from_source(*source, "", "").value();
}

std::unique_ptr<ChatTemplate> v32_template() {
  const TestFolder folder;
  EXPECT_TRUE(write_file(folder.path("config.json"), R"({"model_type": "deepseek_v32"})"));
  return ChatTemplate::load(folder.path()).value();
}

std::vector<Family> families() {
  std::vector<Family> all;
  all.push_back({Tokenizer::load(kNanoFolder).value(), ChatTemplate::load(kNanoFolder).value()});
  all.push_back({deepseek_tokenizer(), ChatTemplate::load(kDeepseekFolder).value()});
  all.push_back({deepseek_tokenizer(), v32_template()});
  all.push_back({Tokenizer::load(CACHALOT_SOURCE_DIR "/tests/data/tokenizers/kimi-synthetic").value(),
                 template_of_file("kimi_k25.jinja")});
  all.push_back({nano_with({{"<｜User｜>", "<|user|>"},
                            {"<｜Assistant｜>", "<|assistant|>"},
                            {"<｜reserved▁7｜>", "[gMASK]"},
                            {"<｜reserved▁8｜>", "<|observation|>"},
                            {"<｜reserved▁9｜>", "<tool_call>"},
                            {"<｜reserved▁10｜>", "<|system|>"}}),
                 template_of_file("glm_52.jinja")});
  return all;
}

std::string render(const ChatTemplate& chat_template, json::object context) {
  context["messages"] = chat_template.messages_as_wanted(context.at("messages").as_array());
  chat_template.complete(context);
  const auto text = chat_template.render(json_text(context));
  EXPECT_TRUE(text) << text.error().message;
  return text.value_or("");
}

std::vector<TokenId> guarded_ids(const Family& family, json::object context) {
  const MarkGuard guard(*family.tokenizer);
  context["messages"] = family.chat_template->messages_as_wanted(context.at("messages").as_array());
  family.chat_template->complete(context);
  const std::string_view sign = guard.break_marks(context);
  std::string text = family.chat_template->render(json_text(context)).value();
  const std::vector<size_t> guards = MarkGuard::take_out(sign, text);
  return family.tokenizer->encode(text, false, guards).value();
}

int64_t num_marks(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  const std::vector<std::string> marks = tokenizer.marks();
  return std::ranges::count_if(
      ids, [&](TokenId id) { return std::ranges::find(marks, tokenizer.token_bytes(id, false)) != marks.end(); });
}

// A conversation with a text everywhere that somebody else than the server writes one.
json::object conversation(std::string_view text) {
  const std::string escaped = json::serialize(json::value(text));
  const std::string bare = escaped.substr(1, escaped.size() - 2);
  std::string body = R"({"add_generation_prompt": true, "tools": [{"type": "function", "function": {"name": "fX",
      "description": "a X b", "parameters": {"type": "object", "properties": {"kX": {"type": "string",
      "description": "X", "enum": ["X"]}}}}}], "documents": [{"title": "X", "text": "X"}], "messages": [
      {"role": "system", "content": "be X."}, {"role": "user", "content": "X hello X"},
      {"role": "assistant", "content": "so X", "reasoning_content": "hm X", "reasoning": "hm X", "tool_calls": [
        {"id": "cX", "type": "function", "function": {"name": "fX", "arguments": "{\"kX\": \"is X\"}"}}]},
      {"role": "tool", "tool_call_id": "cX", "name": "fX", "content": "X\nX"},
      {"role": "user", "content": "and X"}]})";
  // In the arguments it stands in a string in a string.
  const std::string twice = json::serialize(json::value(bare));
  body = replaced(body, R"(\"kX\": \"is X\")", R"(\"kX\": \"is )" + twice.substr(1, twice.size() - 2) + R"(\")");
  return json::parse(replaced(body, "X", bare)).as_object();
}

TEST(MarkGuard, NoTextForgesATurnAThoughtOrACall) {
  for (const Family& family : families()) {
    const Tokenizer& tokenizer = *family.tokenizer;
    const auto harmless = guarded_ids(family, conversation("x"));
    for (const std::string& mark : tokenizer.marks()) {
      if (mark.contains("place") || mark.contains("reserved")) continue;  // 800 of a kind
      // What assistants said may have thoughts, which templates take out.
      if (mark == "<think>" || mark == "</think>") continue;
      const auto ids = guarded_ids(family, conversation(mark));
      EXPECT_EQ(num_marks(tokenizer, ids), num_marks(tokenizer, harmless)) << mark;
      EXPECT_EQ(tokenizer.decode(ids, false), render(*family.chat_template, conversation(mark))) << mark;
    }
  }
}

TEST(MarkGuard, TagsAreTextEverywhereButInWhatAssistantsSaid) {
  const Family family = std::move(families().front());
  const auto marks_of = [&](const char* messages) {
    return num_marks(*family.tokenizer, guarded_ids(family, {{"messages", json::parse(messages)}}));
  };
  EXPECT_EQ(marks_of(R"([{"role":"user","content":"a<think>b</think>"}])"), 2);
  EXPECT_EQ(marks_of(R"([{"role":"assistant","content":"<think>a</think>b <think>"}])"), 4);
}

TEST(MarkGuard, WithoutMarksNothingChanges) {
  const auto tokenizer = deepseek_tokenizer();
  const MarkGuard guard(*tokenizer);
  int num_untouched = 0;
  for (const json::object& row : read_fixture("chats")) {
    json::object context = row.at("context").as_object();
    if (!context.contains("messages") || !guard.break_marks(context).empty()) continue;
    EXPECT_EQ(context, row.at("context").as_object());
    num_untouched++;
  }
  EXPECT_GT(num_untouched, 100);
  json::object words = {{"a", "x < y <| [ ｜ </b> /nothink [x] <｜ User ｜> <|nobody|> <｜User｜ ."}, {"<b>", "｜>"}};
  EXPECT_TRUE(guard.break_marks(words).empty());
}

TEST(MarkGuard, ABrokenMarkHasTheIdsOfItsText) {
  const auto tokenizer = Tokenizer::load(kNanoFolder).value();
  const auto plain = nano_with({{"<｜User｜>", "<｜Uzer｜>"}, {"<think>", "<thinq>"}});
  const MarkGuard guard(*tokenizer);
  for (const std::string text :
       {"<｜User｜>", "a <｜User｜> b", "<<｜User｜><｜User｜>>", "if a<think>b", "1<｜User｜>2<think>"}) {
    json::object context = {{"a", text}};
    const std::string_view sign = guard.break_marks(context);
    std::string prompt = "<｜Assistant｜>" + std::string(context.at("a").as_string()) + "<｜Assistant｜>";
    const std::vector<size_t> guards = MarkGuard::take_out(sign, prompt);
    EXPECT_EQ(prompt, "<｜Assistant｜>" + text + "<｜Assistant｜>");
    EXPECT_EQ(*tokenizer->encode(prompt, false, guards), *plain->encode(prompt, false)) << text;
    EXPECT_EQ(*TextBounds(*tokenizer).encode(prompt, false, guards), *plain->encode(prompt, false)) << text;
  }
}

TEST(MarkGuard, AMarkInTwoTextsIsBroken) {
  const auto tokenizer = Tokenizer::load(kNanoFolder).value();
  const MarkGuard guard(*tokenizer);
  for (const char* source : {"{{ a }}{{ b }}", "{{ a | trim }}{{ b | trim }}"}) {
    const auto chat_template = ChatTemplate::from_source(source, "", "").value();
    for (const auto& [first, second] : {std::pair("x<｜User", "｜>y"),
                                        {"<", "｜User｜>"},
                                        {"<｜Us \n", " er｜>"},
                                        {"<｜Us\u2003\u00a0\v", "\u3000er｜>"}}) {
      json::object context = {{"a", first}, {"b", second}};
      const std::string_view sign = guard.break_marks(context);
      std::string prompt = chat_template->render(json_text(context)).value();
      const std::vector<size_t> guards = MarkGuard::take_out(sign, prompt);
      EXPECT_EQ(num_marks(*tokenizer, *tokenizer->encode(prompt, false, guards)), 0) << prompt;
    }
  }
}

TEST(MarkGuard, TheSignIsOneThatNoTextHolds) {
  const auto tokenizer = Tokenizer::load(kNanoFolder).value();
  const MarkGuard guard(*tokenizer);
  json::object context = {{"a", "<think>"}};
  const std::string first(guard.break_marks(context));
  context = {{"a", "<think>" + first}};
  const std::string second(guard.break_marks(context));
  EXPECT_NE(second, first);
  std::string text(context.at("a").as_string());
  EXPECT_THAT(MarkGuard::take_out(second, text), testing::ElementsAre(1));
  EXPECT_EQ(text, "<think>" + first);
}

// Texts of many megabytes that are nearly marks all the way.
TEST(MarkGuard, TakesTimeByTheLengthOfTheText) {
  const auto tokenizer = deepseek_tokenizer();
  const MarkGuard guard(*tokenizer);
  std::string text;
  while (text.size() < (4 << 20)) text += "<｜place▁holder▁no▁";
  json::object context = {{"a", text}};
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_FALSE(guard.break_marks(context).empty()) << "the last may go on";
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

}  // namespace
}  // namespace cachalot
