#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace cachalot {

// Memory that the ranks of a group on one node have in common, for collectives in few steps: each rank writes once, on
// its own slot, what the others are to have, and when all have arrived each reads what it wants of the others' slots.
// One wake-up a rank and round, where messages take one a pair. Used by one thread, the engine's.
//
//   begin_round(); write own(); if (arrive(note)) { what one rank does for all; publish(); } else Mesh::wait(board)
//   read of(member)
//
// Two slots a rank take turns: who has passed a round's wait knows that all have read those of the round before.
class Board {
 public:
  virtual ~Board() = default;
  virtual int rank() const = 0;  // in the group
  virtual int size() const = 0;
  virtual size_t slot_bytes() const = 0;

  virtual void begin_round() = 0;
  virtual std::span<std::byte> own() = 0;
  // note: what this rank does, which should be what all do. Gives whether it is the last to arrive, and has to publish.
  virtual bool arrive(uint64_t note) = 0;
  virtual void publish() = 0;

  virtual bool is_published() const = 0;
  // Of the round, once it is published (for the last to arrive: at once).
  virtual std::span<const std::byte> of(int member) const = 0;
  virtual bool notes_agree() const = 0;
  virtual uint64_t note_of(int member) const = 0;
  virtual int last() const = 0;

  // For who waits. The error: a member that has not arrived has closed its connections.
  virtual Status check_members() const = 0;
  // Gives a descriptor that becomes readable once the round is published; it is looked at once more before a poll().
  virtual int prepare_sleep() = 0;
  virtual void end_sleep() = 0;
  virtual std::vector<int> awaited() const = 0;  // ranks of the mesh that have not arrived, or not published
  // Bytes that this rank wrote for others, once for each who reads them, and that it read from others.
  virtual void count(uint64_t sent, uint64_t received) = 0;
};

// A count that one thread advances and any thread reads.
class Counter {
 public:
  void operator+=(uint64_t amount) {
    // One writer, so no locked addition; readers need no order with anything else.
    value_.store(value_.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
  }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// A message on its way to a peer. The caller keeps the operation and its bytes where they are until `done`.
struct SendOp {
  int peer = -1;  // rank in the world
  std::span<const std::byte> data;
  bool done = false;
};

// A message awaited from a peer: it may be shorter than the buffer, never longer. The caller keeps the operation and
// the buffer where they are until `done`; `size` is then the message's.
struct ReceiveOp {
  int peer = -1;
  std::span<std::byte> buffer;
  size_t size = 0;
  bool done = false;
};

// One way of moving messages between ranks, for the peers that it connects. Between two ranks messages arrive in the
// order in which they were sent, and the n-th receive from a peer takes the n-th message of that peer. Nothing blocks:
// operations are started, progress() moves what can be moved, and a rank that has nothing to do sleeps (comm/mesh.h).
// Used by one thread, the engine's, but for the counters.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual std::string_view name() const = 0;  // "shm", "ucx": for logs and counters
  virtual bool connects(int peer) const = 0;

  virtual void start(SendOp& op) = 0;
  virtual void start(ReceiveOp& op) = 0;
  // Moves what can be moved now and marks operations as done. Gives whether anything moved. Errors: a peer is gone (the
  // message names it), a message is longer than the buffer that awaits it or of another epoch.
  virtual Result<bool> progress() = 0;

  // The sleep protocol: await(), prepare_sleep(), progress() once more, and only if nothing moved, poll() on
  // event_fd(), which becomes readable when progress() may find something; then end_sleep().
  //
  // await() says which receives the sleeper waits for: any of them, or all. A transport that can lets it sleep until it
  // is worth waking; others wake it at whatever comes. The operations may be of other transports' peers too, or done.
  virtual void await(std::span<const ReceiveOp> /*receives*/, bool /*any*/) {}
  virtual Status prepare_sleep() = 0;
  virtual int event_fd() const = 0;
  virtual void end_sleep() = 0;

  // Memory in common with other ranks, this one among `members`; none where it does not reach them all, and for every
  // group but a rank's first: all members ask, in the same order among their groups. It goes before the transport.
  virtual std::unique_ptr<Board> make_board(std::span<const int> /*members*/) { return nullptr; }

  // Gives up everything that is under way; no operation is touched afterwards. Peers that wait for this rank find out.
  virtual void close() = 0;

  uint64_t bytes_sent() const { return bytes_sent_.value(); }
  uint64_t bytes_received() const { return bytes_received_.value(); }

 protected:
  Counter bytes_sent_, bytes_received_;  // of messages, without their headers
};

}  // namespace cachalot
