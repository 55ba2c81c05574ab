#include "comm/ucx/network_interface.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <set>

#include "base/file_descriptor.h"

namespace cachalot {
namespace {

using Addresses = std::unique_ptr<ifaddrs, decltype([](ifaddrs* list) { freeifaddrs(list); })>;

Result<Addresses> local_addresses() {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0)
    return make_error(ErrorCode::kIo, "cannot list the network interfaces: {}", std::strerror(errno));
  return Addresses(list);
}

bool is_usable(const ifaddrs& entry) {
  return entry.ifa_addr != nullptr && (entry.ifa_addr->sa_family == AF_INET || entry.ifa_addr->sa_family == AF_INET6) &&
         (entry.ifa_flags & IFF_UP) != 0 && (entry.ifa_flags & IFF_RUNNING) != 0;
}

bool is_same_host(const sockaddr& one, const sockaddr& other) {
  if (one.sa_family != other.sa_family) return false;
  if (one.sa_family == AF_INET)
    return reinterpret_cast<const sockaddr_in&>(one).sin_addr.s_addr ==
           reinterpret_cast<const sockaddr_in&>(other).sin_addr.s_addr;
  return std::memcmp(&reinterpret_cast<const sockaddr_in6&>(one).sin6_addr,
                     &reinterpret_cast<const sockaddr_in6&>(other).sin6_addr, sizeof(in6_addr)) == 0;
}

// A datagram socket that is connected sends nothing, but the kernel has looked up the route.
Result<sockaddr_storage> source_address_to(const std::string& host) {
  const addrinfo hints{.ai_socktype = SOCK_DGRAM};
  addrinfo* list = nullptr;
  if (const int code = getaddrinfo(host.c_str(), "9", &hints, &list); code != 0)
    return make_error(ErrorCode::kNotFound, "cannot find the host {}: {}", host, gai_strerror(code));
  const std::unique_ptr<addrinfo, decltype([](addrinfo* found) { freeaddrinfo(found); })> found(list);
  int cause = 0;
  for (const addrinfo* target = found.get(); target != nullptr; target = target->ai_next) {
    const FileDescriptor socket(::socket(target->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_storage source{};
    socklen_t size = sizeof(source);
    if (socket && ::connect(socket.get(), target->ai_addr, target->ai_addrlen) == 0 &&
        getsockname(socket.get(), reinterpret_cast<sockaddr*>(&source), &size) == 0)
      return source;
    cause = errno;
  }
  return make_error(ErrorCode::kUnavailable, "no route to the host {}: {}", host, std::strerror(cause));
}

}  // namespace

Status check_network_interfaces(const std::string& names) {
  ASSIGN_OR_RETURN(const Addresses addresses, local_addresses());
  std::set<std::string> usable;
  for (const ifaddrs* entry = addresses.get(); entry != nullptr; entry = entry->ifa_next) {
    if (is_usable(*entry)) usable.insert(entry->ifa_name);
  }
  for (size_t begin = 0; begin <= names.size();) {
    const size_t end = std::min(names.find(',', begin), names.size());
    const std::string name = names.substr(begin, end - begin);
    if (!usable.contains(name))
      return make_error(ErrorCode::kNotFound,
                        "there is no network interface '{}' that is up, has a carrier and an address; there {} {}",
                        name, usable.size() == 1 ? "is" : "are", fmt::join(usable, ", "));
    if (!std::filesystem::exists("/sys/class/net/" + name))
      return make_error(ErrorCode::kUnavailable,
                        "UCX looks for network interfaces in /sys/class/net, where '{}' is not: /sys shows another "
                        "network namespace; mount a sysfs in this one",
                        name);
    begin = end + 1;
  }
  return {};
}

Result<std::string> network_interface_to(const std::string& host) {
  ASSIGN_OR_RETURN(const sockaddr_storage source, source_address_to(host));
  ASSIGN_OR_RETURN(const Addresses addresses, local_addresses());
  for (const ifaddrs* entry = addresses.get(); entry != nullptr; entry = entry->ifa_next) {
    if (is_usable(*entry) && is_same_host(*entry->ifa_addr, reinterpret_cast<const sockaddr&>(source)))
      return entry->ifa_name;
  }
  return make_error(ErrorCode::kUnavailable, "no running network interface has the address from which {} is reached",
                    host);
}

std::string rdma_devices() {
  namespace fs = std::filesystem;
  std::set<std::string> devices;
  std::error_code absent;  // most hosts have none
  for (const fs::directory_entry& device : fs::directory_iterator("/sys/class/infiniband", absent)) {
    for (const fs::directory_entry& port : fs::directory_iterator(device.path() / "ports", absent))
      devices.insert(device.path().filename().string() + ":" + port.path().filename().string());
  }
  return fmt::format("{}", fmt::join(devices, ","));
}

}  // namespace cachalot
