#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>

#include "cli/command_table.h"

// All three scripts walk over the words that stand before the one to complete: they join those that name a command to
// its path, which has a space before each name (" bench model"), and take from there what may follow.
namespace cachalot {
namespace {

using Value = FlagEntry::Value;

std::string spaced(const std::string& path) {
  return path.empty() ? "" : " " + path;
}

std::string shell_word(std::string text) {
  for (size_t at = 0; (at = text.find('\'', at)) != text.npos; at += 4) text.replace(at, 1, "'\\''");
  return "'" + text + "'";
}

std::vector<std::string> names_of(const FlagEntry& flag) {
  std::vector<std::string> names;
  for (const std::string& name : {flag.long_name, flag.short_name, flag.opposite})
    if (!name.empty()) names.push_back(name);
  return names;
}

// Flags of the program stand behind each command as well, but for --help and --version, which each has or has not.
std::vector<FlagEntry> flags_of(const std::vector<CommandEntry>& table, const CommandEntry& command) {
  std::vector<FlagEntry> flags = command.flags;
  if (command.path.empty()) return flags;
  std::ranges::copy_if(table.front().flags, std::back_inserter(flags),
                       [](const FlagEntry& flag) { return flag.value != Value::kNone; });
  return flags;
}

// 'X' | 'Y'
std::string paths(const std::vector<CommandEntry>& table, std::string_view between) {
  std::vector<std::string> words;
  for (const CommandEntry& command : table)
    if (!command.path.empty()) words.push_back(shell_word(spaced(command.path)));
  return fmt::format("{}", fmt::join(words, between));
}

// Of bash and zsh: what stands behind `$command $flag`, one case for each kind of value.
template <class Write>
std::string value_cases(const std::vector<CommandEntry>& table, Write write) {
  std::string cases;
  for (const CommandEntry& command : table) {
    for (const FlagEntry& flag : flags_of(table, command)) {
      if (flag.value == Value::kNone) continue;
      std::vector<std::string> patterns;
      for (const std::string& name : names_of(flag)) patterns.push_back(shell_word(spaced(command.path) + " " + name));
      cases += fmt::format("    {}) {} ;;\n", fmt::join(patterns, " | "), write(flag));
    }
  }
  return cases;
}

constexpr std::string_view kBash = R"(# Completion of cachalot for bash: `cachalot completion bash` has written it.
_cachalot() {{
  local command= word previous=${{COMP_WORDS[COMP_CWORD - 1]}} current=${{COMP_WORDS[COMP_CWORD]}} idx words=
  # bash takes --NAME=VALUE for three words.
  if [[ $current == = ]]; then
    current=
  elif [[ $previous == = ]] && ((COMP_CWORD > 1)); then
    previous=${{COMP_WORDS[COMP_CWORD - 2]}}
  fi
  for ((idx = 1; idx < COMP_CWORD; idx++)); do
    word=${{COMP_WORDS[idx]}}
    case "$command $word" in
      {}) command+=" $word" ;;
    esac
  done
  case "$command $previous" in
{}  esac
  if [[ -z $words ]]; then
    case $command in
{}    esac
    [[ $current == -* ]] || words=${{words%%--*}}
    [[ -n ${{words// /}} ]] || words=:file
  fi
  if [[ $words == :file ]]; then
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  elif [[ $words != :none ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
  fi
}}
complete -F _cachalot cachalot
)";

constexpr std::string_view kZsh = R"(#compdef cachalot
# Completion of cachalot for zsh: `cachalot completion zsh` has written it.
_cachalot() {{
  local command= word previous=${{words[CURRENT-1]}}
  local -a names flags
  if [[ $PREFIX == --*=* ]]; then
    previous=${{PREFIX%%=*}}
    compset -P 1 '*='
  fi
  for word in ${{words[2,CURRENT-1]}}; do
    case "$command $word" in
      {}) command+=" $word" ;;
    esac
  done
  case "$command $previous" in
{}  esac
  case $command in
{}  esac
  if [[ $PREFIX == -* ]]; then
    _describe -o flag flags
  elif (( $#names )); then
    _describe command names
  else
    _files
  fi
}}
if [[ $funcstack[1] == _cachalot ]]; then _cachalot "$@"; else compdef _cachalot cachalot; fi
)";

constexpr std::string_view kFish = R"(# Completion of cachalot for fish: `cachalot completion fish` has written it.
function __cachalot_at --description 'Whether the words before the cursor name this command'
    set -l command ''
    for word in (commandline -opc)[2..-1]
        switch "$command $word"
            case {}
                set command "$command $word"
        end
    end
    test "$command" = "$argv[1]"
end
complete -c cachalot -f
)";

constexpr std::pair<std::string_view, std::string_view> kWords[] = {{"help", "Tell of a command"},
                                                                    {"version", "Print the version"}};

const CommandEntry& command_at(const std::vector<CommandEntry>& table, const CommandEntry& above,
                               const std::string& name) {
  const std::string path = above.path.empty() ? name : above.path + " " + name;
  return *std::ranges::find(table, path, &CommandEntry::path);
}

}  // namespace

std::string bash_completion(const std::vector<CommandEntry>& table) {
  const std::string values = value_cases(table, [](const FlagEntry& flag) -> std::string {
    if (flag.value == Value::kWord) return fmt::format("words='{}'", fmt::join(flag.choices, " "));
    return flag.value == Value::kText ? "words=:file" : "words=:none";
  });
  std::string cases;
  for (const CommandEntry& command : table) {
    std::vector<std::string> words = command.commands;  // in front of the flags
    if (command.path.empty())
      for (const auto& [word, help] : kWords) words.emplace_back(word);
    for (const FlagEntry& positional : command.positionals)
      words.insert(words.end(), positional.choices.begin(), positional.choices.end());
    for (const FlagEntry& flag : flags_of(table, command))
      for (const std::string& name : names_of(flag))
        if (name.starts_with("--")) words.push_back(name);
    cases += fmt::format("      {}) words='{}' ;;\n", shell_word(spaced(command.path)), fmt::join(words, " "));
  }
  return fmt::format(kBash, paths(table, " | "), values, cases);
}

std::string zsh_completion(const std::vector<CommandEntry>& table) {
  const std::string values = value_cases(table, [](const FlagEntry& flag) -> std::string {
    if (flag.value == Value::kWord) return fmt::format("compadd -- {}; return", fmt::join(flag.choices, " "));
    return flag.value == Value::kText ? "_files; return" : "_message number; return";
  });
  // "NAME:HELP"; names have no colons.
  const auto described = [](const std::string& name, std::string_view help) {
    return shell_word(fmt::format("{}:{}", name, help));
  };
  std::string cases;
  for (const CommandEntry& command : table) {
    std::vector<std::string> commands, flags;
    for (const std::string& name : command.commands)
      commands.push_back(described(name, command_at(table, command, name).help));
    if (command.path.empty())
      for (const auto& [word, help] : kWords) commands.push_back(described(std::string(word), help));
    for (const FlagEntry& positional : command.positionals)
      for (const std::string& choice : positional.choices) commands.push_back(described(choice, positional.help));
    for (const FlagEntry& flag : flags_of(table, command))
      for (const std::string& name : names_of(flag)) flags.push_back(described(name, flag.help));
    cases += fmt::format("    {})\n      names=({})\n      flags=({}) ;;\n", shell_word(spaced(command.path)),
                         fmt::join(commands, " "), fmt::join(flags, " "));
  }
  return fmt::format(kZsh, paths(table, " | "), values, cases);
}

std::string fish_completion(const std::vector<CommandEntry>& table) {
  // In fish's single quotes a backslash stands for itself but before another and before a quote.
  const auto fish_word = [](const std::string& text) {
    std::string word = "'";
    for (const char letter : text)
      word += letter == '\'' || letter == '\\' ? fmt::format("\\{}", letter) : std::string(1, letter);
    return word + "'";
  };
  std::string script = fmt::format(kFish, paths(table, " "));
  const auto add_word = [&](const std::string& at, const std::string& word, const std::string& help) {
    script += fmt::format("complete -c cachalot -n {} -a {} -d {}\n", at, word, fish_word(help));
  };
  for (const CommandEntry& command : table) {
    const std::string at = fish_word("__cachalot_at " + fish_word(spaced(command.path)));
    for (const std::string& name : command.commands) add_word(at, name, command_at(table, command, name).help);
    if (command.path.empty())
      for (const auto& [word, help] : kWords) add_word(at, std::string(word), std::string(help));
    for (const FlagEntry& positional : command.positionals) {
      for (const std::string& choice : positional.choices) add_word(at, choice, positional.help);
      if (positional.choices.empty()) script += fmt::format("complete -c cachalot -n {} -F\n", at);
    }
    for (const FlagEntry& flag : flags_of(table, command)) {
      std::string line = fmt::format("complete -c cachalot -n {}", at);
      if (!flag.long_name.empty()) line += " -l " + flag.long_name.substr(2);
      if (!flag.short_name.empty()) line += " -s " + flag.short_name.substr(1);
      if (flag.value == Value::kText) line += " -r -F";
      if (flag.value == Value::kNumber) line += " -x";
      if (flag.value == Value::kWord) line += fmt::format(" -x -a '{}'", fmt::join(flag.choices, " "));
      script += fmt::format("{} -d {}\n", line, fish_word(flag.help));
      if (!flag.opposite.empty())
        script += fmt::format("complete -c cachalot -n {} -l {} -d 'The opposite'\n", at, flag.opposite.substr(2));
    }
  }
  return script;
}

}  // namespace cachalot
