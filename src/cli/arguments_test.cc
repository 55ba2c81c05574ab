#include "cli/arguments.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "base/folder_test_util.h"
#include "base/text.h"
#include "cli/commands.h"

namespace cachalot {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

using WordList = std::vector<std::string>;

// What the program makes of `cachalot serve WORDS` before it does anything.
struct Outcome {
  std::string error;  // "": none
  WordList words, notices;
};

Outcome try_command(const std::string& name, const WordList& words) {
  static const std::unique_ptr<CLI::App> known = make_program();  // to make one takes a while
  Result<Arguments> arguments = read_arguments(*known->get_subcommand(name), words);
  if (!arguments) return {arguments.error().message, {}, {}};
  Outcome outcome{"", arguments->words, arguments->notices};
  if (outcome.words == WordList{"--model=m"}) return outcome;
  const std::unique_ptr<CLI::App> program = make_program();
  // Another callback would take what the flags write to with the one that it replaces.
  program->get_subcommand(name)->parse_complete_callback([] { throw CLI::Success(); });
  WordList all = outcome.words;
  all.insert(all.begin(), name);
  std::ranges::reverse(all);
  try {
    program->parse(all);
  } catch (const CLI::Success&) {
    return outcome;
  } catch (const CLI::ParseError& error) {
    return {error.what(), {}, {}};
  }
  return outcome;
}
Outcome serve(WordList words) {
  words.insert(words.begin(), "m");
  return try_command("serve", words);
}

// A value of its kind by which a flag asks for something.
std::string fitting_value(const VllmFlag& flag) {
  static const std::map<std::string_view, std::string> kValues = {
      {"dtype", "bfloat16"},
      {"scheduling-policy", "priority"},
      {"reasoning-parser", "deepseek_r1"},
      {"tool-call-parser", "deepseek_v31"},
      {"log-level", "INFO"},
      {"model", "m"},
      {"data-parallel-backend", "ray"},
      {"eplb-config", R"({"window_size":1})"},
      {"allowed-origins", R"(["http://a"])"},
      {"allowed-methods", R"(["GET"])"},
      {"allowed-headers", R"(["*"])"},
  };
  if (const auto found = kValues.find(flag.name); found != kValues.end()) return found->second;
  switch (flag.value) {
    case FlagValue::kSwitch:
      return is_neutral(flag, "true") ? "false" : "true";
    case FlagValue::kText:
    case FlagValue::kOptional:
    case FlagValue::kList:
      return "x";
    case FlagValue::kWhole:
      return is_neutral(flag, "1") ? "2" : "1";
    case FlagValue::kReal:
      return "0.5";
    case FlagValue::kJson:
      return R"({"a":1})";
  }
  return "";
}

std::string underscored(std::string name) {
  std::ranges::replace(name, '-', '_');
  return name;
}

void expect_fate(const VllmFlag& flag, const std::string& value, const Outcome& outcome, const WordList& words) {
  SCOPED_TRACE(testing::PrintToString(words));
  switch (is_neutral(flag, value) ? FlagFate::kWorks : flag.fate) {
    case FlagFate::kWorks:
      EXPECT_EQ(outcome.error, "");
      EXPECT_THAT(outcome.notices, IsEmpty());
      break;
    case FlagFate::kTaken:
      EXPECT_EQ(outcome.error, "");
      EXPECT_THAT(outcome.notices, ElementsAre(HasSubstr(flag.sentence)));
      break;
    case FlagFate::kRefused:
      EXPECT_THAT(outcome.error, HasSubstr(flag.sentence));
      break;
  }
}

std::string read_whole_file(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// The list was printed by vLLM's own parser.
TEST(VllmFlags, AllOfVllmsAreInTheTableWithTheirShortForms) {
  std::ifstream list(CACHALOT_SOURCE_DIR "/tests/data/vllm_flags.txt");
  int num_names = 0;
  for (std::string line; std::getline(list, line);) {
    if (line.starts_with('#')) continue;
    std::istringstream words(line);
    std::string first;
    words >> first;
    const VllmFlag* flag = find_vllm_flag(first.substr(2));
    ASSERT_TRUE(flag) << line;
    num_names++;
    for (std::string word; words >> word;) {
      if (word.starts_with("--")) {
        EXPECT_TRUE(find_vllm_flag(word.substr(2))) << line;
      } else if (word.starts_with('-')) {
        EXPECT_EQ(find_short_vllm_flag(word), flag) << line;
      }
    }
  }
  EXPECT_EQ(num_names, 324);
}

TEST(VllmFlags, AreInOrderAndSayWhy) {
  EXPECT_TRUE(std::ranges::is_sorted(vllm_flags(), {}, &VllmFlag::name));
  for (const VllmFlag& flag : vllm_flags()) {
    EXPECT_TRUE(flag.fate == FlagFate::kWorks || !flag.sentence.empty()) << flag.name;
  }
}

TEST(VllmFlags, EachWorksIsTakenWithALineOrIsRefusedWithAReasonInAllSpellings) {
  for (const VllmFlag& flag : vllm_flags()) {
    if (flag.name == "config") continue;  // its file has tests of its own
    const std::string name(flag.name), value = fitting_value(flag);
    std::vector<WordList> spellings = {{"--" + name, value},
                                       {"--" + name + "=" + value},
                                       {"--" + underscored(name), value},
                                       {"--" + underscored(name) + "=" + value}};
    if (!flag.short_name.empty()) {
      spellings.push_back({std::string(flag.short_name), value});
      spellings.push_back({std::string(flag.short_name) + "=" + value});
    }
    if (flag.value == FlagValue::kSwitch) spellings.push_back({(value == "true" ? "--" : "--no-") + name});
    if (flag.value == FlagValue::kJson && value.starts_with('{')) {
      const std::string key = name == "eplb-config" ? ".window_size" : ".a";
      spellings.push_back({"--" + name + key, "1"});
      spellings.push_back({"--" + underscored(name) + key + "=1"});
    }
    for (const WordList& words : spellings) expect_fate(flag, value, serve(words), words);
  }
}

TEST(VllmFlags, NothingIsSaidWhereTheyAskForWhatHappensAnyway) {
  for (const VllmFlag& flag : vllm_flags()) {
    std::istringstream values{std::string(flag.neutral)};
    for (std::string value; std::getline(values, value, '|');) {
      const Outcome outcome = serve({"--" + std::string(flag.name), value});
      EXPECT_EQ(outcome.error, "") << flag.name << " " << value;
      EXPECT_THAT(outcome.notices, IsEmpty()) << flag.name << " " << value;
    }
    if (flag.value != FlagValue::kSwitch || flag.fate == FlagFate::kWorks || is_neutral(flag, "false")) continue;
    const Outcome outcome = serve({"--no-" + std::string(flag.name)});
    EXPECT_TRUE(!outcome.notices.empty() || !outcome.error.empty()) << flag.name;
  }
}

TEST(VllmFlags, AValueThatIsMissingOrOfAnotherKindIsSaid) {
  for (const VllmFlag& flag : vllm_flags()) {
    const std::string name = "--" + std::string(flag.name);
    if (flag.value == FlagValue::kSwitch) {
      EXPECT_THAT(serve({name + "=maybe"}).error, HasSubstr("'maybe': must be true or false")) << name;
    } else if (flag.value != FlagValue::kOptional) {
      EXPECT_THAT(serve({name}).error, HasSubstr(name + ": a value is missing")) << name;
      EXPECT_THAT(serve({name, "--port", "1"}).error, HasSubstr(name + ": a value is missing before --port")) << name;
    }
    const std::string own = "--" + std::string(flag.own_name.empty() ? flag.name : flag.own_name);
    if (flag.value == FlagValue::kWhole || flag.value == FlagValue::kReal) {
      EXPECT_THAT(serve({name, "many"}).error, testing::AllOf(HasSubstr(own), HasSubstr("'many'"))) << name;
    }
    if (flag.value == FlagValue::kJson) {
      EXPECT_THAT(serve({name, "{a"}).error, testing::AllOf(HasSubstr(name), HasSubstr("JSON"))) << name;
    }
  }
}

TEST(VllmFlags, TheDocumentHasTheTable) {
  const std::string path = CACHALOT_SOURCE_DIR "/docs/vllm-flags.md", table = vllm_flags_document();
  const std::string fresh = CACHALOT_BINARY_DIR "/vllm_flags_table.md";
  std::ofstream(fresh) << table;
  EXPECT_TRUE(read_whole_file(path).contains(table)) << path << " must hold what is now in " << fresh;
}

TEST(Arguments, NumbersMayHaveSuffixes) {
  EXPECT_THAT(serve({"--max-model-len", "4k"}).error, "");
  EXPECT_THAT(serve({"--max-num-batched-tokens", "1.5k", "--max-num-queued-tokens=1M"}).error, "");
  EXPECT_THAT(serve({"--max-model-len", "1.5K"}).error, HasSubstr("--max-model-len '1.5K': must be a whole number"));
  EXPECT_EQ(serve({"--max-model-len", "auto", "--seed", "None"}).error, "");
  EXPECT_EQ(serve({"--max-model-len", "-1"}).error, "");
}

TEST(Arguments, WrongValuesAreNamedWithTheirRange) {
  EXPECT_THAT(serve({"--port", "99999"}).error, "--port '99999': must be a whole number from 0 to 65535");
  EXPECT_THAT(serve({"--port", "abc"}).error, "--port 'abc': must be a whole number from 0 to 65535");
  EXPECT_THAT(serve({"-tp", "p"}).error, "--tensor-parallel-size 'p': must be a whole number from 1 to 1024");
  EXPECT_THAT(serve({"--gpu-memory-utilization", "1.5"}).error,
              "--gpu-memory-utilization '1.5': must be a number from 0.01 to 1");
  EXPECT_THAT(serve({"--dtype", "int3"}).error, HasSubstr("\"int3\" is not one of auto, bfloat16"));
  EXPECT_THAT(serve({"--reasoning-parser", "granite"}).error, HasSubstr("deepseek_r1"));
  EXPECT_THAT(serve({"--tool-call-parser", "hermes"}).error, HasSubstr("deepseek_v31"));
}

TEST(Arguments, ShortFormsAreVllms) {
  EXPECT_THAT(
      serve({"-tp", "2", "-dp=4", "-ep"}).words,
      ElementsAre("--tensor-parallel-size=2", "--data-parallel-size=4", "--enable-expert-parallel", "--model=m"));
  EXPECT_THAT(serve({"-t4"}).words, ElementsAre("-t4", "--model=m"));
  for (const WordList& words : {WordList{"-O3"}, WordList{"-O", "3"}, WordList{"-O=3"}, WordList{"-O.mode=3"},
                                WordList{"-cc.a.b", "1"}, WordList{"-sc.method", "mtp"}}) {
    const Outcome outcome = serve(words);
    EXPECT_EQ(outcome.error, "") << words[0];
    EXPECT_EQ(outcome.notices.size(), 1U) << words[0];
  }
}

TEST(Arguments, JsonComesInPartsToo) {
  EXPECT_THAT(
      serve({"--override_generation_config.temperature", "0.5", "--override-generation-config.top_p=0.9"}).words,
      ElementsAre(R"(--override-generation-config={"temperature":5E-1,"top_p":9E-1})", "--model=m"));
  EXPECT_THAT(serve({"--default-chat-template-kwargs.a.b", "x", "--default-chat-template-kwargs", R"({"c": [1]})",
                     "--default-chat-template-kwargs.d+", "1,2"})
                  .words,
              ElementsAre(R"(--default-chat-template-kwargs={"a":{"b":"x"},"c":[1],"d":[1,2]})", "--model=m"));
  EXPECT_THAT(serve({"--kv-transfer-config.kv_role", "kv_both"}).error,
              HasSubstr(R"(--kv-transfer-config '{"kv_role":"kv_both"}' cannot be had)"));
  std::string deep = "--speculative-config";
  for (int idx = 0; idx < 10'000; idx++) deep += ".a";
  EXPECT_THAT(serve({deep, "1"}).error, HasSubstr("more than 32 parts"));
}

TEST(Arguments, TheModelIsTheWordBehindServe) {
  EXPECT_THAT(try_command("serve", {"a/b", "--port", "0"}).words, ElementsAre("--port=0", "--model=a/b"));
  EXPECT_THAT(try_command("serve", {"--port", "0", "a/b", "--model", "a/b"}).words,
              ElementsAre("--port=0", "--model=a/b"));
  EXPECT_EQ(try_command("serve", {"a", "--model=b"}).error, "two models: 'a', and --model 'b'");
  EXPECT_THAT(try_command("serve", {"a", "b"}).error, "not expected behind the model 'a': b");
  EXPECT_THAT(try_command("serve", {"--port", "0"}).error, HasSubstr("cachalot serve FOLDER"));
}

TEST(Arguments, OfWhatIsGivenTwiceTheLastHolds) {
  const Outcome outcome =
      serve({"--port", "1", "--port", "2", "--enable-prefix-caching", "--no-enable-prefix-caching"});
  EXPECT_THAT(outcome.words, ElementsAre("--port=2", "--no-enable-prefix-caching", "--model=m"));
  EXPECT_THAT(outcome.notices, ElementsAre("--port is given twice, and the last holds: 2"));
  EXPECT_THAT(serve({"--enable-prefix-caching=false"}).words, ElementsAre("--no-enable-prefix-caching", "--model=m"));
}

TEST(Arguments, AnUnknownFlagIsNamedWithTheNearest) {
  EXPECT_EQ(serve({"--max-modle-len", "8"}).error,
            "--max-modle-len: no such flag of `cachalot serve`; the nearest is --max-model-len");
  EXPECT_THAT(serve({"--pipeline-parallel-sise=2"}).error, HasSubstr("the nearest is --pipeline-parallel-size"));
  EXPECT_EQ(serve({"--zzzzzzzz"}).error, "--zzzzzzzz: no such flag of `cachalot serve`");
  EXPECT_THAT(serve({"-z"}).error, HasSubstr("-z: no such flag"));
  EXPECT_THAT(try_command("router", {"--prefix-entrys", "8"}).error, HasSubstr("the nearest is --prefix-entries"));
  EXPECT_THAT(try_command("eval", {"--model", "m", "--questions", "q", "--middleware", "x"}).error,
              HasSubstr("cannot be had"));
}

TEST(Arguments, ChatJoinsItsWords) {
  EXPECT_THAT(try_command("chat", {"what", "does", "serve", "do"}).words, ElementsAre("--prompt=what does serve do"));
  EXPECT_THAT(try_command("chat", {"--max_tokens", "5", "hello"}).words,
              ElementsAre("--max-tokens=5", "--prompt=hello"));
  EXPECT_THAT(try_command("chat", {"--prompt", "a", "b"}).error, HasSubstr("two questions"));
}

class ConfigFile : public testing::Test {
 protected:
  std::string write(const std::string& text) {
    const std::string path = folder_.path("flags.yaml");
    std::ofstream(path) << text;
    return path;
  }

 private:
  const TestFolder folder_;
};

TEST_F(ConfigFile, HoldsFlagsThatThoseOfTheCommandLineGoBefore) {
  const std::string path = write(
      "model: a/b\nport: 1234\ntensor_parallel_size: 2\nenable-prefix-caching: false\nserved-model-name: [x, y]\n"
      "override-generation-config: {temperature: 0.5}\nenforce-eager: false\nswap-space: 4\n");
  const Outcome outcome = try_command("serve", {"--config", path, "--port", "5", "--tensor-parallel-size=4"});
  EXPECT_EQ(outcome.error, "");
  EXPECT_THAT(outcome.words,
              testing::UnorderedElementsAre("--model=a/b", "--no-enable-prefix-caching", "--served-model-name=x",
                                            "--served-model-name=y", "--port=5", "--tensor-parallel-size=4",
                                            R"(--override-generation-config={"temperature":5E-1})"));
  EXPECT_THAT(outcome.notices, testing::Contains(HasSubstr("flags.yaml:8: --swap-space is accepted")));
  EXPECT_THAT(try_command("serve", {"c", "--config=" + path}).words, testing::Contains("--model=c"));
}

TEST_F(ConfigFile, ErrorsNameFileAndLine) {
  EXPECT_THAT(
      serve({"--config", write("port: 1\nmax-modle-len: 5\n")}).error,
      HasSubstr("flags.yaml:2: --max-modle-len: no such flag of `cachalot serve`; the nearest is --max-model-len"));
  EXPECT_THAT(serve({"--config", write("pipeline-parallel-size: 2\n")}).error, HasSubstr("flags.yaml:1: "));
  EXPECT_THAT(serve({"--config", write("a: [\n")}).error, HasSubstr("flags.yaml:"));
  EXPECT_THAT(serve({"--config", write("- a\n")}).error, HasSubstr("must be a mapping"));
  EXPECT_THAT(serve({"--config", "/nowhere.yaml"}).error,
              HasSubstr("--config: /nowhere.yaml: cannot open: No such file"));
  EXPECT_THAT(serve({"--config", "/dev/zero"}).error, HasSubstr("--config: /dev/zero is a device"));
  const std::string large = write("");
  std::filesystem::resize_file(large, 10'000'000'000);
  EXPECT_THAT(serve({"--config", large}).error,
              HasSubstr("flags.yaml has 10000000000 bytes; no file of this kind has more than 4194304"));
}

TEST_F(ConfigFile, AliasesStandForNoMoreThanAFileMayHold) {
  std::string bomb = "a: &a0 [x, x, x, x, x, x, x, x]\n";
  for (int level = 1; level < 12; level++)
    bomb += fmt::format("b{0}: &a{0} [*a{1}, *a{1}, *a{1}, *a{1}, *a{1}, *a{1}, *a{1}, *a{1}]\n", level, level - 1);
  EXPECT_THAT(serve({"--config", write("override-generation-config: {temperature: &a [0.5, *a]}\n")}).error,
              HasSubstr("flags.yaml: its aliases hold more than 100000 values, or one another"));
  EXPECT_THAT(serve({"--config", write(bomb)}).error, HasSubstr("its aliases hold more than"));
}

}  // namespace
}  // namespace cachalot
