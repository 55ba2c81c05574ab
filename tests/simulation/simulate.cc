// Whole clusters, each from a seed: see cluster.h. Says what went wrong, with the shortest history that ends so.
#include <fmt/format.h>

#include <chrono>
#include <cstdio>

#include "simulation/cluster.h"
#include "simulation/program.h"

namespace cachalot::simulation {
namespace {

constexpr size_t kMostLines = 150;

int run(const Seeds& seeds) {
  const auto& [first, count, is_long, is_told] = seeds;
  const Scale scale =
      is_long ? Scale{.length = 600s, .num_requests = 1000, .num_faults = 20, .max_ranks = 32} : Scale{};
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
    print_last(again.history, kMostLines);
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
  return run_program(argc, argv, "Simulates clusters with faults.",
                     "ten minutes each, with 1,000 requests and up to 20 faults and 32 ranks", run);
}
