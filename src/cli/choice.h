#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <utility>
#include <vector>

namespace cachalot {

// An option whose value is one of some words. The error names the words.
template <class Enum>
CLI::Option* add_choice(CLI::App& app, const std::string& name, Enum& target,
                        std::vector<std::pair<std::string, Enum>> choices, const std::string& help) {
  std::string words, current;
  for (const auto& [word, value] : choices) {
    words += (words.empty() ? "" : ", ") + word;
    if (value == target) current = word;
  }
  return app
      .add_option_function<std::string>(
          name,
          [&target, choices = std::move(choices), words, name](const std::string& text) {
            for (const auto& [word, value] : choices) {
              if (word != text) continue;
              target = value;
              return;
            }
            throw CLI::ValidationError(name, "\"" + text + "\" is not one of " + words);
          },
          help)
      ->option_text("TEXT [" + current + "]")
      ->trigger_on_parse();
}

}  // namespace cachalot
