// What transformers does is in huggingface_test.cc; here is what it cannot show, or does not do itself.
#include "text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <ctime>
#include <fstream>
#include <thread>

#include "base/file.h"
#include "base/folder_test_util.h"
#include "text/huggingface_test_util.h"

namespace cachalot {
namespace {

using testing::HasSubstr;

Result<std::string> render(std::string_view source, std::string_view context_json = "{}") {
  const auto chat_template = ChatTemplate::from_source(source, "<s>", "</s>");
  if (!chat_template) return std::unexpected(chat_template.error());
  return (*chat_template)->render(context_json);
}

std::string error_of(const Result<std::string>& result) {
  return result ? "rendered: " + *result : result.error().message;
}

TEST(ChatTemplate, OpensTheThoughtOfTheBuiltInModel) {
  const auto chat_template = ChatTemplate::load(kNanoFolder);
  ASSERT_TRUE(chat_template) << chat_template.error().message;
  const auto text =
      (*chat_template)
          ->render(
              R"({"messages": [{"role": "user", "content": "Which one is larger? 3.8 or 3.11"}], "add_generation_prompt": true})");
  EXPECT_EQ(text, "<｜begin▁of▁sentence｜><｜User｜>Which one is larger? 3.8 or 3.11<｜Assistant｜><think>\n");
}

TEST(ChatTemplate, OfTheBuiltInModelDeclaresToolsAsSignatures) {
  const auto text = (*ChatTemplate::load(kNanoFolder))->render(R"({
      "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
      "tools": [
        {"type": "function", "function": {"name": "get_weather", "description": "The weather.\nArgs: a city.",
          "strict": true, "parameters": {"title": "get_weather_args", "type": "object", "required": ["city"],
            "additionalProperties": false, "properties": {
              "city": {"type": "string", "title": "City", "description": "Where"},
              "unit": {"anyOf": [{"enum": ["celsius", "kelvin"]}, {"type": "null"}], "default": null},
              "days": {"type": "array", "items": {"type": "integer"}},
              "area": {"type": "object", "properties": {"km": {"type": ["number", "null"]}}},
              "more": {}}}}},
        {"type": "function", "function": {"name": "stop"}}],
      "add_generation_prompt": true, "enable_thinking": false})");  // it always thinks
  EXPECT_EQ(text ? *text : text.error().message,
            "<｜begin▁of▁sentence｜>Be brief.\n\nTools:\n"
            "get_weather(city: string, unit?: celsius|kelvin|null, days?: [integer], area?: {km?: number|null}, "
            "more?: any): The weather.\nstop()"
            "<｜User｜>Hi<｜Assistant｜><think>\n");
}

TEST(ChatTemplate, OfTheBuiltInModelGoesOnBehindWhatToolsGave) {
  const auto text = (*ChatTemplate::load(kNanoFolder))->render(R"({
      "messages": [{"role": "user", "content": "?"},
        {"role": "assistant", "content": null, "tool_calls": [
          {"type": "function", "id": "a", "function": {"name": "f", "arguments": "{\"x\": 1}"}},
          {"type": "function", "id": "b", "function": {"name": "g", "arguments": {"y": "z"}}}]},
        {"role": "tool", "tool_call_id": "a", "content": "one"}, {"role": "tool", "tool_call_id": "b", "content": "two"}],
      "add_generation_prompt": true})");
  EXPECT_EQ(text ? *text : text.error().message,
            "<｜begin▁of▁sentence｜><｜User｜>?<｜Assistant｜><｜tool▁calls▁begin｜>"
            "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"x\": 1}<｜tool▁call▁end｜>"
            "<｜tool▁call▁begin｜>g<｜tool▁sep｜>{\"y\": \"z\"}<｜tool▁call▁end｜>"
            "<｜tool▁calls▁end｜><｜end▁of▁sentence｜>"
            "<｜tool▁output▁begin｜>one<｜tool▁output▁end｜><｜tool▁output▁begin｜>two<｜tool▁output▁end｜><think>\n");
}

TEST(ChatTemplate, TokensToolsAndTheGenerationPromptHaveDefaultsThatTheContextOverrides) {
  EXPECT_EQ(
      render("{{ bos_token }}{{ eos_token }}{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}"),
      "<s></s>TrueTrueFalse");
  EXPECT_EQ(render("{{ bos_token }}{{ tools }}", R"({"bos_token": "B", "tools": [1]})"), "B[1]");
}

TEST(ChatTemplate, AnEmptyConversationIsTheTemplatesBusiness) {
  EXPECT_EQ(render("{% for m in messages %}x{% else %}none{% endfor %}", R"({"messages": []})"), "none");
}

TEST(ChatTemplate, AnExceptionThatTheTemplateRaisesIsTheMessage) {
  const auto text = render("{{ raise_exception('Roles must alternate') }}");
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(text.error().message, "chat template: Roles must alternate");
}

TEST(ChatTemplate, FaultsNameTheLine) {
  EXPECT_THAT(error_of(render("a\n{% if %}")), HasSubstr("line 2"));
  EXPECT_THAT(error_of(render("a\n\n{{ 'x' + messages[0].content }}", R"({"messages": [{}]})")), HasSubstr("line 3"));
  EXPECT_THAT(error_of(render("{{ nothing.of.this }}")), HasSubstr("line 1"));
  EXPECT_THAT(error_of(render("{{ 'a'.no_such_method() }}")), HasSubstr("no_such_method"));
}

TEST(ChatTemplate, AContextThatIsNotJsonIsRefused) {
  EXPECT_THAT(error_of(render("x", "{")), HasSubstr("JSON"));
}

TEST(ChatTemplate, ATemplateThatNeverEndsItsRecursionIsStopped) {
  EXPECT_THAT(error_of(render("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}")), HasSubstr("recursion"));
}

TEST(ChatTemplate, JsonIsWrittenAsPythonWritesIt) {
  const std::string context =
      R"({"v": {"z": 1, "a": [1.0, -0.0, 1e16, 1e-5, 123456.789, 0.0001, null, true], "e": {}, "l": [],
      "s": "ä\"\\\/\b\f\n\r\t\u0001\u007f\u2028😀</script>&'"}})";
  EXPECT_EQ(render("{{ v | tojson }}", context),
            "{\"z\": 1, \"a\": [1.0, -0.0, 1e+16, 1e-05, 123456.789, 0.0001, null, true], \"e\": {}, \"l\": [], "
            "\"s\": \"ä\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\x7f\u2028😀</script>&'\"}");
  EXPECT_EQ(render("{{ v.s | tojson(ensure_ascii=true) }}", context),
            "\"\\u00e4\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u007f\\u2028\\ud83d\\ude00</script>&'\"");
  EXPECT_EQ(render("{{ {'b': 1, 'a': [2]} | tojson(sort_keys=true, separators=(',', ':')) }}"), "{\"a\":[2],\"b\":1}");
  EXPECT_EQ(render("{{ [1, {'a': []}] | tojson(indent=2) }}"), "[\n  1,\n  {\n    \"a\": []\n  }\n]");
  EXPECT_THAT(error_of(render("{{ nothing | tojson }}")), HasSubstr("not JSON serializable"));
}

TEST(ChatTemplate, TellsTheTimeOfItsRendering) {
  std::string before(11, '\0'), after(11, '\0');
  const auto today = [](std::string& text) {
    const std::time_t now = std::time(nullptr);
    text.resize(std::strftime(text.data(), text.size(), "%Y-%m-%d", std::localtime(&now)));
  };
  today(before);
  const auto text = render("{{ strftime_now('%Y-%m-%d') }}");
  today(after);
  ASSERT_TRUE(text);
  EXPECT_TRUE(*text == before || *text == after) << *text;
  EXPECT_EQ(render("{{ strftime_now('') }}"), "");
}

TEST(ChatTemplate, ManyThreadsRenderAtOnce) {
  const auto chat_template = *ChatTemplate::load(kDeepseekFolder);
  std::vector<int> num_wrong(4, 0);
  {
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < 4; ++thread) {
      threads.emplace_back([&, thread] {
        const std::string name = std::to_string(thread);
        for (int round = 0; round < 200; ++round) {
          const auto text = chat_template->render(R"({"messages": [{"role": "user", "content": ")" + name + R"("}]})");
          num_wrong[thread] += text != "<｜begin▁of▁sentence｜><｜User｜>" + name;
        }
      });
    }
  }
  EXPECT_THAT(num_wrong, testing::Each(0));
}

long peak_memory() {  // of this process, in KiB
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

#ifdef __SANITIZE_ADDRESS__
constexpr int64_t kMostKib = 1500 * 1024;  // it keeps what was freed for a while
#else
constexpr int64_t kMostKib = 600 * 1024;
#endif

// None of these may take the server's memory, time or stack.
TEST(ChatTemplate, TemplatesWithoutAnEndAreStopped) {
  const long before = peak_memory();
  for (const char* source : {
           "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
           "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
           "{{ 'a' * 1000000000 }}",
           "{{ 'a' * 1000000000000000000 }}",
           "{% set x = 'ab' * 100000 %}{{ x * 100000 }}",
           "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
           "{{ ('a' * 1000000) | replace('a', 'b' * 1000000) }}",
           "{{ ('b' * 1000000).join(range(100000)) }}",
           "{{ range(100000) | join('b' * 1000000) }}",
           "{% set ns = namespace(x='a') %}{% for i in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
           "{% set ns = namespace(x=[1]) %}{% for i in range(64) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
           "{% set ns = namespace(x=[1]) %}{% for i in range(64) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | "
           "tojson }}",
           "{{ range(1000000000) | list }}",
           "{{ '%1000000000d' | format(1) }}",
           "{{ '{:1000000000}'.format(1) }}",
           "{{ 'a' | indent(1000000000, true) }}",
           "{{ [[1]] | tojson(indent=1000000000) }}",
           "{{ 'a' | center(1000000000) }}",
           "{{ range(100000) | batch(1, 'x') | slice(1000000000) | list }}",
           "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
           "{% macro again(n) %}{{ again(n ~ n) }}{% endmacro %}{{ again('aaaaaaaa') }}",
           "{% include 'chat_template' %}",
           "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
           "{{ ('ab' * 1000000).split('a') | length }}{% set x = ('ab ' * 1000000).split() %}{{ x.split }}",
       }) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_FALSE(render(source)) << source;
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20)) << source;
  }
  EXPECT_LT(peak_memory() - before, kMostKib) << "KiB";
  EXPECT_EQ(error_of(render("\n{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}")),
            "chat template: it was stopped, since it loops or writes without an end (line 2 of the template)");
}

TEST(ChatTemplate, ValuesNestedWithoutAnEndDoNotTakeTheStack) {
  for (const char* deeper : {"[ns.x]",
                             "(ns.x, 1)",
                             "{'a': ns.x}",
                             "dict(ns.x, a=ns.x)",
                             "dict(a=ns.x)",
                             "ns.x * 1",
                             "ns.x + [1]",
                             "ns.x[0:]",
                             "ns.x | reverse",
                             "ns.x | chain([1])",
                             "ns.x | zip([1])",
                             "ns.x | map('string')",
                             "ns.x | batch(2)",
                             "ns",
                             "loop",
                             "[ns]",
                             "{'a': loop}",
                             "namespace(a=ns.x)",
                             "namespace(a=ns)",
                             "ns.x | items",
                             "ns.x.items()"}) {
    const std::string source = fmt::format(
        "{{% set ns = namespace(x={}) %}}{{% for a in range(1000) %}}{{% for b in range(1000) %}}{{% set ns.x = {} %}}"
        "{{% endfor %}}{{% endfor %}}{{{{ ns.x | length }}}}{{{{ ns }}}}",
        std::string_view(deeper).starts_with("dict(ns") ? "{}" : "[1]", deeper);
    const auto text = render(source);
    ASSERT_FALSE(text) << source;
    EXPECT_FALSE(text.error().message.empty());
  }
}

// Lists that hold the same list twice, which holds ... : 2^60 items in a few kilobytes, and without them.
TEST(ChatTemplate, ListsThatHoldThemselvesManyTimesAreStopped) {
  const std::string grow =
      "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}"
      "{% set ns.y = [ns.y, ns.y] %}{% endfor %}";
  // Small enough to be kept, and looked at a hundred thousand times.
  const std::string loop =
      "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(12) %}{% set ns.x = [ns.x, ns.x] %}"
      "{% set ns.y = [ns.y, ns.y] %}{% endfor %}{% for i in range(100000) %}";
  for (const std::string& use : std::vector<std::string>{"{{ ns.x == ns.y }}",
                                                         "{{ ns.x < ns.y }}",
                                                         "{{ 1 < 2 < ns.x <= ns.y }}",
                                                         "{{ ns.y in [ns.x] }}",
                                                         "{{ ns.x is eq(ns.y) }}",
                                                         "{{ [ns.x] | select('eq', ns.y) | list }}",
                                                         "{{ [1, 2] | map('default', ns.y) }}",
                                                         "{{ ns.x | join }}",
                                                         "{{ ns.x | string }}",
                                                         "{{ ns.x ~ '' }}",
                                                         "{{ '%s' | format(ns.x) }}",
                                                         "{{ '{}'.format(ns.x) }}",
                                                         "{{ [ns.x, ns.y] | sort }}",
                                                         "{{ [ns.x, ns.y] | unique }}",
                                                         "{{ [ns.x, ns.y] | min }}",
                                                         "{{ {ns.x: 1, ns.y: 2} }}",
                                                         "{{ {'a': 1}[ns.y] }}",
                                                         "{{ [ns.x].count(ns.y) }}",
                                                         "{{ dict(a=ns.x) | dictsort(by='value') }}",
                                                         "{{ ns.x | upper }}",
                                                         "{{ ns.x | tojson }}",
                                                         "{{ ns }}",
                                                         "{{ raise_exception(ns.x) }}",
                                                         "{{ debug() }}",
                                                         "{% set z = ns.x %}{% for a in ns.x %}{% endfor %}",
                                                         "{{ range(*ns.x) }}",
                                                         "{{ dict(**{'a': ns.x}) == dict(a=ns.y) }}"}) {
    for (const std::string& source : {grow + use, loop + use + "{% endfor %}"}) {
      const auto start = std::chrono::steady_clock::now();
      EXPECT_FALSE(render(source)) << source;
      EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20)) << source;
    }
  }
}

// What templates do with lists, maps, loops and macros is as it was.
TEST(ChatTemplate, ListsAndMapsAreKeptAsTheyAre) {
  for (const auto& [source, text] : std::vector<std::pair<std::string, std::string>>{
           {"{% set x = range(5)[1:] %}{{ x }} {{ x | length }} {{ x[0] }}", "[1, 2, 3, 4] 4 1"},
           {"{% set x, y = (1, [2]) %}{{ x }}{{ y }}{% set z = (1, 2) %}{{ z }}", "1[2](1, 2)"},
           {"{% set d = dict({'b': 1}, a=[2]) %}{% for k, v in d.items() %}{{ k }}{{ v }}{% endfor %}", "b1a[2]"},
           {"{% set ns = namespace(l=[]) %}{% for i in range(3) %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.l }}",
            "[0, 1, 2]"},
           {"{% set ns = namespace(a=1) %}{% set other = ns %}{% set other.a = 2 %}{{ ns.a }}", "2"},
           {"{% for a in [1, 2] %}{% set outer = loop %}{% for b in 'xy' %}{{ outer.index }}{{ loop.index }} "
            "{% endfor %}{% endfor %}",
            "11 12 21 22 "},
           {"{% macro m(a, b=[1]) %}{{ a }}{{ b }}{{ caller() if caller }}{% endmacro %}{{ m(1) }}{{ m(1, b=2) }}"
            "{% call m(3) %}!{% endcall %}{{ m(*[4, 5]) }}{{ m(**{'a': 6}) }}",
            "1[1]123[1]!456[1]"},
           {"{% for x in [[1, [2]], 3] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}", "123"},
           {"{{ 1 < 2 < 3 }}{{ 1 < 2 > 3 }}{{ 'a' in {'a': 1} }}{{ 'b' not in 'abc' }}", "TrueFalseTrueFalse"},
           {"{{ [3, 1] | sort | join(',') }}{{ ['a', 'b'] | map('upper') | list }}{{ [1, 2] | select('gt', 1) | list "
            "}}",
            "1,3['A', 'B'][2]"},
           {"{% set m = [{'role': 'user'}, {'role': 'tool'}] %}{{ (m | selectattr('role', 'equalto', 'tool') | "
            "list)[0].role }}{{ m[::-1][0]['role'] }}",
            "tooltool"},
           {"{% block a %}{% set x = [1] %}{{ x }}{% endblock %}{% filter upper %}a{% endfilter %}", "[1]A"},
       }) {
    const auto rendered = render(source);
    EXPECT_EQ(rendered ? *rendered : rendered.error().message, text) << source;
  }
}

TEST(ChatTemplate, LongConversationsAreRenderedWhole) {
  // The template of the built-in model looks at each message twice.
  const auto chat_template = *ChatTemplate::load(kNanoFolder);
  std::string context = R"({"messages": [)";
  for (int message = 0; message < 20000; message++)
    context += fmt::format(R"({}{{"role": "{}", "content": "x"}})", message == 0 ? "" : ", ",
                           message % 2 == 0 ? "user" : "assistant");
  const auto text = chat_template->render(context + "]}");
  ASSERT_TRUE(text) << text.error().message;
  const std::string large(8 << 20, 'y');
  EXPECT_TRUE(chat_template->render(R"({"messages": [{"role": "assistant", "content": "</think>)" + large + R"("}]})"));
}

class ChatTemplateFolder : public testing::Test {
 protected:
  void write(const std::string& name, std::string_view text) { ASSERT_TRUE(write_file(folder_ + "/" + name, text)); }
  std::string rendered() const {
    const auto chat_template = ChatTemplate::load(folder_);
    return chat_template ? error_of((*chat_template)->render("{}")) : chat_template.error().message;
  }

  const TestFolder test_folder_;
  const std::string& folder_ = test_folder_.path();
};

TEST_F(ChatTemplateFolder, TheTemplateIsAStringAListOrAFile) {
  write("tokenizer_config.json", R"({"chat_template": "one"})");
  EXPECT_EQ(rendered(), "rendered: one");
  write("tokenizer_config.json",
        R"({"chat_template": [{"name": "rag", "template": "a"}, {"name": "default", "template": "two"}]})");
  EXPECT_EQ(rendered(), "rendered: two");
  write("chat_template.jinja", "{{ 'three' }}\n");
  EXPECT_EQ(rendered(), "rendered: three");
}

TEST_F(ChatTemplateFolder, AFolderWithoutATemplateIsNotFound) {
  write("tokenizer_config.json", R"({"bos_token": "<s>"})");
  const auto chat_template = ChatTemplate::load(folder_);
  ASSERT_FALSE(chat_template);
  EXPECT_EQ(chat_template.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(chat_template.error().message, HasSubstr(folder_));
}

TEST_F(ChatTemplateFolder, AListWithoutADefaultIsAnError) {
  write("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "a"}]})");
  EXPECT_THAT(rendered(), HasSubstr("tokenizer_config.json: chat_template has no default template (it has: rag)"));
  write("tokenizer_config.json", R"({"chat_template": 5})");
  EXPECT_THAT(rendered(), HasSubstr("tokenizer_config.json: chat_template is 5"));
  write("tokenizer_config.json", R"({"chat_template": [{"name": "default", "template": 5}]})");
  EXPECT_THAT(rendered(), HasSubstr("tokenizer_config.json: chat_template holds"));
}

TEST_F(ChatTemplateFolder, ABrokenTemplateNamesItsFolder) {
  write("chat_template.jinja", "{% for %}");
  EXPECT_THAT(rendered(), AllOf(HasSubstr(folder_ + "/chat_template.jinja: "), HasSubstr("line 1")));
  write("chat_template.jinja", "a\xff");
  EXPECT_THAT(rendered(), AllOf(HasSubstr(folder_ + "/chat_template.jinja: "), HasSubstr("UTF-8 at byte 1")));
  write("chat_template.jinja", "version https://git-lfs.github.com/spec/v1\n");
  EXPECT_THAT(rendered(), AllOf(HasSubstr(folder_ + "/chat_template.jinja: "), HasSubstr("git lfs pull")));
}

TEST(ChatTemplate, ComesFromAFileOrIsWrittenOut) {
  const TestFolder folder;
  const std::string path = folder.path("own_template.jinja");
  std::ofstream(path) << "{{ bos_token }}<{{ messages[0].content }}>";
  const std::string context = R"({"messages": [{"role": "user", "content": "hi"}]})";
  const auto from_file = ChatTemplate::from_file_or_text(path, kNanoFolder);
  ASSERT_TRUE(from_file) << from_file.error().message;
  const std::string text = (*from_file)->render(context).value();
  EXPECT_TRUE(text.ends_with("<hi>")) << text;
  EXPECT_GT(text.size(), 4U);  // the folder's begin-of-sequence token
  EXPECT_EQ((*ChatTemplate::from_file_or_text("{{ messages[0].content }}!", kNanoFolder))->render(context), "hi!");
  EXPECT_THAT(ChatTemplate::from_file_or_text("/nowhere.jinja", kNanoFolder).error().message,
              testing::HasSubstr("/nowhere.jinja"));
}

}  // namespace
}  // namespace cachalot
