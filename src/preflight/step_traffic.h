#pragma once

#include <boost/describe/class.hpp>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "config/model_config.h"
#include "config/options.h"
#include "model/inputs.h"

namespace cachalot {

// How a model's tokens choose experts: `topk_groups` of the groups first, where there are groups, then top_k experts in
// them.
struct ExpertRouting {
  int num_experts = 0, top_k = 0, num_groups = 1, topk_groups = 1;
};
ExpertRouting routing_of(const ModelConfig& config);

// The chance that a token goes to a rank for any of its experts, if any groups, and any experts in them, are as likely
// as any others. shares: of the tokens that choose an expert, how many that rank computes.
double chance_of_any(const ExpertRouting& routing, std::span<const double> shares);

// Of `num_local` experts, how many `num_rows` tokens choose on average: rows are independent of each other.
double expected_distinct(const ExpertRouting& routing, int num_local, double num_rows);

// A layout of ranks on nodes: replicas one after another, each node with as many ranks.
struct NodeLayout {
  int dp_size = 1, tp_size = 1, num_nodes = 1;

  int num_ranks() const { return dp_size * tp_size; }
  int ranks_per_node() const { return num_ranks() / num_nodes; }
  int node_of(int rank) const { return rank / ranks_per_node(); }
};

// What a step brings: as many rows in every replica.
struct StepRows {
  int64_t rows_per_replica = 0, logit_rows_per_replica = 0;
};

// The messages of one operation of the forward pass, by the operation's name in the code; averages over what tokens
// choose, if every expert is as likely as any other.
struct OperationTraffic {
  std::string operation;
  int times = 1;           // a step: layers, mostly
  double rank_bytes = 0;   // that the busiest rank sends in one
  double total_bytes = 0;  // that all ranks send in one
  double far_bytes = 0;    // of these, to other nodes
  double node_bytes = 0;   // of these, out of the busiest node
};
BOOST_DESCRIBE_STRUCT(OperationTraffic, (), (operation, times, rank_bytes, total_bytes, far_bytes, node_bytes))

struct StepTraffic {
  std::vector<OperationTraffic> operations;  // in the order of a step; those that move nothing are left out

  double sum(double OperationTraffic::* bytes) const;  // over a step
};

// `settings` are any rank's, and the experts where the first of the layers has them; `expert_input_group` is
// ModelMemory's.
StepTraffic step_traffic(const ModelConfig& config, const ModelSettings& settings, const NodeLayout& layout,
                         int expert_input_group, const StepRows& rows);

}  // namespace cachalot
