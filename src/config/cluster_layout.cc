#include "config/cluster_layout.h"

#include <fmt/format.h>

namespace cachalot {
namespace {

std::string where(const ClusterFile& cluster) {
  return cluster.path.empty() ? "the cluster" : cluster.path;
}

std::string counted(ptrdiff_t count, const char* thing) {
  return fmt::format("{} {}{}", count, thing, count == 1 ? "" : "s");
}

// A replica never spans nodes: its ranks are the children of its server.
Result<int> replicas_that_fit(const ClusterFile& cluster) {
  int num_replicas = 0;
  for (const ClusterNode& node : cluster.nodes) {
    if (node.devices == 0)
      return make_parameter_error("devices",
                                  "{}: node {} has no `devices`; give their number there or for all at the top",
                                  where(cluster), node.address);
    num_replicas += node.devices / cluster.tensor_parallel_size;
  }
  return num_replicas;
}

}  // namespace

Result<std::vector<PlacedReplica>> place_replicas(ClusterFile& cluster) {
  ASSIGN_OR_RETURN(const int num_fit, replicas_that_fit(cluster));
  const int wanted = cluster.data_parallel_size > 0 ? cluster.data_parallel_size : num_fit;
  const int tp_size = cluster.tensor_parallel_size;
  if (wanted == 0 || wanted > num_fit)
    return make_parameter_error(
        "devices", "{}: {} of tensor-parallel-size {} can stand on the devices of its {} (each on one node); {}",
        where(cluster), counted(num_fit, "replica"), tp_size, counted(std::ssize(cluster.nodes), "node"),
        wanted == 0 ? "at least 1 must" : fmt::format("data-parallel-size asks for {}", wanted));
  cluster.data_parallel_size = wanted;
  std::vector<PlacedReplica> replicas;
  for (size_t node = 0; node < cluster.nodes.size(); node++) {
    for (int local_idx = 0; local_idx < cluster.nodes[node].devices / tp_size; local_idx++) {
      if (std::ssize(replicas) == wanted) return replicas;
      PlacedReplica replica{.dp_rank = static_cast<int>(replicas.size()),
                            .node = static_cast<int>(node),
                            .local_idx = local_idx,
                            .port = static_cast<uint16_t>(cluster.port == 0 ? 0 : cluster.port + local_idx)};
      for (int rank = 0; rank < tp_size; rank++) replica.devices.push_back(local_idx * tp_size + rank);
      replicas.push_back(std::move(replica));
    }
  }
  return replicas;
}

}  // namespace cachalot
