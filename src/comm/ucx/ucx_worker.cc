#include "comm/ucx/ucx_worker.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <ucs/config/global_opts.h>
#include <ucs/debug/debug.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <set>
#include <string_view>

#include "base/file.h"
#include "base/log.h"

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

namespace {

using Config = std::unique_ptr<ucp_config_t, decltype([](ucp_config_t* config) { ucp_config_release(config); })>;

std::unexpected<Error> ucx_error(ErrorCode code, std::string_view what, ucs_status_t status) {
  return make_error(code, "UCX: {}: {}", what, ucs_status_string(status));
}

// UCX prints faults of connections by itself; here they are errors, which are told once. A level that the user has
// asked for (UCX_LOG_LEVEL) stays.
void quiet_ucx() {
  std::array<char, 32> level{};
  if (log::shows(log::Level::kDebug) || ucs_global_opts_get_value("LOG_LEVEL", level.data(), level.size()) != UCS_OK)
    return;
  if (std::string_view(level.data()) == "WARN") ucs_global_opts_set_value("LOG_LEVEL", "FATAL");
}

// As the kernel has it on these machines.
struct KernelAction {
  void* handler;
  unsigned long flags;
  void* restorer;
  unsigned long mask;
};
KernelAction hangup_action;
unsigned long mask_before;

// Before any library is loaded: what UCX takes SIGHUP from, nohup's decision for one. And one that comes while UCX is
// loaded waits: its handler crashes until that is done. Nothing but system calls yet.
void note_hangup_action(int, char**, char**) {
  syscall(SYS_rt_sigaction, SIGHUP, nullptr, &hangup_action, sizeof hangup_action.mask);
  constexpr unsigned long kHangup = 1UL << (SIGHUP - 1);
  syscall(SYS_rt_sigprocmask, SIG_BLOCK, &kHangup, &mask_before, sizeof mask_before);
}
[[gnu::section(".preinit_array"), gnu::used]] void (*const note_hangup_action_first)(int, char**,
                                                                                     char**) = note_hangup_action;

// UCX, once loaded, catches SIGHUP for a debugger, and signals of crashes, for which it prints a trace of its own. They
// are none of its business, unless the user has chosen what it does (UCX_DEBUG_SIGNO, UCX_HANDLE_ERRORS). Runs when the
// program is loaded, after UCX.
[[gnu::constructor]] void give_back_signals() {
  if (std::getenv("UCX_DEBUG_SIGNO") == nullptr)
    ::signal(SIGHUP, hangup_action.handler == reinterpret_cast<void*>(SIG_IGN) ? SIG_IGN : SIG_DFL);
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask_before, nullptr, sizeof mask_before);
  std::array<char, 64> handling{};
  if (ucs_global_opts_get_value("HANDLE_ERRORS", handling.data(), handling.size()) != UCS_OK ||
      std::string_view(handling.data()) != "bt")
    return;
  for (unsigned idx = 0; idx < ucs_global_opts.error_signals.count; idx++)
    ucs_debug_disable_signal(ucs_global_opts.error_signals.signals[idx]);
}

Result<Config> make_config(const std::vector<UcxSetting>& settings) {
  ucp_config_t* read = nullptr;
  if (const ucs_status_t status = ucp_config_read(nullptr, nullptr, &read); status != UCS_OK)
    return ucx_error(ErrorCode::kInvalidArgument, "a UCX_ variable of the environment makes no sense", status);
  Config config(read);
  for (const auto& [key, value] : settings) {
    if (const ucs_status_t status = ucp_config_modify(config.get(), key.c_str(), value.c_str()); status != UCS_OK)
      return make_error(ErrorCode::kInvalidArgument, "UCX does not take UCX_{}={}: {}", key, value,
                        ucs_status_string(status));
  }
  return config;
}

}  // namespace

Result<std::unique_ptr<UcxWorker>> UcxWorker::create(const std::vector<UcxSetting>& settings) {
  quiet_ucx();
  ASSIGN_OR_RETURN(const Config config, make_config(settings));
  std::unique_ptr<UcxWorker> made(new UcxWorker);
  const ucp_params_t params{.field_mask = UCP_PARAM_FIELD_FEATURES, .features = UCP_FEATURE_TAG | UCP_FEATURE_WAKEUP};
  if (const ucs_status_t status = ucp_init(&params, config.get(), &made->context_); status != UCS_OK)
    return ucx_error(ErrorCode::kUnavailable, "it finds no way to other hosts with these settings", status);
  const ucp_worker_params_t worker_params{.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                                          .thread_mode = UCS_THREAD_MODE_SERIALIZED};
  if (const ucs_status_t status = ucp_worker_create(made->context_, &worker_params, &made->worker_); status != UCS_OK)
    return ucx_error(ErrorCode::kUnavailable, "cannot make a worker", status);
  if (const ucs_status_t status = ucp_worker_get_efd(made->worker_, &made->event_fd_); status != UCS_OK)
    return ucx_error(ErrorCode::kUnsupported, "its transports cannot wake a sleeper", status);
  return made;
}

UcxWorker::~UcxWorker() {
  if (worker_ != nullptr) ucp_worker_destroy(worker_);
  if (context_ != nullptr) ucp_cleanup(context_);
}

Result<std::string> UcxWorker::address() const {
  ucp_address_t* bytes = nullptr;
  size_t size = 0;
  if (const ucs_status_t status = ucp_worker_get_address(worker_, &bytes, &size); status != UCS_OK)
    return ucx_error(ErrorCode::kUnavailable, "a worker has no address", status);
  std::string address(reinterpret_cast<const char*>(bytes), size);
  ucp_worker_release_address(worker_, bytes);
  return address;
}

}  // namespace cachalot
