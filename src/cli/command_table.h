#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

// The program's commands and flags as data, from the one place where they are declared: what --help shows, for those
// who write it in another form (the manual page, the completion of shells).
namespace cachalot {

struct FlagEntry {
  enum class Value { kNone, kWord, kNumber, kText };  // a switch; one of `choices`; a number; any, or a file

  std::string long_name, short_name;  // with their dashes; either may be empty
  std::string opposite;               // --no-NAME, where there is one
  Value value;
  std::vector<std::string> choices;
  std::string shown_value;  // as --help shows it: "N [8000]"
  std::string help;
  std::string variable;  // of the environment, which stands in its place
};

struct CommandEntry {
  std::string path;  // "bench model"; of the program itself ""
  std::string help, footer;
  std::vector<FlagEntry> flags, positionals;  // of a positional the long name is the word that --help shows
  std::vector<std::string> commands;          // the names of those below it
};

// The program first, then its commands in the order of --help, each before those below it. What --help hides is not
// there.
std::vector<CommandEntry> command_table(const CLI::App& program);

// Lines for `bash`, `zsh` or `fish`, which complete commands, flags, and the values that are words.
std::string bash_completion(const std::vector<CommandEntry>& table);
std::string zsh_completion(const std::vector<CommandEntry>& table);
std::string fish_completion(const std::vector<CommandEntry>& table);

// cachalot(1), in the macros of man(7). Of the date, as the page's foot shows it.
std::string manual_page(const std::vector<CommandEntry>& table, const std::string& date);

}  // namespace cachalot
