// Groups of agents, each from a seed: see agents.h. Says what went wrong, with the shortest history that ends so.
#include <fmt/format.h>

#include <chrono>
#include <cstdio>

#include "simulation/agents.h"
#include "simulation/program.h"

namespace cachalot::simulation {
namespace {

constexpr size_t kMostLines = 200;
constexpr uint64_t kSeedsByName = 20;

int run(const Seeds& seeds) {
  const auto& [first, count, is_long, is_told] = seeds;
  const Duration length = is_long ? 600s : 25s;
  const int num_faults = is_long ? 60 : 6;
  const auto begin = std::chrono::steady_clock::now();
  AgentTally total;
  for (const NamedHistory& history : named_histories()) {
    for (uint64_t seed = first; seed < first + std::min(count, kSeedsByName); seed++) {
      current_seed = seed;
      const AgentOutcome outcome = history.live(seed, false);
      total += outcome.tally;
      if (!outcome.violation) continue;
      fmt::print("{}\nseed {}: {}\n", history.name, seed, *outcome.violation);
      print_last(history.live(seed, true).history, kMostLines);
      return 1;
    }
  }
  double serving = 0;
  for (uint64_t seed = first; seed < first + count; seed++) {
    current_seed = seed;
    const AgentScenario scenario = make_agent_scenario(seed, length, num_faults);
    const AgentOutcome outcome = simulate_agents(scenario, is_told);
    if (is_told) print_last(outcome.history, kMostLines);
    total += outcome.tally;
    serving += outcome.tally.serving;
    if (!outcome.violation) continue;
    fmt::print("{}\nseed {}: {}\n\nThe shortest that ends in a violation:\n", scenario.text(), seed,
               *outcome.violation);
    std::fflush(stdout);
    const AgentScenario small = shortest(scenario);
    fmt::print("{}", small.text());
    print_last(simulate_agents(small, true).history, kMostLines);
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
  return run_program(argc, argv, "Simulates groups of agents with faults.", "ten minutes each, with 60 faults", run);
}
