#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/ports.h"
#include "config/cluster_file.h"
#include "config/cluster_layout.h"

namespace cachalot {

// Settles who the nodes are: without any in its file, a cluster in a Slurm allocation takes the allocation's, as
// `scontrol` spells them out; then finds their addresses (config/cluster_layout.h).
Status complete_nodes(ClusterFile& cluster);

// Free ports of this machine in place of those that are 0 (any free one): they stay through restarts, so that the
// router knows its servers. To be kept as long as the cluster is up.
Result<std::vector<KeptPort>> choose_ports(ClusterFile& cluster, std::vector<PlacedReplica>& replicas);

// A server of a node that is this machine has the router's port, too: then what is wrong. Found before either starts.
std::optional<std::string> router_port_fault(const ClusterFile& cluster, const std::vector<PlacedReplica>& replicas);

// Those of this machine can be listened on; else the error names the key that says otherwise.
Status check_ports(const ClusterFile& cluster, const std::vector<PlacedReplica>& replicas);

}  // namespace cachalot
