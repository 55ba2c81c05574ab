#include "cluster/start_checks.h"

#include <fmt/format.h>

#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/process.h"
#include "cluster/commands.h"
#include "config/cluster_layout.h"

namespace cachalot {

namespace {

Result<std::vector<std::string>> slurm_nodes() {
  ASSIGN_OR_RETURN(const ProgramOutput names,
                   run_program({.words = {"scontrol", "show", "hostnames"}}, std::chrono::seconds(30)));
  std::istringstream lines(names.output);
  std::vector<std::string> nodes;
  for (std::string name; std::getline(lines, name);) {
    if (!name.empty()) nodes.push_back(name);
  }
  if (nodes.empty())
    return make_error(ErrorCode::kUnavailable,
                      "`launcher: slurm` without `nodes` takes the nodes of its allocation, and this is none: start it "
                      "within salloc or sbatch");
  return nodes;
}

}  // namespace

Status complete_nodes(ClusterFile& cluster) {
  if (cluster.nodes.empty()) {
    ASSIGN_OR_RETURN(const std::vector<std::string> names, slurm_nodes());
    for (const std::string& name : names) {
      cluster.nodes.push_back(cluster.any_node);
      cluster.nodes.back().address = name;
    }
  }
  return resolve_addresses(cluster);
}

namespace {

// `remedy`: what sets another port.
Status check_port(const std::string& host, uint16_t port, const char* key, const char* remedy) {
  const std::optional<ListenFault> fault = listen_fault(host, port);
  if (!fault) return {};
  if (fault->is_of_address) return make_parameter_error(key, "{} cannot be listened on: {}", host, fault->why);
  return make_parameter_error(key, "{} cannot be listened on: {}; {} sets another port", address_text(host, port),
                              fault->why, remedy);
}

// One that is none of those taken already.
Result<uint16_t> another_free_port(std::set<uint16_t>& taken, std::vector<KeptPort>& kept) {
  for (;;) {
    ASSIGN_OR_RETURN(KeptPort port, KeptPort::keep());
    kept.push_back(std::move(port));
    if (taken.insert(kept.back().port()).second) return kept.back().port();
  }
}

}  // namespace

Result<std::vector<KeptPort>> choose_ports(ClusterFile& cluster, std::vector<PlacedReplica>& replicas) {
  std::vector<KeptPort> kept;
  std::set<uint16_t> taken{cluster.router.port, cluster.data_parallel_rpc_port};
  if (cluster.router.enabled && cluster.router.port == 0) {
    ASSIGN_OR_RETURN(cluster.router.port, another_free_port(taken, kept));
  }
  if (cluster.data_parallel_rpc_port == 0) {
    ASSIGN_OR_RETURN(cluster.data_parallel_rpc_port, another_free_port(taken, kept));
  }
  for (PlacedReplica& replica : replicas) {
    if (replica.port != 0) continue;
    ASSIGN_OR_RETURN(replica.port, another_free_port(taken, kept));
  }
  return kept;
}

std::optional<std::string> router_port_fault(const ClusterFile& cluster, const std::vector<PlacedReplica>& replicas) {
  if (!cluster.router.enabled || cluster.router.port == 0) return std::nullopt;
  const std::string host = router_host(cluster);
  const auto collides = [&](const std::string& address, uint16_t port) {
    return port == cluster.router.port && (host == "0.0.0.0" || host == "::" || host == address) &&
           !listen_fault(address, 0);  // an address of this machine
  };
  const auto fault = [&](const std::string& address, const std::string& who) {
    return fmt::format("{} and the router would both listen at {}", who, address_text(address, cluster.router.port));
  };
  for (const PlacedReplica& replica : replicas) {
    const std::string& address = cluster.nodes[static_cast<size_t>(replica.node)].listen_address();
    if (collides(address, replica.port)) return fault(address, "the server of " + replica.label());
  }
  const std::string& first = cluster.nodes[0].listen_address();
  if (cluster.spans_replicas() && collides(first, cluster.data_parallel_rpc_port))
    return fault(first, "the rendezvous of the ranks (data-parallel-rpc-port)");
  return std::nullopt;
}

Status check_ports(const ClusterFile& cluster, const std::vector<PlacedReplica>& replicas) {
  const auto address_of = [&](int node) { return cluster.nodes[static_cast<size_t>(node)].address; };
  if (const auto fault = router_port_fault(cluster, replicas))
    return make_parameter_error("router.port", "{}: {}; give one of them another port", cluster.where("router.port"),
                                *fault);
  if (cluster.router.enabled)
    RETURN_IF_ERROR(check_port(router_host(cluster), cluster.router.port, "router.port",
                               "`router: {port: ...}` in the file, or `up --port`,"));
  if (cluster.launcher != Launcher::kLocal) return {};
  RETURN_IF_ERROR(check_port(address_of(0), cluster.data_parallel_rpc_port, "data-parallel-rpc-port",
                             "`data-parallel-rpc-port` in the file"));
  for (const PlacedReplica& replica : replicas)
    RETURN_IF_ERROR(check_port(address_of(replica.node), replica.port, "port", "`port` in the file"));
  return {};
}

}  // namespace cachalot
