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

}  // namespace
}  // namespace cachalot
