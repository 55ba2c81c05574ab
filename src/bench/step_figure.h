#pragma once

#include <boost/describe/class.hpp>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/step_trace.h"

namespace cachalot {

// What the experts of one rank did in one MoE layer of one step.
struct ExpertWork {
  int32_t rows = 0;     // each as often as it met an expert
  int32_t experts = 0;  // that had any
  float seconds = 0;
};
// One for each exchange, in order, from what the rank noted.
std::vector<ExpertWork> expert_work(std::span<const TraceSpan> spans);

// What one rank did in a turn of a phase.
struct RankTurn {
  double seconds = 0, computing = 0, exchanging = 0;
  std::vector<ExpertWork> work;  // as long on every rank
};
// Some steps of all ranks.
struct StepTurn {
  int num_steps = 1;
  std::vector<RankTurn> ranks;  // the first one's seconds are the turn's
  double alone_seconds = 0;     // one process, the same work; 0: was not asked
};

// One rank's part of a step, on average.
struct RankStep {
  double compute_ms = 0, exchange_ms = 0;
  double waiting_ms = 0;   // the rest of the step: within it, and for the leader's word on it
  double expert_rows = 0;  // of its experts, in a layer
  double experts = 0;      // of a layer that had any
};
BOOST_DESCRIBE_STRUCT(RankStep, (), (compute_ms, exchange_ms, waiting_ms, expert_rows, experts))

// A phase of steps, by the median of its turns.
struct StepFigure {
  std::string phase;  // "prefill" or "decode"
  int batch = 0;      // of a replica: sequences; for prefill the prompt's tokens
  double step_ms = 0;
  std::vector<RankStep> ranks;
  // The busiest rank over the mean of all ranks, layers added up; 1: in balance, or no experts.
  double row_imbalance = 1, expert_imbalance = 1;
  double experts_ms = 0;  // of a step: time in experts, in each layer the slowest rank's
  // One process with as many threads, which did the same in turns with the ranks; and the ranks' speed over its: of the
  // median turn, the least and the most.
  double alone_ms = 0, efficiency = 0, min_efficiency = 0, max_efficiency = 0;

  // What unequal experts cost. Few rows: reading an expert's weights takes the time; many: computing its rows.
  double imbalance() const { return phase == "prefill" ? row_imbalance : expert_imbalance; }
  double imbalance_ms() const { return experts_ms * (1 - 1 / imbalance()); }
  double balanced_efficiency() const { return efficiency * step_ms / (step_ms - imbalance_ms()); }
};

StepFigure summarize(std::string phase, int batch, std::span<const StepTurn> turns);  // at least one
std::string steps_table(std::span<const StepFigure> figures);
// {"results": [...]}, a figure a line.
std::string steps_json(std::span<const StepFigure> figures);

}  // namespace cachalot
