#include "comm/ucx/ucx_endpoint.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "comm/ucx/ucx_transport.h"
#include "comm/ucx/ucx_worker.h"

namespace cachalot {
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

Result<std::unique_ptr<Transport>> UcxEndpoint::connect(std::span<const UcxAddress> peers) {
  CHECK(worker_ != nullptr, "connect() is called once");
  auto transport = std::make_unique<UcxTransport>(std::move(worker_), options_.rank, options_.epoch);
  for (const UcxAddress& peer : peers) {
    if (peer.rank == options_.rank) continue;
    ASSIGN_OR_RETURN(const std::string_view address, worker_address(peer));
    RETURN_IF_ERROR(transport->add_peer(peer.rank, address));
  }
  RETURN_IF_ERROR(transport->greet_peers(options_.deadline));
  return transport;
}

}  // namespace cachalot
