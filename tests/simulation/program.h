// What the two programs have in common that simulate as many seeds as they are told.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <functional>
#include <string>

#include "base/log.h"

namespace cachalot::simulation {

struct Seeds {
  uint64_t first = 1, count = 1;
  bool is_long = false, is_told = false;
};

inline uint64_t current_seed = 0;  // told where a CHECK does not hold

inline void print_last(const std::deque<std::string>& history, size_t most_lines) {
  const size_t skipped = history.size() - std::min(history.size(), most_lines);
  if (skipped > 0) fmt::print("  ... {} lines\n", skipped);
  for (size_t idx = skipped; idx < history.size(); idx++) fmt::print("{}\n", history[idx]);
}

inline int run_program(int argc, char** argv, const char* what, const char* what_is_long,
                       const std::function<int(const Seeds&)>& run) {
  CLI::App app(what);
  Seeds seeds;
  app.add_option("--seed", seeds.first, "the first");
  app.add_option("--seeds", seeds.count, "how many");
  app.add_flag("--long", seeds.is_long, what_is_long);
  app.add_flag("--tell", seeds.is_told, "prints what happens");
  CLI11_PARSE(app, argc, argv);
  log::init("off", "");
  std::signal(SIGABRT, [](int) { fmt::print(stderr, "seed {}\n", current_seed); });
  return run(seeds);
}

}  // namespace cachalot::simulation
