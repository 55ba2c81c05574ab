#pragma once

#include <cstdint>

#include "config/model_config.h"

namespace cachalot {

// How a model's tokens choose experts: `topk_groups` of the groups first, where there are groups, then top_k experts in
// them.
struct ExpertRouting {
  int num_experts = 0, top_k = 0, num_groups = 1, topk_groups = 1;
};
ExpertRouting routing_of(const ModelConfig& config);

// The chance that a token chooses any of experts [begin, end), if any groups, and any experts in them, are as likely as
// any others.
double chance_of_any(const ExpertRouting& routing, int begin, int end);

// Of `num_local` experts, how many `num_rows` tokens choose on average: rows are independent of each other.
double expected_distinct(const ExpertRouting& routing, int num_local, double num_rows);

}  // namespace cachalot
