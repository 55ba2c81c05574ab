#include "cluster/ports.h"

#include <netdb.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>

#include "base/file_descriptor.h"
#include "cluster/commands.h"
#include "serve/loopback_port.h"

namespace cachalot {
namespace {

Status check_port(const std::string& host, uint16_t port, const char* key) {
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int failed = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found); failed != 0)
    return make_parameter_error(key, "{} cannot be listened on: {}", host, gai_strerror(failed));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> address(found, freeaddrinfo);
  const FileDescriptor listener(socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;  // as the servers do
  setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener.get(), address->ai_addr, address->ai_addrlen) == 0 && listen(listener.get(), 1) == 0) return {};
  return make_parameter_error(key, "{}:{} cannot be listened on: {} ({} sets another one)", host, port,
                              std::strerror(errno), key);
}

}  // namespace

Status choose_ports(ClusterFile& cluster, std::vector<PlacedReplica>& replicas) {
  if (cluster.data_parallel_rpc_port == 0) {
    ASSIGN_OR_RETURN(cluster.data_parallel_rpc_port, free_loopback_port());
  }
  for (PlacedReplica& replica : replicas) {
    if (replica.port != 0) continue;
    ASSIGN_OR_RETURN(replica.port, free_loopback_port());
  }
  return {};
}

Status check_ports(const ClusterFile& cluster, const std::vector<PlacedReplica>& replicas) {
  if (cluster.router.enabled) RETURN_IF_ERROR(check_port(router_host(cluster), cluster.router.port, "router.port"));
  if (cluster.launcher != Launcher::kLocal) return {};
  RETURN_IF_ERROR(check_port(cluster.nodes[0].address, cluster.data_parallel_rpc_port, "data-parallel-rpc-port"));
  for (const PlacedReplica& replica : replicas)
    RETURN_IF_ERROR(check_port(cluster.nodes[static_cast<size_t>(replica.node)].address, replica.port, "port"));
  return {};
}

}  // namespace cachalot
