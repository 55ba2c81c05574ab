#include <gmock/gmock.h>

#include "cli/commands.h"

namespace cachalot {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;

struct Ran {
  int status;
  std::string out, err;
};

Ran run(const std::vector<std::string>& words) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const int status = run_program(words);
  std::fflush(stdout);
  std::string out = testing::internal::GetCapturedStdout();
  return {status, out, testing::internal::GetCapturedStderr()};
}

TEST(Program, AnUnknownCommandIsNamedWithTheNearest) {
  EXPECT_EQ(run({"servee"}).status, 2);
  EXPECT_THAT(run({"servee"}).err, HasSubstr("'servee' is no command of `cachalot`; the nearest is serve"));
  EXPECT_THAT(run({"bench", "modle"}).err, HasSubstr("of `cachalot bench`; the nearest is model"));
  EXPECT_THAT(run({"help", "chta"}).err, HasSubstr("the nearest is chat"));
}

TEST(Program, HelpAndVersionAreCommandsToo) {
  for (const std::vector<std::string>& words : {std::vector<std::string>{"help"}, {"--help"}, {"-h"}}) {
    EXPECT_EQ(run(words).status, 0);
    EXPECT_THAT(run(words).out, HasSubstr("serve"));
  }
  EXPECT_THAT(run({"help", "bench", "model"}).out, HasSubstr("cachalot bench model [OPTIONS]"));
  EXPECT_EQ(run({"serve", "--help"}).status, 0);
  EXPECT_THAT(run({"serve", "--help"}).out, HasSubstr("--max-model-len"));
  EXPECT_THAT(run({"version"}).out, MatchesRegex("cachalot [0-9.]+\n"));
  EXPECT_EQ(run({"--version"}).out, run({"version"}).out);
}

TEST(Program, NothingAtAllShowsTheCommands) {
  EXPECT_EQ(run({}).status, 2);
  EXPECT_THAT(run({}).err, HasSubstr("  serve "));
  EXPECT_EQ(run({"bench"}).status, 2);
  EXPECT_THAT(run({"bench"}).err, HasSubstr("`cachalot bench` needs one of these"));
}

TEST(Program, WordsThatMakeNoSenseHaveStatusTwo) {
  for (const std::vector<std::string>& words : {std::vector<std::string>{"serve"},
                                                {"serve", "m", "--port", "99999"},
                                                {"serve", "m", "--foo"},
                                                {"serve", "m", "--dtype", "int3"},
                                                {"serve", "m", "-pp", "2"},
                                                {"router", "--port"},
                                                {"eval"},
                                                {"logits", "--tokens", "1"},
                                                {"up", "a", "b"},
                                                {"down", "--nwo"},
                                                {"serve", "m", "--config", "/nowhere"},
                                                {"--log-level", "loud", "down"},
                                                {"synth", "--config", "c", "--out", "o", "--quant", "int3"}}) {
    const Ran got = run(words);
    EXPECT_EQ(got.status, 2) << testing::PrintToString(words) << got.err;
    EXPECT_THAT(got.err, testing::StartsWith("cachalot: "));
  }
}

TEST(Program, LinesAboutAcceptedFlagsHaveTheLogsFormat) {
  const Ran got = run({"logits", "--model", "/nowhere", "--tokens", "1", "-sc.method", "mtp"});
  EXPECT_EQ(got.status, 1);
  EXPECT_THAT(got.err, HasSubstr(" I --speculative-config is accepted and changes nothing: "));
  EXPECT_THAT(run({"logits", "--model", "/nowhere", "--tokens", "1", "-sc.method", "mtp", "--log-level=ERROR"}).err,
              testing::Not(HasSubstr("is accepted")));
}

TEST(Program, QuantizeSaysWhatIsWrongWithACalibration) {
  const std::string nano = std::string(CACHALOT_SOURCE_DIR) + "/models/nano";
  const std::vector<std::string> words{"quantize", "--model", nano, "--out", testing::TempDir() + "no-such-model"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), words.begin(), words.end());
    return run(more);
  };
  EXPECT_EQ(with({"--quant", "fp8", "--calibrate", "t.txt"}).status, 1);
  EXPECT_THAT(with({"--quant", "fp8", "--calibrate", "t.txt"}).err, HasSubstr("--calibrate: is for awq"));
  EXPECT_THAT(with({"--calibrate", "/nowhere.txt"}).err, HasSubstr("/nowhere.txt: "));
  EXPECT_EQ(with({"--calibration-tokens", "0"}).status, 2);
  EXPECT_THAT(run({"quantize", "--help"}).out, testing::AllOf(HasSubstr("--calibrate"), HasSubstr("N=8192")));
}

// Before anything is asked of a server.
TEST(Program, BenchServeSaysWhatIsWrongWithItsFlags) {
  const std::pair<std::vector<std::string>, std::string> kWrong[] = {
      {{"--temperature", "nan"}, "--temperature"},
      {{"--top-k", "0.5"}, "--top-k"},
      {{"--top-k", "1e300"}, "--top-k"},
      {{"--request-rate", "1e-300"}, "--request-rate 1e-300: it must be at least 1e-06"},
      {{"--request-rate", "2,nan"}, "--request-rate nan"},
      {{"--ramp-up-start-rps", "1"}, "go together"},
      {{"--ramp-up-strategy", "linear", "--ramp-up-start-rps", "1"}, "go together"},
      {{"--extra-body", R"({"stream":false})"}, "--extra-body: 'stream' is this command's to say"},
      {{"--extra-body", "[]"}, "must be a JSON object"},
      {{"--metadata", "=x"}, "no KEY=VALUE"},
      {{"--goodput", "ttft"}, "KEY:MILLISECONDS"},
      {{"--max-concurrency", "1,2", "--result-filename", "one.json"}, "each load of a sweep has one"},
      {{"--request-rate", "1,2", "--result-filename", "one.json"}, "each load of a sweep has one"},
      {{"--save-result", "--result-dir", "/proc/absent"}, "into the folder /proc/absent: No such file"},
      {{"--result-filename", "/proc/absent/x.json"}, "into the folder /proc/absent: No such file"},
      {{"--svg", "/proc/absent/x.svg"}, "into the folder /proc/absent: No such file"},
  };
  for (const auto& [flags, message] : kWrong) {
    std::vector<std::string> words{"bench", "serve", "--instant-server", "--num-prompts", "1"};
    words.insert(words.end(), flags.begin(), flags.end());
    const Ran ran = run(words);
    EXPECT_NE(ran.status, 0) << message;
    EXPECT_THAT(ran.err, HasSubstr(message));
    EXPECT_EQ(ran.out, "") << message;
  }
}

}  // namespace
}  // namespace cachalot
