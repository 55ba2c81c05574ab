#include "cli/nearest_flag.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>

#include "base/text.h"

namespace cachalot {

std::string nearest_flag(const CLI::App& command, std::string_view name) {
  std::vector<std::string> known;
  for (const CLI::Option* option : command.get_options())
    std::ranges::copy(option->get_lnames(), std::back_inserter(known));
  return nearest_name(name, known);
}

std::string describe_unknown(const CLI::App& command, const std::vector<std::string>& arguments) {
  const auto is_flag = [](const std::string& argument) { return argument.starts_with("--"); };
  if (std::ranges::none_of(arguments, is_flag)) return fmt::format("not expected here: {}", fmt::join(arguments, " "));
  std::string message;
  for (const std::string& argument : arguments) {
    if (!is_flag(argument)) continue;  // the unknown flag's value
    if (!message.empty()) message += '\n';
    const std::string name = argument.substr(2, argument.find('=') - 2);
    message += fmt::format("--{}: no such flag", name);
    if (const std::string known = nearest_flag(command, name); !known.empty())
      message += fmt::format("; the nearest is --{}", known);
  }
  return message;
}

}  // namespace cachalot
