// fault_trials --trials N [--seed S] [--link-down]: N faults of each kind, at random ranks and moments, and a table of
// what came of them. Exit status 1 if anything went otherwise than promised in docs/operations.md.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <random>

#include "base/math.h"
#include "faults/fault_trial.h"

namespace cachalot::test {
namespace {

// What may pass until all survivors know; see --slow.
struct Promise {
  Fault fault;
  const char* name;
  double detection_ms;
};
constexpr Promise kOnOneNode[] = {{Fault::kKill, "kill -9", 100}, {Fault::kStop, "SIGSTOP", 1000}};
constexpr Promise kBetweenNodes[] = {{Fault::kLinkDown, "link down", 1000}};

// After that all ranks' heartbeats have told that they take steps.
constexpr std::chrono::milliseconds kHeard{400};

struct Summary {
  int num_trials = 0, orphans = 0;
  std::vector<double> detection_ms, end_ms;
  ClientCounts clients;
};

void add(const TrialResult& result, Summary& summary) {
  summary.num_trials++;
  summary.orphans += result.orphans;
  std::ranges::copy(result.detection_ms, std::back_inserter(summary.detection_ms));
  std::ranges::copy(result.end_ms, std::back_inserter(summary.end_ms));
  summary.clients += result.clients;
}

std::string spread(std::vector<double> values) {
  if (values.empty()) return "-";
  const auto [least, most] = std::ranges::minmax(values);
  return fmt::format("{:.0f} / {:.0f} / {:.0f}", least, median(values), most);
}

int wrong_ends(const ClientCounts& clients) {
  return clients.falsely_complete + clients.refused_wrongly + clients.cut + clients.silent;
}

void print_row(const Promise& promise, const Summary& summary) {
  const ClientCounts& clients = summary.clients;
  fmt::print("| {} | {} | {} | {} | {} | {} | {} | {} | {} |\n", promise.name, summary.num_trials,
             spread(summary.detection_ms), spread(summary.end_ms), clients.error_event, clients.refused,
             clients.lost_with_server, wrong_ends(clients), summary.orphans);
}

int run(std::span<const Promise> promises, int num_trials, unsigned seed, double slow) {
  std::mt19937 random(seed);
  bool good = true;
  std::vector<Summary> summaries;
  for (const Promise& promise : promises) {
    Summary& summary = summaries.emplace_back();
    std::unique_ptr<NetworkNodes> network;
    if (promise.fault == Fault::kLinkDown) network = std::make_unique<NetworkNodes>(4);
    for (int trial = 0; trial < num_trials; trial++) {
      const TrialOptions options{.fault = promise.fault,
                                 .victim = static_cast<int>(random() % 4),
                                 .moment = kHeard + std::chrono::milliseconds(random() % 1000),
                                 .network = network.get()};
      TrialResult result = run_trial(options);
      if (network) network->mend(options.victim);
      if (!result.detection_ms.empty()) {
        const double slowest = *std::ranges::max_element(result.detection_ms);
        if (slowest > promise.detection_ms * slow)
          result.problems.push_back(fmt::format("a survivor knew only after {:.0f} ms", slowest));
      }
      const ClientCounts& clients = result.clients;
      if (wrong_ends(clients) > 0)
        result.problems.push_back(fmt::format("clients: {} falsely complete, {} refused otherwise, {} cut, {} silent",
                                              clients.falsely_complete, clients.refused_wrongly, clients.cut,
                                              clients.silent));
      if (result.orphans > 0) result.problems.emplace_back("a process was left behind");
      if (!result.problems.empty()) {
        good = false;
        fmt::print(stderr, "{} of rank {} after {} ms: {}\n{}\n", promise.name, options.victim, options.moment.count(),
                   fmt::join(result.problems, "; "), result.output);
      }
      add(result, summary);
    }
  }
  fmt::print(
      "| fault | n | known to a survivor after (ms: min / median / max) | server ended after (ms) | error events | "
      "refused with 503 | lost with their server | wrong ends | orphans |\n"
      "|---|---|---|---|---|---|---|---|---|\n");
  for (size_t idx = 0; idx < summaries.size(); idx++) print_row(promises[idx], summaries[idx]);
  return good ? 0 : 1;
}

}  // namespace
}  // namespace cachalot::test

int main(int argc, char** argv) {
  CLI::App app{"Faults on a served group, at random ranks and moments under load"};
  int num_trials = 2;
  unsigned seed = 1;
  double slow = 1;
  bool link_down = false;
  app.add_option("--trials", num_trials, "Faults of each kind")->capture_default_str();
  app.add_option("--seed", seed, "Of the random ranks and moments")->capture_default_str();
  app.add_option("--slow", slow, "Factor on the promised times, for a machine that other work keeps busy")
      ->capture_default_str();
  app.add_flag("--link-down", link_down,
               "Nodes that are cut off instead; in a network namespace of this program's own");
  CLI11_PARSE(app, argc, argv);
  return cachalot::test::run(link_down ? std::span<const cachalot::test::Promise>(cachalot::test::kBetweenNodes)
                                       : std::span<const cachalot::test::Promise>(cachalot::test::kOnOneNode),
                             num_trials, seed, slow);
}
