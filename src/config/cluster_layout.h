#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/cluster_file.h"

namespace cachalot {

// Where one replica of a cluster stands: all its ranks are on one node.
struct PlacedReplica {
  int dp_rank = 0;
  int node = 0;              // its index in ClusterFile::nodes
  int local_idx = 0;         // the how many-th of its node
  uint16_t port = 0;         // of its server; 0: any free one
  std::vector<int> devices;  // of its node, one a rank

  std::string label() const { return "replica " + std::to_string(dp_rank); }
};

// Replicas fill the nodes in the file's order; each takes as many devices as it has ranks. Settles how many there are
// if the file does not say. Errors: nodes without devices; more replicas than fit.
Result<std::vector<PlacedReplica>> place_replicas(ClusterFile& cluster);

}  // namespace cachalot
