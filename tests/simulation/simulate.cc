// Whole clusters, each from a seed: see cluster.h. Says what went wrong, with the shortest history that ends so.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>

#include "base/log.h"
#include "simulation/cluster.h"

namespace cachalot::simulation {
namespace {

constexpr size_t kMostLines = 150;
uint64_t current_seed = 0;

// Of a CHECK that does not hold.
void tell_seed(int /*signal*/) {
  fmt::print(stderr, "seed {}\n", current_seed);
}

int run(uint64_t first, uint64_t count, const Scale& scale, bool is_told) {
  const auto begin = std::chrono::steady_clock::now();
  Tally total;
  for (uint64_t seed = first; seed < first + count; seed++) {
    current_seed = seed;
    const Scenario scenario = make_scenario(seed, scale);
    const Outcome outcome = simulate(scenario, is_told);
    if (is_told)
      for (const std::string& line : outcome.history) fmt::print("{}\n", line);
    total += outcome.tally;
    if (!outcome.violation) continue;
    fmt::print("{}\nseed {}: {}\n\nThe shortest that ends in a violation:\n", scenario.text(), seed,
               *outcome.violation);
    std::fflush(stdout);
    const Scenario small = shortest(scenario);
    const Outcome again = simulate(small, true);
    fmt::print("{}", small.text());
    const size_t skipped = again.history.size() - std::min(again.history.size(), kMostLines);
    if (skipped > 0) fmt::print("  ... {} lines\n", skipped);
    for (size_t idx = skipped; idx < again.history.size(); idx++) fmt::print("{}\n", again.history[idx]);
    return 1;
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  fmt::print("{} clusters, seeds {} to {}, in {:.1f} s, without a violation\n{}\n", count, first, first + count - 1,
             seconds, total.text());
  return 0;
}

}  // namespace
}  // namespace cachalot::simulation

int main(int argc, char** argv) {
  using namespace cachalot::simulation;  // NOLINT(google-build-using-namespace)
  CLI::App app("Simulates clusters with faults.");
  uint64_t first = 1, count = 1;
  bool is_long = false, is_told = false;
  app.add_option("--seed", first, "the first");
  app.add_option("--seeds", count, "how many");
  app.add_flag("--long", is_long, "ten minutes each, with 1,000 requests and up to 20 faults and 32 ranks");
  app.add_flag("--tell", is_told, "prints what happens");
  CLI11_PARSE(app, argc, argv);
  cachalot::log::init("off", "");
  std::signal(SIGABRT, tell_seed);
  const Scale scale =
      is_long ? Scale{.length = 600s, .num_requests = 1000, .num_faults = 20, .max_ranks = 32} : Scale{};
  return run(first, count, scale, is_told);
}
