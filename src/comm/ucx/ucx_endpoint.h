#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "base/error.h"
#include "comm/transport.h"

namespace cachalot {

class UcxWorker;

// Checks that this host has the interfaces named, so that UCX can use them: "eth0", or "eth0,eth1".
Status check_network_interfaces(const std::string& names);

// The interface through which this host reaches another, or the one that has the address, if it is this host's own.
Result<std::string> network_interface_to(const std::string& host);

// The ports of this host's RDMA adapters, as UCX names them: "mlx5_0:1,mlx5_1:1"; empty where there are none.
std::string rdma_devices();

struct UcxEndpointOptions {
  int rank = -1;
  uint64_t epoch = 0;
  // Where TCP goes: an interface ("eth0", or several, "eth0,eth1"), or, if that is empty, the one through which
  // `route_to` is reached, a host or address; if that is empty too, what UCX_NET_DEVICES says, or UCX's choice. RDMA
  // adapters are used whatever their interface.
  std::string network_interface, route_to;
  // As in UCX_TLS. UCX's own shared memory is left out: it knows no dead peers, and loses wake-ups between containers
  // that share an IPC namespace.
  std::string transports = "^sm";
  // The UCX_ variables that the environment has, "UCX_TLS=tcp": UCX reads them itself, and what they say holds,
  // whatever stands above.
  std::vector<std::string> environment = {};
  std::chrono::milliseconds deadline{10'000};  // of connect()
};

// How a peer is found: its rank and its UcxEndpoint's address().
struct UcxAddress {
  int rank = -1;
  std::string address;
};

// A rank's way to ranks of other nodes, over UCX. create() on every rank, then the addresses travel (through the
// rendezvous), then connect() on every rank. Used by one thread at a time. UCX does not survive a fork(): create()
// comes after it.
class UcxEndpoint {
 public:
  static Result<UcxEndpoint> create(UcxEndpointOptions options);
  ~UcxEndpoint();
  UcxEndpoint(UcxEndpoint&&) noexcept;
  UcxEndpoint& operator=(UcxEndpoint&&) noexcept;

  const std::string& address() const { return address_; }  // bytes
  // What UCX was told, for a line of the log: "UCX_TLS=^sm UCX_NET_DEVICES=eth0, from the environment
  // UCX_LOG_LEVEL=info".
  const std::string& settings() const { return settings_; }

  // Before connect(): it may be decided when the address has travelled.
  void set_epoch(uint64_t epoch) { options_.epoch = epoch; }
  // Once. `peers` are all other ranks that UCX is to connect (its own address among them is passed over). It waits
  // until each has been heard, or gives an error that names the ranks at fault; then every peer that had connected
  // finds out. stop: nobody needs it any more.
  Result<std::unique_ptr<Transport>> connect(std::span<const UcxAddress> peers, const std::stop_token& stop = {});

 private:
  UcxEndpoint(UcxEndpointOptions options, std::string settings, std::string address, std::unique_ptr<UcxWorker> worker);

  UcxEndpointOptions options_;
  std::string settings_;
  std::string address_;
  std::unique_ptr<UcxWorker> worker_;
};

}  // namespace cachalot
