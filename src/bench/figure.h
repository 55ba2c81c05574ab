#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "bench/step_cost.h"

namespace cachalot {

// One measurement: some steps in a row, with the machine's limits of just before and after.
struct Sample {
  double num_tokens = 0, seconds = 0;
  double least_seconds = 0;     // by `limits`
  MachineLimits limits;         // mean of before and after
  double distinct_experts = 0;  // mean of the steps' MoE layers
};

// What is known of a phase at a batch size. All but the extremes and the experts are of the median sample, so that
// speed, limit and machine belong together, however the machine drifts.
struct Figure {
  std::string phase;  // "prefill" or "decode"
  int batch = 0;      // tokens for prefill
  std::string weights, isa;
  int context = 0;
  double tokens_per_s = 0, min = 0, max = 0;
  double limit_tokens_per_s = 0;
  MachineLimits limits;
  double distinct_experts = 0, uniform_distinct_experts = 0;

  double fraction_of_limit() const { return tokens_per_s / limit_tokens_per_s; }
  // Tokens that gather at few experts, or avoid each other more than chance would, make a figure that means nothing.
  bool counts() const;
};

// Fills what follows from the samples (at least one).
void summarize(std::span<const Sample> samples, Figure& figure);

std::string figures_table(std::span<const Figure> figures);
// {"results": [...]}, a figure a line.
std::string figures_json(std::span<const Figure> figures);

}  // namespace cachalot
