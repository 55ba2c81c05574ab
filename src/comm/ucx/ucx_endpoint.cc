#include "comm/ucx/ucx_endpoint.h"

#include <string_view>
#include <utility>

#include "base/check.h"
#include "comm/ucx/network_interface.h"
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
                    peer.rank, address.substr(0, head_end), std::string_view(head).substr(0, head.size() - 1));
}

Result<std::string> net_devices(const UcxEndpointOptions& options) {
  std::string interfaces = options.network_interface;
  if (interfaces.empty()) {
    if (options.route_to.empty()) return "";
    ASSIGN_OR_RETURN(interfaces, network_interface_to(options.route_to));
  }
  RETURN_IF_ERROR(check_network_interfaces(interfaces));
  const std::string rdma = rdma_devices();
  return rdma.empty() ? interfaces : interfaces + "," + rdma;
}

}  // namespace

Result<UcxEndpoint> UcxEndpoint::create(UcxEndpointOptions options) {
  CHECK(options.rank >= 0);
  ASSIGN_OR_RETURN(const std::string devices, net_devices(options));
  ASSIGN_OR_RETURN(std::unique_ptr<UcxWorker> worker, UcxWorker::create(options.transports, devices));
  ASSIGN_OR_RETURN(const std::string address, worker->address());
  return UcxEndpoint(std::move(options), address_head() + address, std::move(worker));
}

UcxEndpoint::UcxEndpoint(UcxEndpointOptions options, std::string address, std::unique_ptr<UcxWorker> worker)
    : options_(std::move(options)), address_(std::move(address)), worker_(std::move(worker)) {}
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
