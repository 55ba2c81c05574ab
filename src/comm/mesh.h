#pragma once

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/step_trace.h"
#include "comm/transport.h"

namespace cachalot {

// Where in a step a collective stands; every error names it.
struct CollectiveSite {
  std::string_view operation;  // what for, e.g. "o_proj reduce-scatter"
  uint64_t step = 0;
  int layer = -1;

  // "o_proj reduce-scatter (layer 3, step 17)"
  std::string text() const {
    if (layer < 0) return fmt::format("{} (step {})", operation, step);
    return fmt::format("{} (layer {}, step {})", operation, layer, step);
  }
};

// Where a rank's time with messages goes: waiting, while nothing moves until a peer has done its part, and exchanging,
// which is the rest of the calls to collectives and exchanges: packing, copying, adding up. Advanced by the engine's
// thread; the totals may be read by any.
class ExchangeClock {
 public:
  using Clock = std::chrono::steady_clock;

  // A call of a collective or an exchange, as long as this object lives. Calls within a call are its parts.
  class Call {
   public:
    Call(ExchangeClock& clock, std::string_view name, int layer) : clock_(clock), name_(name), layer_(layer) {
      if (clock_.depth_++ == 0) {
        waiting_before_ = clock_.waiting_.value();
        begin_ = Clock::now();
      }
    }
    Call(ExchangeClock& clock, const CollectiveSite& site) : Call(clock, site.operation, site.layer) {}
    ~Call() {
      if (--clock_.depth_ > 0) return;
      const Clock::time_point end = Clock::now();
      const uint64_t waited = clock_.waiting_.value() - waiting_before_;
      clock_.exchanging_ += static_cast<uint64_t>((end - begin_).count()) - waited;
      if (clock_.trace_)
        clock_.trace_->add(
            {.name = name_, .kind = TraceSpan::Kind::kExchange, .layer = layer_, .begin = begin_, .end = end});
    }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

   private:
    ExchangeClock& clock_;
    std::string_view name_;
    int layer_;
    uint64_t waiting_before_ = 0;
    Clock::time_point begin_;
  };

  // Within a call: nothing moved from `begin` to `end`.
  void add_wait(Clock::time_point begin, Clock::time_point end, int layer) {
    waiting_ += static_cast<uint64_t>((end - begin).count());
    if (trace_)
      trace_->add({.name = "waiting", .kind = TraceSpan::Kind::kWaiting, .layer = layer, .begin = begin, .end = end});
  }

  std::chrono::nanoseconds exchanging() const { return std::chrono::nanoseconds(exchanging_.value()); }
  std::chrono::nanoseconds waiting() const { return std::chrono::nanoseconds(waiting_.value()); }
  std::chrono::nanoseconds total() const { return exchanging() + waiting(); }

  // What was counted so far belongs to no step. By the thread that calls.
  void forget() {
    exchanging_ += uint64_t{0} - exchanging_.value();
    waiting_ += uint64_t{0} - waiting_.value();
  }
  // Calls and waits from now on are noted there; null: nowhere. Borrowed.
  void set_trace(StepTrace* trace) { trace_ = trace; }
  StepTrace* trace() const { return trace_; }

 private:
  Counter exchanging_, waiting_;  // nanoseconds
  int depth_ = 0;                 // of calls
  StepTrace* trace_ = nullptr;
};

struct MeshOptions {
  int rank = 0, size = 1;
  uint32_t epoch = 1;                          // of the group, as its transports have it
  std::vector<int> living = {};                // ranks that take part; empty: all
  std::vector<std::string> rank_names;         // for errors: "rank 5 (replica 1, tp 1, host b, pid 77)"; may be empty
  std::chrono::milliseconds deadline{60'000};  // of one wait()
  // How long a wait looks again and again before it sleeps; 0 where ranks outnumber cores.
  std::chrono::microseconds spin{0};
};

// Whether an error of a mesh says no more than that its epoch is over: a rank is lost, or does not come. With any other
// something is wrong with this rank itself, or with what it is told.
inline bool ends_epoch(const Error& error) {
  return error.code == ErrorCode::kUnavailable || error.code == ErrorCode::kDeadlineExceeded;
}

// Every rank's connection to every other that takes part: each pair has one transport. Collectives (comm/group.h) and
// the expert exchange (comm/expert_exchange.h) are made of its messages. All ranks start operations in an order that
// agrees pair by pair. Used by one thread, but for wake(), fail(), end_epoch() and what is counted.
//
// A mesh fails for good in its epoch; another epoch may follow, in which ranks may be missing or back.
class Mesh {
 public:
  // The transports of each peer are asked in order; every rank of options.living but the own must be connected by one.
  static Result<std::unique_ptr<Mesh>> create(MeshOptions options, std::vector<std::unique_ptr<Transport>> transports);
  ~Mesh();  // closes the transports
  Mesh(const Mesh&) = delete;
  Mesh& operator=(const Mesh&) = delete;

  int rank() const { return options_.rank; }
  int size() const { return options_.size; }
  uint32_t epoch() const { return options_.epoch; }  // that messages name
  const std::string& rank_name(int rank) const { return options_.rank_names[rank]; }
  // Of another process that has the rank. By the engine's thread, between two epochs.
  void name_rank(int rank, std::string name) { options_.rank_names[static_cast<size_t>(rank)] = std::move(name); }
  bool takes_part(int rank) const { return rank == this->rank() || transport_of_[rank] != nullptr; }
  int num_living() const { return size() - static_cast<int>(std::ranges::count(transport_of_, nullptr)) + 1; }

  // Behind a failure, or for another epoch: closes what was, and goes on with these transports to the living ranks.
  // Groups, exchanges and boards of the epoch before are gone by then. Errors: a living rank that nothing connects; a
  // failure that is not the epoch's.
  Status begin_epoch(uint32_t epoch, std::span<const int> living, std::vector<std::unique_ptr<Transport>> transports);

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

  // Ends the mesh: whoever waits on it gets this error, at once; later calls too. The first error stays, but one that
  // is more than the epoch's end takes the place of one that is not. Any thread; for the membership (a peer died) and
  // for a stop. Gives the error, to be returned.
  std::unexpected<Error> fail(Error error);
  std::unexpected<Error> fail(const std::unexpected<Error>& error) { return fail(error.error()); }
  // The same for who speaks of an epoch. This one may be over by now: then nothing; one that is still to come does not
  // begin here. Any thread.
  void end_epoch(uint32_t epoch, Error error);
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
  Mesh(MeshOptions options, FileDescriptor wake_fd);
  Status connect(std::span<const int> living, std::vector<std::unique_ptr<Transport>> transports);

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
  std::vector<Traffic> past_;  // of the epochs before

  std::atomic<bool> woken_{false};   // by wake(), which wait_for_any() has not told yet
  std::atomic<bool> failed_{false};  // failure_ is there
  mutable std::mutex mutex_;         // of failure_, over_ and options_.epoch
  std::optional<Error> failure_;
  std::pair<uint32_t, Error> over_;  // the last epoch that was ended, which may still be to come here
};

}  // namespace cachalot
