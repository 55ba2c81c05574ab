#include "base/ports.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>

namespace cachalot {
namespace {

struct Bound {
  FileDescriptor socket;
  uint16_t port = 0;
};

// As servers bind; `listens`: at that moment, too.
std::expected<Bound, ListenFault> bind_to(const std::string& host, uint16_t port, bool listens) {
  const addrinfo hints{.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM};
  addrinfo* list = nullptr;
  if (const int failed = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list); failed != 0)
    return std::unexpected(ListenFault{.is_of_address = true, .why = gai_strerror(failed)});
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> found(list, freeaddrinfo);
  Bound bound{.socket = FileDescriptor(socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0))};
  const int on = 1;
  setsockopt(bound.socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (bind(bound.socket.get(), found->ai_addr, found->ai_addrlen) != 0 ||
      (listens && listen(bound.socket.get(), 1) != 0) ||
      getsockname(bound.socket.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0)
    return std::unexpected(ListenFault{.is_of_address = errno == EADDRNOTAVAIL, .why = listen_error_text(errno, port)});
  bound.port = ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                                                   : reinterpret_cast<const sockaddr_in&>(address).sin_port);
  return bound;
}

// Of sockets that listen at the port, as links in /proc name them.
std::set<std::string> listening_sockets(uint16_t port) {
  constexpr std::string_view kListens = "0A";
  std::set<std::string> sockets;
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream file(table);
    std::string line;
    std::getline(file, line);  // the head
    while (std::getline(file, line)) {
      std::istringstream fields(line);
      std::string place, local, remote, state, field, inode;
      fields >> place >> local >> remote >> state >> field >> field >> field >> field >> field >> inode;
      if (state == kListens && local.ends_with(fmt::format(":{:04X}", port))) sockets.insert("socket:[" + inode + "]");
    }
  }
  return sockets;
}

// "nginx (pid 77)"; empty where nobody is seen to hold it: another user's process, or one of another container.
std::string holder_of(uint16_t port) {
  const std::set<std::string> sockets = listening_sockets(port);
  if (sockets.empty()) return {};
  for (const std::string& process : names_in_folder("/proc")) {
    if (process.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::string folder = "/proc/" + process;
    for (const std::string& descriptor : names_in_folder(folder + "/fd")) {
      std::error_code gone;
      if (!sockets.contains(std::filesystem::read_symlink(folder + "/fd/" + descriptor, gone).string())) continue;
      std::ifstream file(folder + "/comm");
      std::string name;
      std::getline(file, name);
      return fmt::format("{} (pid {})", name, process);
    }
  }
  return {};
}

}  // namespace

std::string address_text(const std::string& host, uint16_t port) {
  return host.contains(':') ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

Result<KeptPort> KeptPort::keep(const std::string& host) {
  auto bound = bind_to(host, 0, false);
  if (!bound) return make_error(ErrorCode::kIo, "no free port on {}: {}", host, bound.error().why);
  return KeptPort(std::move(bound->socket), bound->port);
}

std::optional<ListenFault> listen_fault(const std::string& host, uint16_t port) {
  auto bound = bind_to(host, port, true);
  return bound ? std::nullopt : std::optional(std::move(bound.error()));
}

std::string listen_error_text(int error, uint16_t port) {
  if (error == EADDRNOTAVAIL) return "it is no address of this machine";
  if (error == EACCES)
    return fmt::format("{}: the system keeps port {} for privileged programs (net.ipv4.ip_unprivileged_port_start)",
                       std::strerror(error), port);
  if (error != EADDRINUSE) return std::strerror(error);
  const std::string holder = holder_of(port);
  return fmt::format(
      "{}, {}", std::strerror(error),
      holder.empty() ? fmt::format("`ss -ltnp sport = :{}` as root tells by whom", port) : "by " + holder);
}

}  // namespace cachalot
