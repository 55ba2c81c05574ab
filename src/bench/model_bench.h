#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "bench/figure.h"
#include "config/options.h"
#include "engine/rank_engine.h"

namespace cachalot {

struct ModelBenchOptions {
  int prefill = 512;                          // tokens of the prompt; 0: no prefill
  std::vector<int> batches{1, 4, 8, 16, 32};  // of decode; may be empty
  int context = 128, steps = 64;              // of every sequence: tokens before the first step, and steps
  int repeat = 3;                             // how often everything is measured
  std::function<void(const std::string&)> on_progress = {};  // told what is done now; may be empty
};

// What the engine must hold for the measurement.
void reserve_for_bench(const ModelBenchOptions& options, EngineOptions& engine);

// Speed of the model's prefill and decode on random tokens, without scheduler and sampler, each beside the limit that
// the machine sets at that moment. `stored` is of the folder that the engine was created from; the figures' `weights`
// is left to the caller.
Result<std::vector<Figure>> run_model_bench(RankEngine& engine, const StoredModel& stored,
                                            const ModelBenchOptions& options);

}  // namespace cachalot
