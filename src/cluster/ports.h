#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/cluster_file.h"
#include "config/cluster_layout.h"

namespace cachalot {

// Free ports of this machine in place of those that are 0 (any free one): they stay through restarts, so that the
// router knows its servers.
Status choose_ports(ClusterFile& cluster, std::vector<PlacedReplica>& replicas);

// Those of this machine can be listened on; else the error names the key that says otherwise.
Status check_ports(const ClusterFile& cluster, const std::vector<PlacedReplica>& replicas);

struct ListenFault {
  bool is_of_address;  // at no port; else this port cannot be had
  std::string why;
};

// Why nobody can listen there on this machine; nothing: one can. Port 0: any. Binds it for a moment.
std::optional<ListenFault> listen_fault(const std::string& host, uint16_t port);

}  // namespace cachalot
