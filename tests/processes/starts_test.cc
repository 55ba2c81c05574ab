// Starts that cannot succeed: what each rank prints is the table in docs/operations.md.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>

#include "base/file.h"
#include "config/version.h"
#include "golden_cases.h"
#include "processes/api_client.h"
#include "processes/served_group.h"
#include "serve/server_state.h"

namespace cachalot::test {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;

constexpr seconds kPatience{20};  // a verdict takes seconds at most; starting a process on a busy machine may, too

// One replica of a group on the loopback.
class Start : public testing::Test {
 protected:
  std::unique_ptr<Program> start(int dp_rank, std::vector<std::string> more_flags = {}, int dp_size = 2,
                                 const std::string& model = nano_folder(),
                                 const std::string& program = CACHALOT_PROGRAM) {
    std::vector<std::string> flags{"serve",
                                   "--model",
                                   model,
                                   "--host",
                                   "127.0.0.1",
                                   "--enable-expert-parallel",
                                   "--data-parallel-size",
                                   std::to_string(dp_size),
                                   "--data-parallel-rank",
                                   std::to_string(dp_rank),
                                   "--data-parallel-rpc-port",
                                   port_};
    for (const auto& [flag, value] : {std::pair("--port", "0"), std::pair("--num-gpu-blocks-override", "64"),
                                      std::pair("--max-model-len", "1024")}) {
      if (std::ranges::find(more_flags, flag) == more_flags.end()) flags.insert(flags.end(), {flag, value});
    }
    flags.insert(flags.end(), more_flags.begin(), more_flags.end());
    return std::make_unique<Program>(flags, program);
  }
  // It ends by itself, not well, and says so.
  static void expect_end(Program& program, const std::string& text) {
    EXPECT_EQ(program.wait(kPatience), 1) << program.output();
    EXPECT_TRUE(program.wait_for_silence(seconds(2))) << "a rank was left behind";
    EXPECT_THAT(program.output(), HasSubstr(text));
  }

  const std::string port_ = std::to_string(free_port());
};

// Before any weights, and without a key: what probes and supervisors ask.
TEST_F(Start, AnswersProbesWhileItWaitsForTheOthers) {
  const uint16_t port = free_port();
  const auto first = start(0, {"--port", std::to_string(port), "-t", "2", "--api-key", "secret"});
  ASSERT_TRUE(first->wait_for_line("waits for rank", kPatience)) << first->output();
  const ApiClient client;
  EXPECT_EQ(client.get(port, "/live")->status, 200);
  EXPECT_EQ(client.get(port, "/health")->status, 503);
  EXPECT_EQ(client.get(port, "/v1/models")->status, 401);
  const auto answer = client.get(port, "/state");
  ASSERT_TRUE(answer && answer->status == 200);
  const auto state = parse_server_state(answer->body, 2);
  ASSERT_TRUE(state) << state.error().message;
  EXPECT_EQ(state->phase, RankPhase::kForming);
  ASSERT_EQ(state->ranks.size(), 2U);
  EXPECT_EQ(state->ranks[1].rank, 1);
  EXPECT_EQ(state->ranks[1].pid, first->children().at(0));
  for (const std::string& secret : {std::string("secret"), nano_folder(), std::string("--")})
    EXPECT_EQ(answer->body.find(secret), std::string::npos) << answer->body;
}

TEST_F(Start, NamesTheRankThatDoesNotCome) {
  const auto first = start(0, {"--start-timeout", "7"}, 3);
  const auto second = start(1, {"--start-timeout", "7"}, 3);
  EXPECT_TRUE(first->wait_for_line("waits for rank 2; 2 of 3 are here", kPatience)) << first->output();
  const std::string text = "rank 2 did not come to rank 0 at 127.0.0.1:" + port_ + " within 7 s";
  expect_end(*first, text);
  expect_end(*second, text);
}

TEST_F(Start, NamesTheAddressAtWhichNoRank0Is) {
  const auto lonely = start(1, {"--start-timeout", "1"});
  expect_end(*lonely, "has waited 1 s for rank 0 at 127.0.0.1:" + port_);
}

TEST_F(Start, RefusesALateRankAndServesOn) {
  const auto first = start(0), second = start(1);
  for (Program* program : {first.get(), second.get()})
    ASSERT_TRUE(program->wait_for_line("ready: http", kPatience)) << program->output();
  const auto late = start(1);
  expect_end(*late, "comes too late: the group of 2 ranks formed without it");
  EXPECT_TRUE(first->wait_for_line("refuses a rank", kPatience)) << first->output();
  for (Program* program : {first.get(), second.get()}) EXPECT_FALSE(program->wait(seconds(0))) << program->output();
}

TEST_F(Start, RefusesTwoProcessesForOneRank) {
  const auto first = start(0, {}, 3), second = start(1, {}, 3), third = start(1, {}, 3);
  for (Program* program : {first.get(), second.get(), third.get()}) expect_end(*program, "rank 1 is there twice");
}

TEST_F(Start, RefusesAnotherSettingByItsFlagAndBothValues) {
  const auto first = start(0, {"--block-size", "32"}), second = start(1, {"--block-size", "64"});
  for (Program* program : {first.get(), second.get()}) {
    expect_end(*program, "--block-size");
    EXPECT_THAT(program->output(), HasSubstr("32"));
    EXPECT_THAT(program->output(), HasSubstr("64"));
  }
}

TEST_F(Start, RefusesAnotherModel) {
  const ScratchFolder folder;
  const std::string other = folder / "nano";
  std::filesystem::copy(nano_folder(), other);
  auto config = read_file(other + "/config.json");
  ASSERT_TRUE(config);
  const size_t at = config->find("\"rms_norm_eps\"");
  ASSERT_NE(at, std::string::npos);
  config->insert(at, "\"a_note\": 1, ");
  ASSERT_TRUE(write_file(other + "/config.json", *config));
  const auto first = start(0), second = start(1, {}, 2, other);
  for (Program* program : {first.get(), second.get()}) expect_end(*program, "model");
}

// The program with other digits in the place where it keeps its version.
void copy_as_another_version(const std::string& path) {
  auto program = read_file(CACHALOT_PROGRAM, size_t{1} << 30);
  ASSERT_TRUE(program);
  const std::string own = '\0' + std::string(kVersion) + '\0';
  std::string other = own;
  other[1] = '9';
  size_t num_replaced = 0;
  for (size_t at = 0; (at = program->find(own, at)) != std::string::npos; num_replaced++)
    program->replace(at, own.size(), other);
  ASSERT_GT(num_replaced, 0);
  ASSERT_TRUE(write_file(path, *program));
  std::filesystem::permissions(path, std::filesystem::perms::owner_all);
}

TEST_F(Start, RefusesAProgramOfAnotherVersion) {
  const ScratchFolder folder;
  const std::string other = folder / "cachalot";
  copy_as_another_version(other);
  const auto first = start(0), second = start(1, {}, 2, nano_folder(), other);
  for (Program* program : {first.get(), second.get()}) {
    expect_end(*program, fmt::format("runs Cachalot 9{}", std::string(kVersion).substr(1)));
    EXPECT_THAT(program->output(), HasSubstr(fmt::format("runs Cachalot {}; all ranks must run the same", kVersion)));
  }
}

TEST_F(Start, RefusesAWrongSecret) {
  const ScratchFolder folder;
  ASSERT_TRUE(write_file(folder / "one", "sesame"));
  ASSERT_TRUE(write_file(folder / "other", "open"));
  const auto first = start(0, {"--group-secret-file", folder / "one", "--start-timeout", "4"}),
             second = start(1, {"--group-secret-file", folder / "other"});
  expect_end(*second, "has another group secret (--group-secret-file) than rank 0");
  EXPECT_TRUE(first->wait_for_line("rank 0 refuses a rank: rank 1", kPatience)) << first->output();
  expect_end(*first, "rank 1 did not come to rank 0");  // whoever that was
  EXPECT_THAT(first->output(), HasSubstr("; refused was: rank 1"));
}

// Each replica plans by its own memory; a request that one of them takes must fit all.
TEST_F(Start, AgreesOnTheLongestSequenceThatAllRanksHaveMemoryFor) {
  const auto first = start(0, {"--max-model-len", "0", "--num-gpu-blocks-override", "32"}),
             second = start(1, {"--max-model-len", "0", "--num-gpu-blocks-override", "20"});
  for (Program* program : {first.get(), second.get()}) {
    ASSERT_TRUE(program->wait_for_line("ready: http", kPatience)) << program->output();
    EXPECT_THAT(program->output(),
                HasSubstr("and max_model_len 1280, the least of all ranks' (rank 1 (replica 1, tp 0, host"));
  }
  EXPECT_THAT(first->output(), HasSubstr("agreed on 32 KV blocks, and"));
  EXPECT_THAT(second->output(), HasSubstr("agreed on 20 KV blocks, and"));
}

TEST_F(Start, SaysWhichChildEndedAndLeavesNone) {
  const auto first = start(0, {"--tensor-parallel-size", "2", "--start-timeout", "30"}, 2);
  ASSERT_TRUE(first->wait_for_line("rank 1 has found rank 0", kPatience)) << first->output();
  const std::vector<pid_t> children = first->children();
  ASSERT_EQ(children.size(), 1u);
  kill(children[0], SIGKILL);
  expect_end(*first, "was ended by signal 9");
}

}  // namespace
}  // namespace cachalot::test
