#include "bench/step_figure.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>

#include "base/error.h"
#include "model/feed_forward.h"

namespace cachalot {
namespace {

namespace json = boost::json;

double efficiency(const StepTurn& turn) {
  return turn.alone_seconds / turn.ranks.front().seconds;
}

// With one process beside it, how the ranks compare to it decides; alone, how long it took.
const StepTurn& median_turn(std::span<const StepTurn> turns) {
  std::vector<const StepTurn*> sorted;
  for (const StepTurn& turn : turns) sorted.push_back(&turn);
  std::ranges::sort(sorted, {}, [](const StepTurn* turn) {
    return turn->alone_seconds > 0 ? efficiency(*turn) : -turn->ranks.front().seconds;
  });
  return *sorted[(sorted.size() - 1) / 2];
}

RankStep describe(const RankTurn& rank, double turn_seconds, int num_steps) {
  const double ms_of_step = 1e3 / num_steps, num_layers = std::max<double>(1, static_cast<double>(rank.work.size()));
  RankStep step{.compute_ms = rank.computing * ms_of_step, .exchange_ms = rank.exchanging * ms_of_step};
  step.waiting_ms = turn_seconds * ms_of_step - step.compute_ms - step.exchange_ms;
  for (const ExpertWork& work : rank.work) {
    step.expert_rows += work.rows / num_layers;
    step.experts += work.experts / num_layers;
  }
  return step;
}

// The sum over exchanges of the largest of the ranks, over that of their mean.
template <class Amount>
double imbalance(std::span<const RankTurn> ranks, Amount amount) {
  double largest = 0, total = 0;
  for (size_t idx = 0; idx < ranks.front().work.size(); idx++) {
    double most = 0;
    for (const RankTurn& rank : ranks) {
      most = std::max<double>(most, amount(rank.work[idx]));
      total += amount(rank.work[idx]);
    }
    largest += most;
  }
  return total > 0 ? largest * static_cast<double>(ranks.size()) / total : 1;
}

json::object to_json(const StepFigure& figure) {
  json::object object{{"phase", figure.phase},
                      {"batch", figure.batch},
                      {"step_ms", figure.step_ms},
                      {"ranks", json::value_from(figure.ranks)},
                      {"row_imbalance", figure.row_imbalance},
                      {"expert_imbalance", figure.expert_imbalance},
                      {"imbalance_ms", figure.imbalance_ms()}};
  if (figure.alone_ms == 0) return object;
  object["one_process_ms"] = figure.alone_ms;
  object["efficiency"] = figure.efficiency;
  object["min_efficiency"] = figure.min_efficiency;
  object["max_efficiency"] = figure.max_efficiency;
  object["balanced_efficiency"] = figure.balanced_efficiency();
  return object;
}

}  // namespace

std::vector<ExpertWork> expert_work(std::span<const TraceSpan> spans) {
  std::vector<ExpertWork> all;
  for (const TraceSpan& span : spans) {
    // A layer's gate comes before its experts, which may come in several passes.
    if (span.name == kGateSpan) all.emplace_back();
    if (span.name != kExpertsSpan) continue;
    CHECK(!all.empty());
    all.back().rows += span.rows;
    all.back().experts += span.experts;
    all.back().seconds += std::chrono::duration<float>(span.end - span.begin).count();
  }
  return all;
}

StepFigure summarize(std::string phase, int batch, std::span<const StepTurn> turns) {
  CHECK(!turns.empty());
  const StepTurn& turn = median_turn(turns);
  const double seconds = turn.ranks.front().seconds, ms_of_step = 1e3 / turn.num_steps;
  StepFigure figure{.phase = std::move(phase), .batch = batch, .step_ms = seconds * ms_of_step};
  for (const RankTurn& rank : turn.ranks) {
    CHECK(rank.work.size() == turn.ranks.front().work.size());
    figure.ranks.push_back(describe(rank, seconds, turn.num_steps));
  }
  figure.row_imbalance = imbalance(turn.ranks, [](const ExpertWork& work) { return work.rows; });
  figure.expert_imbalance = imbalance(turn.ranks, [](const ExpertWork& work) { return work.experts; });
  for (size_t idx = 0; idx < turn.ranks.front().work.size(); idx++) {
    float slowest = 0;
    for (const RankTurn& rank : turn.ranks) slowest = std::max(slowest, rank.work[idx].seconds);
    figure.experts_ms += slowest * ms_of_step;
  }
  if (turn.alone_seconds == 0) return figure;
  figure.alone_ms = turn.alone_seconds * ms_of_step;
  figure.efficiency = efficiency(turn);
  const auto [least, most] = std::ranges::minmax(turns, {}, efficiency);
  figure.min_efficiency = efficiency(least);
  figure.max_efficiency = efficiency(most);
  return figure;
}

std::string steps_table(std::span<const StepFigure> figures) {
  std::string text = fmt::format("{:<8}{:>6}{:>6}{:>10}{:>12}{:>13}{:>12}{:>10}{:>12}\n", "phase", "batch", "rank",
                                 "step ms", "compute ms", "exchange ms", "waiting ms", "experts", "their rows");
  for (const StepFigure& figure : figures) {
    for (size_t rank = 0; rank < figure.ranks.size(); rank++) {
      const RankStep& step = figure.ranks[rank];
      text += fmt::format("{:<8}{:>6}{:>6}{:>10.3f}{:>12.3f}{:>13.3f}{:>12.3f}{:>10.1f}{:>12.1f}\n", figure.phase,
                          figure.batch, rank, figure.step_ms, step.compute_ms, step.exchange_ms, step.waiting_ms,
                          step.experts, step.expert_rows);
    }
    text += fmt::format("  busiest rank over the mean: experts {:.3f}, rows {:.3f}; costs {:.3f} ms of a step\n",
                        figure.expert_imbalance, figure.row_imbalance, figure.imbalance_ms());
    if (figure.alone_ms == 0) continue;
    text += fmt::format(
        "  one process: {:.3f} ms; the ranks reach {:.3f} of its speed (turns: {:.3f} to {:.3f}), with experts in "
        "balance {:.3f}\n",
        figure.alone_ms, figure.efficiency, figure.min_efficiency, figure.max_efficiency, figure.balanced_efficiency());
  }
  return text;
}

std::string steps_json(std::span<const StepFigure> figures) {
  std::string text = "{\"results\": [";
  for (const char* separator = "\n  "; const StepFigure& figure : figures) {
    text += separator + json::serialize(to_json(figure));
    separator = ",\n  ";
  }
  return text + "\n]}\n";
}

}  // namespace cachalot
