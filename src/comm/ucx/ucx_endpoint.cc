#include "comm/ucx/ucx_endpoint.h"

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
#include <set>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "comm/ucx/ucx_transport.h"

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
  for (const ifaddrs* entry = addresses.get(); entry != nullptr; entry = entry->ifa_next)
    if (is_usable(*entry)) usable.insert(entry->ifa_name);
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
  for (const ifaddrs* entry = addresses.get(); entry != nullptr; entry = entry->ifa_next)
    if (is_usable(*entry) && is_same_host(*entry->ifa_addr, reinterpret_cast<const sockaddr&>(source)))
      return entry->ifa_name;
  return make_error(ErrorCode::kUnavailable, "no running network interface has the address from which {} is reached",
                    host);
}

std::string rdma_devices() {
  namespace fs = std::filesystem;
  std::set<std::string> devices;
  std::error_code absent;  // most hosts have none
  for (const fs::directory_entry& device : fs::directory_iterator("/sys/class/infiniband", absent))
    for (const fs::directory_entry& port : fs::directory_iterator(device.path() / "ports", absent))
      devices.insert(device.path().filename().string() + ":" + port.path().filename().string());
  return fmt::format("{}", fmt::join(devices, ","));
}

namespace {

// An address as it travels: "ucx 1.13\n" and the worker's own bytes, whose format is UCX's and may change with it.
std::string address_head() {
  unsigned major = 0, minor = 0, patch = 0;
  ucp_get_version(&major, &minor, &patch);
  return fmt::format("ucx {}.{}\n", major, minor);
}

Result<std::string_view> worker_address(const UcxAddress& peer) {
  const std::string head = address_head();
  const std::string_view address = peer.address;
  if (address.starts_with(head) && address.size() > head.size()) return address.substr(head.size());
  const size_t head_end = address.find('\n');
  if (!address.starts_with("ucx ") || head_end == std::string_view::npos || head_end + 1 == address.size())
    return make_error(ErrorCode::kCorrupt, "rank {} (ucx): its address of {} bytes is none of UCX", peer.rank,
                      address.size());
  return make_error(ErrorCode::kUnsupported, "rank {} (ucx): it runs {}, this rank {}; all must run the same",
                    peer.rank, name_text(address.substr(0, head_end)),
                    name_text(std::string_view(head).substr(0, head.size() - 1)));
}

bool is_set(const UcxEndpointOptions& options, std::string_view key) {
  return std::ranges::any_of(options.environment, [&](std::string_view variable) {
    return variable.starts_with("UCX_") && variable.substr(4).starts_with(key) &&
           variable.substr(4 + key.size()).starts_with("=");
  });
}

// Empty: UCX's choice.
Result<std::string> interfaces_of(const UcxEndpointOptions& options) {
  std::string interfaces = options.network_interface;
  if (interfaces.empty()) {
    if (options.route_to.empty()) return "";
    ASSIGN_OR_RETURN(interfaces, network_interface_to(options.route_to));
  }
  RETURN_IF_ERROR(check_network_interfaces(interfaces));
  return interfaces;
}

Result<std::vector<UcxSetting>> settings_of(const UcxEndpointOptions& options) {
  std::vector<UcxSetting> settings;
  const auto add = [&](std::string key, std::string value) {
    if (!value.empty() && !is_set(options, key)) settings.push_back({std::move(key), std::move(value)});
  };
  const std::string rdma = rdma_devices();
  add("TLS", options.transports);
  if (!is_set(options, "NET_DEVICES")) {
    ASSIGN_OR_RETURN(const std::string interfaces, interfaces_of(options));
    add("NET_DEVICES", interfaces.empty() || rdma.empty() ? interfaces : interfaces + "," + rdma);
  }
  // A host that does not answer must not hold up this thread while the others connect.
  add("CONN_NB", "y");
  // Over TCP, a message of 32 KB takes less than half the time if it goes at once: asking first (rendezvous, which UCX
  // does from 8 KB on) costs two more messages. And a message of up to 64 KB should be one call of the system's.
  if (rdma.empty()) add("RNDV_THRESH", "256K");
  add("TCP_TX_SEG_SIZE", "64K");
  return settings;
}

std::string text_of(const std::vector<UcxSetting>& settings, const UcxEndpointOptions& options) {
  std::vector<std::string> texts;
  for (const auto& [key, value] : settings) texts.push_back(fmt::format("UCX_{}={}", key, value));
  return fmt::format("{}{}{}", fmt::join(texts, " "), options.environment.empty() ? "" : ", from the environment ",
                     fmt::join(options.environment, " "));
}

}  // namespace

Result<UcxEndpoint> UcxEndpoint::create(UcxEndpointOptions options) {
  CHECK(options.rank >= 0);
  ASSIGN_OR_RETURN(const std::vector<UcxSetting> settings, settings_of(options));
  std::string text = text_of(settings, options);
  Result<std::unique_ptr<UcxWorker>> worker = UcxWorker::create(settings);
  if (!worker) return make_error(worker.error().code, "{} ({})", worker.error().message, text);
  ASSIGN_OR_RETURN(const std::string address, (*worker)->address());
  return UcxEndpoint(std::move(options), std::move(text), address_head() + address, std::move(*worker));
}

UcxEndpoint::UcxEndpoint(UcxEndpointOptions options, std::string settings, std::string address,
                         std::unique_ptr<UcxWorker> worker)
    : options_(std::move(options)),
      settings_(std::move(settings)),
      address_(std::move(address)),
      worker_(std::move(worker)) {}
UcxEndpoint::~UcxEndpoint() = default;
UcxEndpoint::UcxEndpoint(UcxEndpoint&&) noexcept = default;
UcxEndpoint& UcxEndpoint::operator=(UcxEndpoint&&) noexcept = default;

Result<std::unique_ptr<Transport>> UcxEndpoint::connect(std::span<const UcxAddress> peers,
                                                        const std::stop_token& stop) {
  CHECK(worker_ != nullptr, "connect() is called once");
  std::vector<UcxPeer> others;
  for (const UcxAddress& peer : peers) {
    if (peer.rank == options_.rank) continue;
    ASSIGN_OR_RETURN(const std::string_view address, worker_address(peer));
    others.push_back({peer.rank, address});
  }
  return connect_over_ucx(std::move(worker_), options_.rank, options_.epoch, others, options_.deadline, stop);
}

}  // namespace cachalot
