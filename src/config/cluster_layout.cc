#include "config/cluster_layout.h"

#include <fmt/format.h>
#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <optional>

#include "base/text.h"

namespace cachalot {
namespace {

std::string where(const ClusterFile& cluster) {
  return cluster.path.empty() ? "the cluster" : cluster.path;
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

bool is_wildcard(const std::string& address) {
  return address == "0.0.0.0" || address == "::";
}

// Two that listen at one place are an error. The router's machine is a node's where all are this one; elsewhere its
// port is tried on the machine itself.
Status check_listeners(const ClusterFile& cluster, const std::vector<PlacedReplica>& replicas) {
  std::map<int, std::vector<std::pair<std::string, std::string>>> taken;  // by port: address and who
  const auto add = [&](const std::string& address, int port, const std::string& key, std::string who) -> Status {
    if (port == 0) return {};  // any free one
    if (port > 65535)
      return make_parameter_error(key, "{} is {}: the port of {} would be {}; the last one is 65535",
                                  cluster.where(key), cluster.port, who, port);
    for (const auto& [other, whose] : taken[port]) {
      if (other == address || is_wildcard(other) || is_wildcard(address))
        return make_parameter_error(key, "{}: {} and {} would both listen at {}:{}; give one of them another port",
                                    cluster.where(key), whose, who, address, port);
    }
    taken[port].emplace_back(address, std::move(who));
    return {};
  };
  if (cluster.spans_replicas() && replicas.size() > 1)
    RETURN_IF_ERROR(add(cluster.nodes[0].address, cluster.data_parallel_rpc_port, "data-parallel-rpc-port",
                        "the rendezvous of the ranks (data-parallel-rpc-port)"));
  for (const PlacedReplica& replica : replicas) {
    const int port = cluster.port == 0 ? 0 : cluster.port + replica.local_idx;
    RETURN_IF_ERROR(add(cluster.nodes[static_cast<size_t>(replica.node)].address, port, "port",
                        fmt::format("the server of {}", replica.label())));
    if (cluster.heals() && cluster.spans_replicas())
      RETURN_IF_ERROR(add(cluster.nodes[static_cast<size_t>(replica.node)].address, replica.agent_port,
                          "data-parallel-rpc-port", fmt::format("the agent of {}", replica.label())));
  }
  if (!cluster.router.enabled || cluster.launcher != Launcher::kLocal) return {};
  return add(cluster.router.host.empty() ? "127.0.0.1" : cluster.router.host, cluster.router.port, "router.port",
             "the router");
}

}  // namespace

bool is_loopback(std::string_view address) {
  return address == "localhost" || address == "::1" || address.starts_with("127.");
}

Result<std::vector<std::string>> resolve_name(const std::string& name) {
  const addrinfo hints{.ai_socktype = SOCK_STREAM};
  addrinfo* list = nullptr;
  if (const int failed = getaddrinfo(name.c_str(), nullptr, &hints, &list); failed != 0)
    return make_error(ErrorCode::kNotFound, "{}", gai_strerror(failed));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> found(list, freeaddrinfo);
  std::vector<std::string> addresses;
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    std::array<char, NI_MAXHOST> text{};
    if (getnameinfo(entry->ai_addr, entry->ai_addrlen, text.data(), text.size(), nullptr, 0, NI_NUMERICHOST) == 0)
      addresses.emplace_back(text.data());
  }
  if (addresses.empty()) return make_error(ErrorCode::kNotFound, "no address");
  return addresses;
}

Status resolve_addresses(ClusterFile& cluster, const ResolveName& resolve) {
  std::map<std::string, size_t> nodes;  // by address
  std::optional<size_t> on_loopback, elsewhere;
  for (size_t idx = 0; idx < cluster.nodes.size(); idx++) {
    ClusterNode& node = cluster.nodes[idx];
    const Result<std::vector<std::string>> addresses = resolve(node.address);
    if (!addresses)
      return make_parameter_error("nodes", "{} has the address {}, which does not resolve on this machine: {}",
                                  cluster.where(idx), node.address, addresses.error().message);
    for (const std::string& address : *addresses) {
      const auto [other, is_new] = nodes.emplace(address, idx);
      if (is_new || other->second == idx) continue;
      const std::string& first = cluster.nodes[other->second].address;
      const std::string also = first == node.address ? "" : fmt::format(" ({})", address);
      return make_parameter_error("nodes",
                                  "{} has the address {}, the same{} as nodes[{}], {}; a node stands here once, with "
                                  "all its devices",
                                  cluster.where(idx), node.address, also, other->second, first);
    }
    (is_loopback(addresses->front()) ? on_loopback : elsewhere) = idx;
    const bool is_name = std::ranges::find(*addresses, node.address) == addresses->end();
    if (is_name && !is_loopback(addresses->front())) node.numeric = addresses->front();
  }
  if (!on_loopback || !elsewhere || cluster.launcher == Launcher::kLocal) return {};
  const ClusterNode& node = cluster.nodes[*on_loopback];
  return make_parameter_error(
      "nodes",
      "{} has the address {}, on this machine {}, which no other node reaches; give the address under which the others "
      "reach it (`ip addr` there), or take its name off that line of /etc/hosts",
      cluster.where(*on_loopback), node.address, resolve(node.address)->front());
}

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
      if (std::ssize(replicas) == wanted) break;
      PlacedReplica replica{.dp_rank = static_cast<int>(replicas.size()),
                            .node = static_cast<int>(node),
                            .local_idx = local_idx,
                            .port = static_cast<uint16_t>(cluster.port == 0 ? 0 : cluster.port + local_idx),
                            .agent_port = static_cast<uint16_t>(cluster.data_parallel_rpc_port == 0
                                                                    ? 0
                                                                    : cluster.data_parallel_rpc_port + 1 + local_idx)};
      for (int rank = 0; rank < tp_size; rank++) replica.devices.push_back(local_idx * tp_size + rank);
      replicas.push_back(std::move(replica));
    }
  }
  RETURN_IF_ERROR(check_listeners(cluster, replicas));
  return replicas;
}

}  // namespace cachalot
