#include "cluster/ports.h"

#include <netdb.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <set>
#include <string>

#include "base/file_descriptor.h"
#include "cluster/commands.h"
#include "serve/loopback_port.h"

namespace cachalot {
namespace {

// `remedy`: what sets another port.
Status check_port(const std::string& host, uint16_t port, const char* key, const char* remedy) {
  const std::optional<ListenFault> fault = listen_fault(host, port);
  if (!fault) return {};
  if (fault->is_of_address) return make_parameter_error(key, "{} cannot be listened on: {}", host, fault->why);
  return make_parameter_error(key, "{}:{} cannot be listened on: {}; {} sets another port", host, port, fault->why,
                              remedy);
}

// One that is none of those taken already.
Result<uint16_t> another_free_port(std::set<uint16_t>& taken) {
  for (;;) {
    ASSIGN_OR_RETURN(const uint16_t port, free_loopback_port());
    if (taken.insert(port).second) return port;
  }
}

}  // namespace

std::optional<ListenFault> listen_fault(const std::string& host, uint16_t port) {
  const addrinfo hints{.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM};
  addrinfo* list = nullptr;
  if (const int failed = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list); failed != 0)
    return ListenFault{.is_of_address = true, .why = gai_strerror(failed)};
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> found(list, freeaddrinfo);
  const FileDescriptor listener(socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;  // as the servers do
  setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener.get(), found->ai_addr, found->ai_addrlen) == 0 && listen(listener.get(), 1) == 0)
    return std::nullopt;
  if (errno == EADDRNOTAVAIL) return ListenFault{.is_of_address = true, .why = "it is no address of this machine"};
  return ListenFault{.is_of_address = false, .why = std::strerror(errno)};
}

Status choose_ports(ClusterFile& cluster, std::vector<PlacedReplica>& replicas) {
  std::set<uint16_t> taken{cluster.router.port, cluster.data_parallel_rpc_port};
  if (cluster.data_parallel_rpc_port == 0) {
    ASSIGN_OR_RETURN(cluster.data_parallel_rpc_port, another_free_port(taken));
  }
  for (PlacedReplica& replica : replicas) {
    if (replica.port != 0) continue;
    ASSIGN_OR_RETURN(replica.port, another_free_port(taken));
  }
  return {};
}

Status check_ports(const ClusterFile& cluster, const std::vector<PlacedReplica>& replicas) {
  const auto address_of = [&](int node) { return cluster.nodes[static_cast<size_t>(node)].address; };
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
