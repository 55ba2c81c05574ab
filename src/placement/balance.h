#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "placement/expert_placement.h"

// Which experts get copies, and where, by what was recorded: replicate the busiest, pack by load, groups to nodes
// (after DeepSeek's EPLB, 2025).
namespace cachalot {

// How many rows chose each expert.
struct ExpertLoad {
  std::vector<std::vector<double>> layers;  // [layer][expert], of layers with experts

  // {"layers": [[17, 0, 4, ...], ...]}, as GET /expert_load answers.
  static Result<ExpertLoad> parse(std::string_view json, const std::string& path);
  // The same of everything, where nothing was recorded.
  static ExpertLoad uniform(int num_layers, int num_experts);
  size_t num_experts() const { return layers.empty() ? 0 : layers[0].size(); }  // of each
  Status add(const ExpertLoad& other);  // another server's; the error: of another model
};

struct BalanceOptions {
  int num_ranks = 1;
  int num_redundant = 0;  // slots of a layer beyond one for each expert; spread as evenly as the slots
  int num_nodes = 1;      // with as many ranks each, one node's after the other's
  int num_groups = 1;  // of experts, of which a token chooses from a few: a group's experts stay on one node if nodes
                       // divide groups and slots evenly; else any expert goes anywhere
};

// Errors: shapes that are none, or too many slots.
Result<ExpertPlacement> balanced_placement(const ExpertLoad& load, const BalanceOptions& options, uint32_t version);

// The next version of a placement, within its slots: each rank holds as many experts of a layer as before, those that
// stay keep their slots, and a layer stays as it is where another order would do little good.
Result<ExpertPlacement> rebalanced_placement(const ExpertPlacement& now, const ExpertLoad& load,
                                             const BalanceOptions& options);

// In each layer, of the rank that has most to do if all copies of an expert get as much.
std::vector<double> busiest_rows(const ExpertPlacement& placement, const ExpertLoad& load);

// Rows of the busiest rank over the mean of all ranks, layers added up: every home sends rows with this load, each to
// the copies of its choice. nodes: of each rank; empty: all on one.
double imbalance_of(const ExpertPlacement& placement, const ExpertLoad& load, std::span<const int> nodes);

}  // namespace cachalot
