#include "comm/shm/shm_transport.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace cachalot {

Result<FileDescriptor> make_event_fd() {
  FileDescriptor event_fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event_fd) return make_error(ErrorCode::kIo, "cannot make an eventfd: {}", std::strerror(errno));
  return event_fd;
}

Result<BoardFds> make_board_fds() {
  ASSIGN_OR_RETURN(FileDescriptor even, make_event_fd());
  ASSIGN_OR_RETURN(FileDescriptor odd, make_event_fd());
  return BoardFds{std::move(even), std::move(odd)};
}

ShmTransport::Link::Link(ShmPeer the_peer, Segment& own, uint64_t epoch)
    : peer(std::move(the_peer)),
      incoming(own.control(peer.incoming_ring)),
      outgoing(peer.segment.control(peer.outgoing_ring)),
      reader(incoming, own.data(peer.incoming_ring), epoch),
      writer(outgoing, peer.segment.data(peer.outgoing_ring), epoch) {}

void ShmTransport::Link::feed_starved() {
  if (incoming.starved.load() != 0 && incoming.starved.exchange(0) != 0) wake_peer();
}

bool ShmTransport::Link::push(Counter& bytes_sent) {
  bool moved = false;
  while (!sends.empty()) {
    SendOp& op = sends.front();
    const RingProgress progress = writer.write(op.data);
    if (!progress.moved) break;
    moved = true;
    peer.segment.bell().tell_published(peer.outgoing_ring, peer.event_fd.get());
    if (!progress.done) continue;
    bytes_sent += op.data.size();
    op.done = true;
    sends.pop();
  }
  return moved;
}

Result<bool> ShmTransport::Link::pull(Counter& bytes_received) {
  bool moved = false;
  while (!receives.empty()) {
    ReceiveOp& op = receives.front();
    Result<RingProgress> progress = reader.read(op.buffer, op.size);
    if (!progress)
      return make_error(progress.error().code, "rank {} (shared memory): {}", peer.rank, progress.error().message);
    if (!progress->moved) break;
    moved = true;
    // A producer that sleeps is worth waking when it can write a good deal.
    if (reader.num_unread() <= peer.segment.layout().ring_bytes() / 2) feed_starved();
    if (!progress->done) continue;
    bytes_received += op.size;
    op.done = true;
    receives.pop();
  }
  if (moved) feed_starved();
  return moved;
}

ShmTransport::ShmTransport(Segment segment, FileDescriptor event_fd, BoardFds board_fds, std::vector<ShmPeer> peers,
                           uint64_t epoch)
    : segment_(std::move(segment)), event_fd_(std::move(event_fd)), board_fds_(std::move(board_fds)) {
  active_.reserve(peers.size());
  for (ShmPeer& peer : peers) {
    CHECK(peer.rank >= 0 && peer.incoming_ring < segment_.layout().num_rings() &&
          peer.outgoing_ring < peer.segment.layout().num_rings());
    link_of_.resize(std::max(link_of_.size(), static_cast<size_t>(peer.rank) + 1));
    const int rank = peer.rank;
    links_.emplace_back(std::move(peer), segment_, epoch);
    link_of_[rank] = &links_.back();
  }
}

void ShmTransport::start(SendOp& op) {
  Link* link = link_of(op.peer);
  CHECK(link != nullptr, "rank {} is no peer in shared memory", op.peer);
  const bool first = link->sends.empty();
  activate(*link);
  link->sends.push(op);
  if (first) link->push(bytes_sent_);
}

void ShmTransport::start(ReceiveOp& op) {
  Link* link = link_of(op.peer);
  CHECK(link != nullptr, "rank {} is no peer in shared memory", op.peer);
  activate(*link);
  link->receives.push(op);
  posted_.insert(link->peer.incoming_ring);
}

void ShmTransport::activate(Link& link) {
  if (!std::exchange(link.active, true)) active_.push_back(&link);
}

Result<bool> ShmTransport::progress() {
  bool moved = false;
  std::erase_if(active_, [](Link* link) {
    if (link->is_idle() && !link->starving) link->active = false;
    return !link->active;
  });
  for (Link* active : active_) {
    Link& link = *active;
    if (link.is_idle()) continue;
    // Looked at first: what the peer sent before it closed is all there.
    const bool closed = link.incoming.closed.load() != 0;
    const bool pushed = link.push(bytes_sent_);
    ASSIGN_OR_RETURN(const bool pulled, link.pull(bytes_received_));
    if (link.receives.empty()) posted_.erase(link.peer.incoming_ring);
    moved |= pushed || pulled;
    if (closed && !pushed && !pulled && !link.is_idle())
      return make_error(ErrorCode::kUnavailable, "rank {} has closed its connections (shared memory)", link.peer.rank);
  }
  return moved;
}

void ShmTransport::await(std::span<const ReceiveOp> receives, bool any) {
  await_any_ = any;
  awaited_ = {};
  for (const ReceiveOp& op : receives) {
    const Link* link = op.done ? nullptr : link_of(op.peer);
    if (link != nullptr && posted_.contains(link->peer.incoming_ring)) awaited_.insert(link->peer.incoming_ring);
  }
}

Status ShmTransport::prepare_sleep() {
  segment_.bell().prepare(posted_, awaited_, await_any_);
  for (Link* link : active_) {
    link->starving = !link->sends.empty();
    if (!link->starving) continue;
    link->outgoing.starved.store(1);
    if (link->peer.segment.bell().is_posted(link->peer.outgoing_ring)) link->wake_peer();
  }
  return {};
}

void ShmTransport::end_sleep() {
  if (segment_.bell().end()) {  // if the peer's write is still to come, the next sleep ends at once
    eventfd_t count;
    eventfd_read(event_fd_.get(), &count);
  }
  for (Link* link : active_)
    if (std::exchange(link->starving, false)) link->outgoing.starved.store(0);
}

namespace {

// A group's board: the slots are in its members' segments, the control in the first member's.
class ShmBoard : public Board {
 public:
  struct Member {
    int rank = -1;                      // in the mesh
    Segment* segment = nullptr;         // has its slots
    const RingControl* ring = nullptr;  // what it sends to this rank; none for this rank itself
  };

  // rank: in the group; event_fds: the first member's, of even and odd rounds. All of it is borrowed from the
  // transport.
  ShmBoard(std::vector<Member> members, int rank, std::array<int, 2> event_fds, Counter& bytes_sent,
           Counter& bytes_received)
      : members_(std::move(members)),
        rank_(rank),
        event_fds_(event_fds),
        control_(members_.front().segment->board_control()),
        bytes_sent_(bytes_sent),
        bytes_received_(bytes_received) {
    uint32_t smallest = UINT32_MAX;
    for (const Member& member : members_) smallest = std::min(smallest, member.segment->layout().slot_bytes());
    slot_bytes_ = smallest - BoardSlot::kDataOffset;
  }

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(members_.size()); }
  size_t slot_bytes() const override { return slot_bytes_; }
  void begin_round() override { round_++; }
  std::span<std::byte> own() override { return {slot(rank_).data(), slot_bytes_}; }
  bool is_published() const override { return control_.published.load() >= round_; }
  std::span<const std::byte> of(int member) const override { return {slot(member).data(), slot_bytes_}; }
  bool notes_agree() const override { return control_.notes_agree.load(std::memory_order_relaxed) != 0; }
  uint64_t note_of(int member) const override { return slot(member).note; }
  // A peer's memory: whatever it says, the answer is a member.
  int last() const override {
    return static_cast<int>(control_.last.load(std::memory_order_relaxed) % members_.size());
  }
  int prepare_sleep() override {
    control_.num_sleeping.fetch_add(1);
    return event_fds_[round_ % 2];
  }
  void end_sleep() override { control_.num_sleeping.fetch_sub(1); }
  void count(uint64_t sent, uint64_t received) override {
    bytes_sent_ += sent;
    bytes_received_ += received;
  }

  bool arrive(uint64_t note) override {
    slot(rank_).note = note;
    slot(rank_).round.store(round_, std::memory_order_relaxed);
    // Whoever sees the sum sees what this rank wrote before.
    if (control_.num_arrived.fetch_add(1) + 1 != round_ * members_.size()) return false;
    // Published with the round. One rank compares for all.
    bool agree = true;
    for (int member = 0; member < size(); member++) agree = agree && slot(member).note == note;
    control_.notes_agree.store(agree ? 1 : 0, std::memory_order_relaxed);
    control_.last.store(static_cast<uint32_t>(rank_), std::memory_order_relaxed);
    // Nobody sleeps in the round before any more.
    if (control_.is_rung[(round_ + 1) % 2].exchange(0) != 0) {
      eventfd_t count;
      eventfd_read(event_fds_[(round_ + 1) % 2], &count);
    }
    return true;
  }

  // All others have arrived and do nothing but wait for this. A rank that is going to sleep says so and looks once
  // more; here it is published first and looked for sleepers then.
  void publish() override {
    control_.published.store(round_);
    if (control_.num_sleeping.load() == 0) return;
    control_.is_rung[round_ % 2].store(1);
    eventfd_write(event_fds_[round_ % 2], 1);  // it takes any number of ones; and whoever waits has a deadline
  }

  // Of one that has arrived nothing more is wanted: the round may go on without it.
  Status check_members() const override {
    if (members_[rank_].segment->bell().num_closed() == 0) return {};  // one look for all
    for (int member = 0; member < size(); member++) {
      const RingControl* ring = members_[member].ring;
      if (ring != nullptr && ring->closed.load() != 0 && slot(member).round.load() != round_)
        return make_error(ErrorCode::kUnavailable, "rank {} has closed its connections (shared memory)",
                          members_[member].rank);
    }
    return {};
  }

  std::vector<int> awaited() const override {
    std::vector<int> late, others;
    for (int member = 0; member < size(); member++) {
      if (slot(member).round.load() != round_) late.push_back(members_[member].rank);
      if (member != rank_) others.push_back(members_[member].rank);
    }
    // All are there, and one of them does not publish: which, nobody else can tell.
    return late.empty() ? others : late;
  }

 private:
  BoardSlot& slot(int member) const { return members_[member].segment->board_slot(round_ % 2); }

  std::vector<Member> members_;
  int rank_;
  std::array<int, 2> event_fds_;
  BoardControl& control_;
  size_t slot_bytes_;
  uint64_t round_ = 0;
  Counter& bytes_sent_;
  Counter& bytes_received_;
};

}  // namespace

std::unique_ptr<Board> ShmTransport::make_board(std::span<const int> members) {
  if (has_board_) return nullptr;
  std::vector<ShmBoard::Member> on_board;
  int own = -1;
  for (const int rank : members) {
    Link* link = link_of(rank);
    if (link != nullptr) {
      on_board.push_back({rank, &link->peer.segment, &link->incoming});
    } else if (rank == segment_.rank()) {
      own = static_cast<int>(on_board.size());
      on_board.push_back({rank, &segment_, nullptr});
    } else {
      return nullptr;
    }
  }
  CHECK(own >= 0, "rank {} is not a member of its group", segment_.rank());
  has_board_ = true;
  const BoardFds& fds = own == 0 ? board_fds_ : link_of(members.front())->peer.board_fds;
  return std::make_unique<ShmBoard>(std::move(on_board), own, std::array{fds[0].get(), fds[1].get()}, bytes_sent_,
                                    bytes_received_);
}

void ShmTransport::close() {
  if (std::exchange(closed_, true)) return;
  active_.clear();
  for (Link& link : links_) {
    link.sends.clear();
    link.receives.clear();
    link.outgoing.closed.store(1);
    link.peer.segment.bell().tell_closed(link.peer.event_fd.get());
  }
}

std::vector<PeerProcess> ShmTransport::take_peer_pidfds() {
  std::vector<PeerProcess> processes;
  for (Link& link : links_)
    if (link.peer.pidfd) processes.push_back({link.peer.rank, std::move(link.peer.pidfd)});
  return processes;
}

}  // namespace cachalot
