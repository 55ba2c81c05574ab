#include "cli/command_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "cli/commands.h"

namespace cachalot {
namespace {

// CLI11 tells of choices in the type's name only: "TEXT:{a,b}".
std::vector<std::string> choices_of(const std::string& type) {
  std::vector<std::string> choices;
  size_t begin = type.find('{');
  const size_t end = type.find('}', begin);
  if (begin == type.npos || end == type.npos) return choices;
  while (begin < end) {
    const size_t comma = std::min(type.find(',', begin + 1), end);
    choices.push_back(type.substr(begin + 1, comma - begin - 1));
    begin = comma;
  }
  return choices;
}

std::string shown_value(const CLI::Option& option) {
  if (!option.get_option_text().empty()) return option.get_option_text();
  const std::string type = option.get_type_name(), standard = option.get_default_str();
  // Choices stand in the help as well.
  return type.substr(0, type.find(':')) + (standard.empty() ? "" : fmt::format(" [{}]", standard));
}

FlagEntry entry_of(const CLI::Option& option) {
  FlagEntry entry{.value = FlagEntry::Value::kNone, .help = option.get_description(), .variable = option.get_envname()};
  if (option.get_positional()) entry.long_name = option.get_name(true, false);
  if (!option.get_lnames().empty()) entry.long_name = "--" + option.get_lnames().front();
  if (!option.get_snames().empty()) entry.short_name = "-" + option.get_snames().front();
  if (option.get_items_expected_max() == 0) return entry;
  const std::string type = option.get_type_name();
  entry.choices = choices_of(type);
  entry.shown_value = shown_value(option);
  const bool is_number = type.starts_with("N") || type.starts_with("X");
  entry.value = !entry.choices.empty() ? FlagEntry::Value::kWord
                : is_number            ? FlagEntry::Value::kNumber
                                       : FlagEntry::Value::kText;
  return entry;
}

void add_command(const CLI::App& app, const std::string& path, std::vector<CommandEntry>& table) {
  CommandEntry entry{.path = path, .help = app.get_description(), .footer = app.get_footer()};
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_group().empty()) continue;
    FlagEntry flag = entry_of(*option);
    const auto positive = std::ranges::find_if(
        entry.flags, [&](const FlagEntry& known) { return flag.long_name == "--no-" + known.long_name.substr(2); });
    if (option->get_positional()) {
      entry.positionals.push_back(std::move(flag));
    } else if (flag.value == FlagEntry::Value::kNone && positive != entry.flags.end()) {
      positive->opposite = flag.long_name;
    } else {
      entry.flags.push_back(std::move(flag));
    }
  }
  const std::vector<const CLI::App*> below =
      app.get_subcommands([](const CLI::App* command) { return !command->get_group().empty(); });
  for (const CLI::App* command : below) entry.commands.push_back(command->get_name());
  table.push_back(std::move(entry));
  for (const CLI::App* command : below)
    add_command(*command, path.empty() ? command->get_name() : path + " " + command->get_name(), table);
}

}  // namespace

std::vector<CommandEntry> command_table(const CLI::App& program) {
  std::vector<CommandEntry> table;
  add_command(program, "", table);
  return table;
}

void add_completion_command(CLI::App& app) {
  auto shell = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("completion", "Print what makes a shell complete this program's words");
  command->add_option("shell", *shell, "bash, zsh or fish")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
  command->footer(
      "bash: source <(cachalot completion bash)\n"
      "zsh: cachalot completion zsh >FOLDER/_cachalot, a folder of $fpath\n"
      "fish: cachalot completion fish >~/.config/fish/completions/cachalot.fish");
  command->callback([shell, &app] {
    const std::vector<CommandEntry> table = command_table(app);
    fmt::print("{}", *shell == "bash"  ? bash_completion(table)
                     : *shell == "zsh" ? zsh_completion(table)
                                       : fish_completion(table));
  });
}

void add_man_command(CLI::App& app) {
  auto date = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("man", "Print the manual page, with the flags of all commands");
  command->add_option("--date", *date, "The date at the page's foot")->option_text("YYYY-MM-DD");
  command->footer("cachalot man | man -l -");
  command->callback([date, &app] { fmt::print("{}", manual_page(command_table(app), *date)); });
}

}  // namespace cachalot
