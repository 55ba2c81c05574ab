#pragma once

#include <array>
#include <deque>
#include <memory>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "comm/shm/segment.h"
#include "comm/transport.h"

namespace cachalot {

using BoardFds = std::array<FileDescriptor, 2>;  // eventfds, of even and odd rounds (comm/shm/segment.h)

// What ranks of a node wake each other with. The error: the system gives no more descriptors.
Result<FileDescriptor> make_event_fd();
Result<BoardFds> make_board_fds();

// Started operations in order. Allocates only for more of them than there are rows in the largest gather of logits.
template <class Op>
class OpQueue {
 public:
  OpQueue() { ops_.reserve(kUsualOps); }
  bool empty() const { return first_ == ops_.size(); }
  Op& front() { return *ops_[first_]; }
  void push(Op& op) {
    if (first_ > 0 && ops_.size() == ops_.capacity()) {
      ops_.erase(ops_.begin(), ops_.begin() + static_cast<std::ptrdiff_t>(first_));
      first_ = 0;
    }
    ops_.push_back(&op);
  }
  void pop() {
    if (++first_ == ops_.size()) clear();
  }
  void clear() {
    ops_.clear();
    first_ = 0;
  }

 private:
  static constexpr size_t kUsualOps = 320;

  std::vector<Op*> ops_;
  size_t first_ = 0;  // those before are through
};

// What a rank has of a peer on its node.
struct ShmPeer {
  int rank = -1;
  uint32_t incoming_ring = 0;  // in this rank's segment: what the peer sends
  uint32_t outgoing_ring = 0;  // in the peer's segment: what this rank sends
  Segment segment;             // the peer's
  FileDescriptor event_fd;     // wakes the peer
  BoardFds board_fds;          // wake the group whose first member it is
  FileDescriptor pidfd;        // of the peer's process; none between threads of one process
};

struct PeerProcess {
  int rank = -1;
  FileDescriptor pidfd;  // becomes readable when the process ends
};

// Messages through shared memory between ranks of one node (comm/shm/segment.h). Made by ShmEndpoint, or by
// make_local_shm for ranks of one process.
class ShmTransport : public Transport {
 public:
  // segment: this rank's; event_fd, board_fds: eventfds that its peers have too, non-blocking.
  ShmTransport(Segment segment, FileDescriptor event_fd, BoardFds board_fds, std::vector<ShmPeer> peers,
               uint64_t epoch);
  ~ShmTransport() override { close(); }

  std::string_view name() const override { return "shm"; }
  bool connects(int peer) const override { return link_of(peer) != nullptr; }
  void start(SendOp& op) override;
  void start(ReceiveOp& op) override;
  Result<bool> progress() override;
  void await(std::span<const ReceiveOp> receives, bool any) override;
  Status prepare_sleep() override;
  int event_fd() const override { return event_fd_.get(); }
  void end_sleep() override;
  std::unique_ptr<Board> make_board(std::span<const int> members) override;
  void close() override;

  // Hands over the peers' pidfds, for the one who watches over processes.
  std::vector<PeerProcess> take_peer_pidfds();

 private:
  struct Link {
    Link(ShmPeer peer, Segment& own, uint64_t epoch);
    bool push(Counter& bytes_sent);              // gives whether anything moved
    Result<bool> pull(Counter& bytes_received);  // the same
    void feed_starved();
    bool is_idle() const { return sends.empty() && receives.empty(); }
    void wake_peer() { peer.segment.bell().wake(peer.event_fd.get()); }

    ShmPeer peer;
    RingControl& incoming;
    RingControl& outgoing;
    RingReader reader;
    RingWriter writer;
    OpQueue<SendOp> sends;
    OpQueue<ReceiveOp> receives;
    bool active = false;    // is in active_
    bool starving = false;  // outgoing.starved was set
  };

  void activate(Link& link);  // before its first operation
  Link* link_of(int peer) const { return peer < static_cast<int>(link_of_.size()) ? link_of_[peer] : nullptr; }

  Segment segment_;
  FileDescriptor event_fd_;
  BoardFds board_fds_;
  std::deque<Link> links_;      // they stay where they are
  std::vector<Link*> link_of_;  // [rank]
  std::vector<Link*> active_;   // those with operations; what is done is found out by progress()
  RingSet posted_;              // rings where receives wait
  RingSet awaited_;             // by the next sleep, of these
  bool await_any_ = false;
  bool has_board_ = false;
  bool closed_ = false;
};

}  // namespace cachalot
