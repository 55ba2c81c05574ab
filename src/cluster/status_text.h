#pragma once

#include <string>
#include <vector>

#include "cluster/cluster_load.h"
#include "cluster/cluster_state.h"

namespace cachalot {

// For a person: replicas, their load, ranks. `loads`: of the state's replicas, in their order.
std::string status_text(const ClusterState& state, const std::vector<ReplicaLoad>& loads);
// Its part about ranks: where each runs, and which experts it holds.
std::string rank_map_text(const ClusterState& state, const std::vector<ReplicaLoad>& loads);
// The same as status_text() for a program.
std::string status_json(const ClusterState& state, const std::vector<ReplicaLoad>& loads);

// Columns as wide as their widest cell, two spaces apart; the first row is the head.
std::string table_text(const std::vector<std::vector<std::string>>& rows);

}  // namespace cachalot
