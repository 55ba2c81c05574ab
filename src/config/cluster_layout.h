#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
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
  uint16_t agent_port = 0;   // of its agent, if it is one of a group; 0: any free one
  std::vector<int> devices;  // of its node, one a rank

  std::string label() const { return "replica " + std::to_string(dp_rank); }
};

// Replicas fill the nodes in the file's order; each takes as many devices as it has ranks. Settles how many there are
// if the file does not say. Errors: nodes without devices; more replicas than fit; ports that do not exist, or that two
// of the cluster's listeners would share.
Result<std::vector<PlacedReplica>> place_replicas(ClusterFile& cluster);

// The addresses of a name, as numbers, the preferred one first. Errors say why there is none.
using ResolveName = std::function<Result<std::vector<std::string>>(const std::string& name)>;
Result<std::vector<std::string>> resolve_name(const std::string& name);

// Fills in each node's `numeric`. Errors: an address that does not resolve; one node under two addresses; an address
// that means each machine itself (127.0.1.1), where the nodes are several.
Status resolve_addresses(ClusterFile& cluster, const ResolveName& resolve = resolve_name);

bool is_loopback(std::string_view address);  // "127.0.1.1", "::1", "localhost"

}  // namespace cachalot
