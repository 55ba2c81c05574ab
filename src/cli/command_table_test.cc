#include "cli/command_table.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <set>

#include "cli/commands.h"

namespace cachalot {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

std::vector<CommandEntry> program_table() {
  static const std::unique_ptr<CLI::App> program = make_program();
  return command_table(*program);
}

const CommandEntry& command_at(const std::vector<CommandEntry>& table, const std::string& path) {
  const auto found = std::ranges::find(table, path, &CommandEntry::path);
  EXPECT_NE(found, table.end()) << path;
  return *found;
}

const FlagEntry& flag_at(const CommandEntry& command, const std::string& name) {
  const auto found = std::ranges::find(command.flags, name, &FlagEntry::long_name);
  EXPECT_NE(found, command.flags.end()) << name;
  return *found;
}

TEST(CommandTable, HasEveryCommandThatHelpShowsAndNoHiddenOne) {
  const std::vector<CommandEntry> table = program_table();
  EXPECT_EQ(table.front().path, "");
  EXPECT_THAT(table.front().commands,
              AllOf(Contains("serve"), Contains("bench"), Contains("man"), Not(Contains("lease"))));
  EXPECT_THAT(command_at(table, "bench").commands, Contains("alltoall"));
  EXPECT_THAT(command_at(table, "bench model").help, HasSubstr("random tokens"));
  for (const CommandEntry& command : table) {
    EXPECT_NE(command.help, "") << command.path;
    std::set<std::string> names;
    for (const FlagEntry& flag : command.flags) {
      EXPECT_TRUE(names.insert(flag.long_name).second) << command.path << flag.long_name;
      EXPECT_NE(flag.help, "") << command.path << flag.long_name;
      EXPECT_NE(flag.long_name, "--rank-board");
    }
  }
}

TEST(CommandTable, KnowsWhatStandsBehindAFlag) {
  const std::vector<CommandEntry> table = program_table();
  const CommandEntry& serve = command_at(table, "serve");
  EXPECT_EQ(flag_at(serve, "--port").value, FlagEntry::Value::kNumber);
  EXPECT_EQ(flag_at(serve, "--port").shown_value, "N [8000]");
  EXPECT_EQ(flag_at(serve, "--uds").value, FlagEntry::Value::kText);
  EXPECT_EQ(flag_at(serve, "--config").value, FlagEntry::Value::kText);
  EXPECT_EQ(flag_at(serve, "--enable-ssl-refresh").value, FlagEntry::Value::kNone);
  EXPECT_EQ(flag_at(serve, "--enable-ssl-refresh").opposite, "--no-enable-ssl-refresh");
  // Of a check by CLI11, and of add_choice.
  EXPECT_THAT(flag_at(table.front(), "--log-format").choices, ElementsAre("text", "json"));
  EXPECT_THAT(flag_at(serve, "--isa").choices, ElementsAre("auto", "reference", "avx2", "avx512"));
  EXPECT_EQ(flag_at(table.front(), "--log-level").variable, "VLLM_LOGGING_LEVEL");
  EXPECT_EQ(flag_at(command_at(table, "up"), "--detach").short_name, "-d");
  EXPECT_THAT(command_at(table, "completion").positionals.front().choices, ElementsAre("bash", "zsh", "fish"));
}

// Helps may hold what shells and troff read as their own.
TEST(CommandTable, HelpsOfAnyLettersAreText) {
  CLI::App program("It's `this` \\ that", "cachalot");
  program.add_subcommand("serve", "Bob's \\fBserver\\fR: $(true) `true`");
  program.get_subcommand("serve")->add_flag_callback("--quick", [] {}, ".TH at a line's begin\n.and 'after it");
  const std::vector<CommandEntry> table = command_table(program);
  EXPECT_THAT(zsh_completion(table), HasSubstr(R"('serve:Bob'\''s \fBserver\fR: $(true) `true`')"));
  EXPECT_THAT(fish_completion(table), HasSubstr(R"('Bob\'s \\fBserver\\fR: $(true) `true`')"));
  EXPECT_THAT(bash_completion(table), AllOf(HasSubstr("--quick"), Not(HasSubstr("Bob"))));
  const std::string page = manual_page(table, "2026-12-01");
  EXPECT_THAT(page, HasSubstr("Bob\\(aqs \\efBserver\\efR: $(true) \\(gatrue\\(ga"));
  EXPECT_THAT(page, HasSubstr("\\&.TH at a line\\(aqs begin\n.br\n\\&.and \\(aqafter it\n"));
}

}  // namespace
}  // namespace cachalot
