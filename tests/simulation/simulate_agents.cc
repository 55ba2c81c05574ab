// Groups of agents, each from a seed: see agents.h. Says what went wrong, with the shortest history that ends so.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>

#include "base/log.h"
#include "simulation/agents.h"

namespace cachalot::simulation {
namespace {

constexpr size_t kMostLines = 200;
constexpr uint64_t kSeedsByName = 20;
uint64_t current_seed = 0;

// Of a CHECK that does not hold.
void tell_seed(int /*signal*/) {
  fmt::print(stderr, "seed {}\n", current_seed);
}

void tell(const AgentOutcome& outcome) {
  const size_t skipped = outcome.history.size() - std::min(outcome.history.size(), kMostLines);
  if (skipped > 0) fmt::print("  ... {} lines\n", skipped);
  for (size_t idx = skipped; idx < outcome.history.size(); idx++) fmt::print("{}\n", outcome.history[idx]);
}

int run(uint64_t first, uint64_t count, Duration length, int num_faults, bool is_told) {
  const auto begin = std::chrono::steady_clock::now();
  AgentTally total;
  for (const NamedHistory& history : named_histories()) {
    for (uint64_t seed = first; seed < first + std::min(count, kSeedsByName); seed++) {
      current_seed = seed;
      const AgentOutcome outcome = history.live(seed, false);
      total += outcome.tally;
      if (!outcome.violation) continue;
      fmt::print("{}\nseed {}: {}\n", history.name, seed, *outcome.violation);
      tell(history.live(seed, true));
      return 1;
    }
  }
  double serving = 0;
  for (uint64_t seed = first; seed < first + count; seed++) {
    current_seed = seed;
    const AgentScenario scenario = make_agent_scenario(seed, length, num_faults);
    const AgentOutcome outcome = simulate_agents(scenario, is_told);
    if (is_told) tell(outcome);
    total += outcome.tally;
    serving += outcome.tally.serving;
    if (!outcome.violation) continue;
    fmt::print("{}\nseed {}: {}\n\nThe shortest that ends in a violation:\n", scenario.text(), seed,
               *outcome.violation);
    std::fflush(stdout);
    const AgentScenario small = shortest(scenario);
    fmt::print("{}", small.text());
    tell(simulate_agents(small, true));
    return 1;
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  fmt::print(
      "{} groups of agents, seeds {} to {}, in {:.1f} s, without a violation\n{}; with faults some epoch served "
      "{:.0f}% of the time\n",
      count, first, first + count - 1, seconds, total.text(), 100 * serving / static_cast<double>(count));
  return 0;
}

}  // namespace
}  // namespace cachalot::simulation

int main(int argc, char** argv) {
  using namespace cachalot::simulation;  // NOLINT(google-build-using-namespace)
  CLI::App app("Simulates groups of agents with faults.");
  uint64_t first = 1, count = 1;
  bool is_long = false, is_told = false;
  app.add_option("--seed", first, "the first");
  app.add_option("--seeds", count, "how many");
  app.add_flag("--long", is_long, "ten minutes each, with 60 faults");
  app.add_flag("--tell", is_told, "prints what happens");
  CLI11_PARSE(app, argc, argv);
  cachalot::log::init("off", "");
  std::signal(SIGABRT, tell_seed);
  return is_long ? run(first, count, 600s, 60, is_told) : run(first, count, 25s, 6, is_told);
}
