#include "cli/nearest_flag.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

namespace cachalot {
namespace {

// Levenshtein's distance.
size_t edit_distance(std::string_view left, std::string_view right) {
  std::vector<size_t> row(right.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 1; i <= left.size(); i++) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= right.size(); j++) {
      const size_t substituted = diagonal + (left[i - 1] != right[j - 1] ? 1 : 0);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

std::string nearest(const CLI::App& command, std::string_view name) {
  std::string best;
  size_t best_distance = name.size() / 2 + 1;  // anything further is no likeness
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& known : option->get_lnames()) {
      const size_t distance = edit_distance(name, known);
      if (distance >= best_distance) continue;
      best_distance = distance;
      best = known;
    }
  }
  return best;
}

}  // namespace

std::string describe_unknown(const CLI::App& command, const std::vector<std::string>& arguments) {
  const auto is_flag = [](const std::string& argument) { return argument.starts_with("--"); };
  if (std::ranges::none_of(arguments, is_flag)) return fmt::format("not expected here: {}", fmt::join(arguments, " "));
  std::string message;
  for (const std::string& argument : arguments) {
    if (!is_flag(argument)) continue;  // the unknown flag's value
    if (!message.empty()) message += '\n';
    const std::string name = argument.substr(2, argument.find('=') - 2);
    message += fmt::format("--{}: no such flag", name);
    if (const std::string known = nearest(command, name); !known.empty())
      message += fmt::format("; the nearest is --{}", known);
  }
  return message;
}

}  // namespace cachalot
