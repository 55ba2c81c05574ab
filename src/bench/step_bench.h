#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/step_trace.h"
#include "bench/step_figure.h"
#include "config/options.h"
#include "engine/rank_engine.h"

namespace cachalot {

// Spans in Chrome's trace event format, which chrome://tracing and https://ui.perfetto.dev show: a track for each rank.

// The events of one rank's track, one a line; `name` is the track's.
std::string chrome_events(int rank, const std::string& name, std::span<const TraceSpan> spans);
// The file's text, of the ranks' events.
std::string chrome_trace(std::span<const std::string> events_of_ranks);

struct StepBenchOptions {
  int prompt = 512;             // tokens of each replica's prompt; 0: no prefill
  std::vector<int> batches{1};  // of decode: sequences of each replica; may be empty
  int context = 128;            // of every sequence: tokens before its first step
  int steps = 32, repeat = 3;   // steps of a turn (of decode; a prefill is one), turns of a phase
  std::function<void(const std::string&)> on_progress = {};  // told what is done now; may be empty
};

// What an engine that works for so many replicas must hold.
void reserve_for_steps(const StepBenchOptions& options, int num_replicas, EngineOptions& engine);

struct StepBenchResult {
  std::vector<StepFigure> figures;
  std::vector<std::string> events;  // of each rank, of the last turn of every phase (bench/step_bench.h)
};

// Steps of all ranks together on random tokens, as a server makes them but for its scheduler. Every rank calls it; the
// result is on rank 0. `alone`, on rank 0: the engine of one process that does the same in turns with them; null: none.
Result<StepBenchResult> run_step_bench(RankEngine& engine, RankEngine* alone, const StepBenchOptions& options);

// Decode steps while experts move (--enable-eplb): those before, beside the copying, and behind the last switch.
struct MoveFigure {
  std::string name;
  int num_steps = 0;
  double median_ms = 0, p90_ms = 0;
  double busiest_over_mean = 0;  // rows of experts, of the rank that has most in each layer
};
std::string moves_table(const std::vector<MoveFigure>& figures);

// steps * repeat decode steps of the first batch. Every rank calls it; the result is on rank 0. The error: experts
// stay.
Result<std::vector<MoveFigure>> run_moves_bench(RankEngine& engine, const StepBenchOptions& options);

}  // namespace cachalot
