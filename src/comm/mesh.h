#pragma once

#include <poll.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "comm/exchange_clock.h"
#include "comm/transport.h"

namespace cachalot {

struct MeshOptions {
  int rank = 0, size = 1;
  std::vector<std::string> rank_names;         // for errors: "rank 5 (replica 1, tp 1, host b, pid 77)"; may be empty
  std::chrono::milliseconds deadline{60'000};  // of one wait()
  // How long a wait looks again and again before it sleeps; 0 where ranks outnumber cores.
  std::chrono::microseconds spin{0};
};

// Every rank's connection to every other: each pair has one transport. Collectives (comm/mesh_group.h) and the expert
// exchange (comm/mesh_expert_exchange.h) are made of its messages. All ranks start operations in an order that agrees
// pair by pair. Used by one thread, but for wake(), fail() and what is counted.
class Mesh {
 public:
  // The transports of each peer are asked in order; every peer but the rank itself must be connected by one.
  static Result<std::unique_ptr<Mesh>> create(MeshOptions options, std::vector<std::unique_ptr<Transport>> transports);
  ~Mesh();  // closes the transports
  Mesh(const Mesh&) = delete;
  Mesh& operator=(const Mesh&) = delete;

  int rank() const { return options_.rank; }
  int size() const { return options_.size; }
  const std::string& rank_name(int rank) const { return options_.rank_names[rank]; }

  void start(SendOp& op);
  void start(ReceiveOp& op);
  // Moves what can be moved without waiting: between two kernels, so that messages fly.
  Status progress();
  // Waits until all these operations are done. The error of a missed deadline names the site and the ranks for which
  // operations are still open; after any error the mesh has failed for good, and every later call says so.
  Status wait(std::span<SendOp> sends, std::span<ReceiveOp> receives, const CollectiveSite& site);
  // The same, until the board's round is published.
  Status wait(Board& board, const CollectiveSite& site);
  // Memory in common with the members of a group (Transport::make_board); none where messages must do. Borrows the
  // mesh.
  std::unique_ptr<Board> make_board(std::span<const int> members);
  // Sleeps, without a deadline, until one of the operations is done (true) or wake() was called since the last
  // wait_for_any() (false). For a rank with nothing to do.
  Result<bool> wait_for_any(std::span<ReceiveOp> receives);
  void wake();  // any thread

  // Ends the mesh: whoever waits on it gets this error, at once; later calls too. The first error stays. Any thread;
  // for the membership (a peer died) and for a stop.
  void fail(Error error);
  std::optional<Error> failure() const;
  // Ends it in the same way for the owner of operations that are under way and whose memory is about to go.
  void abandon();

  struct Traffic {
    std::string transport;
    uint64_t bytes_sent = 0, bytes_received = 0;
    int num_peers = 0;
  };
  std::vector<Traffic> traffic() const;
  // Of the calls to collectives and exchanges, which their classes note here; waits within them, this one does.
  ExchangeClock& clock() { return clock_; }
  const ExchangeClock& clock() const { return clock_; }
  std::string_view transport_of(int peer) const;

 private:
  using Clock = std::chrono::steady_clock;
  Mesh(MeshOptions options, std::vector<std::unique_ptr<Transport>> transports, std::vector<Transport*> transport_of,
       FileDescriptor wake_fd);

  // One look at every transport: whether anything moved, or the mesh's failure. `site` is named in a transport's error.
  Result<bool> move(const CollectiveSite* site);
  // Moves and sleeps until `done()`; `missing()` gives the ranks that a missed deadline names.
  template <class Done, class Missing>
  Status wait(Done done, Missing missing, std::span<const ReceiveOp> receives, Board* board,
              const CollectiveSite& site);
  // Until a transport or the board may have moved; not if it is `done()` already.
  template <class Done>
  Status sleep(std::span<const ReceiveOp> receives, bool any, Board* board, Done done, Clock::time_point deadline);
  void poll_until(Clock::time_point deadline);
  Error at_site(const CollectiveSite& site, Error error) const;
  Error missed_deadline(std::span<const int> missing, const CollectiveSite& site) const;
  void close();

  MeshOptions options_;
  std::vector<std::unique_ptr<Transport>> transports_;
  std::vector<Transport*> transport_of_;  // [rank]; none for the rank itself
  bool closed_ = false;                   // the transports are
  FileDescriptor wake_fd_;                // an eventfd: wake() and fail() end a sleep
  std::vector<pollfd> poll_fds_;          // wake_fd_, the transports' and, while one is waited for, a board's
  ExchangeClock clock_;

  std::atomic<bool> woken_{false};   // by wake(), which wait_for_any() has not told yet
  std::atomic<bool> failed_{false};  // failure_ is there
  mutable std::mutex mutex_;         // of failure_
  std::optional<Error> failure_;
};

}  // namespace cachalot
