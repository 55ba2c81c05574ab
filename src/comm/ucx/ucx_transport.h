#pragma once

#include <ucp/api/ucp.h>

#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "comm/transport.h"
#include "comm/ucx/ucx_worker.h"

namespace cachalot {

// Messages over UCX's tag matching. Made by UcxEndpoint. A tag is
//
//   63      62 ... 48        47 ... 32   31 ... 0
//   hello   epoch % 2^15     source      sequence number of the pair
//
// so that a receive takes the message that it stands for, however UCX orders them, and nothing of another epoch. Before
// the first message each rank sends each peer a hello, whose tag bears no epoch: the peer's word about its own.
class UcxTransport : public Transport {
 public:
  UcxTransport(std::unique_ptr<UcxWorker> worker, int rank, uint64_t epoch);
  ~UcxTransport() override { close(); }

  // Before anything else: each peer once, then the greeting, which waits until all have been heard.
  Status add_peer(int rank, std::string_view worker_address);
  Status greet_peers(std::chrono::milliseconds deadline);

  std::string_view name() const override { return "ucx"; }
  std::string describe(int peer) const override;
  bool connects(int peer) const override { return link_of(peer) != nullptr; }
  void start(SendOp& op) override;
  void start(ReceiveOp& op) override;
  Result<bool> progress() override;
  Status prepare_sleep() override;
  int event_fd() const override { return worker_->event_fd(); }
  void end_sleep() override {}
  void close() override;

 private:
  struct Link {
    int rank = -1;
    ucp_ep_h ep = nullptr;
    uint32_t num_sent = 0, num_received = 0;  // started: the next one's sequence number
    int num_sending = 0, num_receiving = 0;   // under way
    std::optional<Error> fault = {};          // why nothing more will come or go
  };
  // What UCX has of an operation until it has completed.
  struct Flight {
    UcxTransport* transport = nullptr;
    Link* link = nullptr;
    SendOp* send = nullptr;
    ReceiveOp* receive = nullptr;
    void* request = nullptr;  // UCX's
  };

  Link* link_of(int peer) const { return peer < static_cast<int>(link_of_.size()) ? link_of_[peer] : nullptr; }
  ucp_tag_t tag(int source, uint32_t sequence) const;
  void send(SendOp& op, ucp_tag_t tag);
  void receive(ReceiveOp& op, ucp_tag_t tag);
  static void fail(Link& link, ErrorCode code, std::string_view cause);
  void finish(SendOp& op, Link& link, ucs_status_t status);
  void finish(ReceiveOp& op, Link& link, ucs_status_t status, size_t size);

  Flight& take_flight(Link& link);
  void land(Flight& flight);
  static void on_sent(void* request, ucs_status_t status, void* flight);
  static void on_received(void* request, ucs_status_t status, const ucp_tag_recv_info_t* info, void* flight);
  static void on_fault(void* link, ucp_ep_h ep, ucs_status_t status);

  Status wait_for_hellos(std::span<const SendOp> sends, std::span<const ReceiveOp> receives,
                         std::chrono::milliseconds deadline);
  void await_requests(std::vector<void*>& requests, std::chrono::milliseconds deadline);

  std::unique_ptr<UcxWorker> worker_;
  int rank_;
  uint64_t epoch_;
  std::vector<std::unique_ptr<Link>> links_;
  std::vector<Link*> link_of_;  // [rank]
  std::deque<Flight> flights_;  // those in use and those in free_flights_; never moved
  std::vector<Flight*> free_flights_;
  bool must_look_ = false;  // UCX had more to do when it was to be put to sleep
  bool closed_ = false;
};

}  // namespace cachalot
