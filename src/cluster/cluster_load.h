#pragma once

#include <optional>
#include <vector>

#include "cluster/cluster_state.h"
#include "serve/server_state.h"

namespace cachalot {

// Asks all servers of the cluster for their states (serve/server_state.h), which may take a few seconds where one does
// not answer. By their order; nothing: not reached.
std::vector<std::optional<ServerState>> collect_states(const ClusterState& state);

}  // namespace cachalot
