#include "preflight/expert_spread.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace cachalot {
namespace {

// Choosing top_k of `num_open` experts misses all of `num_wanted` of them.
double chance_of_none(int num_open, int num_wanted, int top_k) {
  double chance = 1;
  for (int idx = 0; idx < top_k; idx++)
    chance *= static_cast<double>(std::max(num_open - num_wanted - idx, 0)) / (num_open - idx);
  return chance;
}

}  // namespace

ExpertRouting routing_of(const ModelConfig& config) {
  ExpertRouting routing{.num_experts = config.num_experts, .top_k = config.num_experts_per_token};
  if (config.topk_method != TopkMethod::kGreedy) {
    routing.num_groups = config.num_groups;
    routing.topk_groups = config.topk_groups;
  }
  return routing;
}

double chance_of_any(const ExpertRouting& routing, int begin, int end) {
  const int group_size = routing.num_experts / routing.num_groups, num_wanted = end - begin;
  // chances[g][w]: of so many groups chosen so far, which hold so many of the wanted experts.
  std::vector<std::vector<double>> chances(static_cast<size_t>(routing.topk_groups) + 1,
                                           std::vector<double>(static_cast<size_t>(num_wanted) + 1));
  chances[0][0] = 1;
  for (int group = 0; group < routing.num_groups; group++) {
    const int first = group * group_size;
    const int wanted_here = std::max(std::min(end, first + group_size) - std::max(begin, first), 0);
    const int num_left = routing.num_groups - group;  // this one among them
    for (int chosen = routing.topk_groups; chosen >= 0; chosen--) {
      const double takes = std::min(1.0, static_cast<double>(routing.topk_groups - chosen) / num_left);
      std::vector<double>& here = chances[static_cast<size_t>(chosen)];
      for (int wanted = num_wanted; wanted >= 0; wanted--) {
        const double chance = here[static_cast<size_t>(wanted)];
        if (chance == 0) continue;
        here[static_cast<size_t>(wanted)] = chance * (1 - takes);
        if (takes > 0)
          chances[static_cast<size_t>(chosen) + 1][static_cast<size_t>(wanted + wanted_here)] += chance * takes;
      }
    }
  }
  double none = 0;
  for (int wanted = 0; wanted <= num_wanted; wanted++)
    none += chances.back()[static_cast<size_t>(wanted)] *
            chance_of_none(routing.topk_groups * group_size, wanted, routing.top_k);
  return 1 - none;
}

double expected_distinct(const ExpertRouting& routing, int num_local, double num_rows) {
  if (routing.num_experts == 0) return 0;
  const double chosen = static_cast<double>(routing.top_k) / routing.num_experts;
  return num_local * (1 - std::pow(1 - chosen, num_rows));
}

}  // namespace cachalot
