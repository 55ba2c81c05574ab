#include "comm/shm/shm_transport.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "comm/shm/shm_board.h"

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
    uint64_t count;
    [[maybe_unused]] const ssize_t size = read(event_fd_.get(), &count, sizeof(count));
  }
  for (Link* link : active_) {
    if (std::exchange(link->starving, false)) link->outgoing.starved.store(0);
  }
}

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
  for (Link& link : links_) {
    if (link.peer.pidfd) processes.push_back({link.peer.rank, std::move(link.peer.pidfd)});
  }
  return processes;
}

}  // namespace cachalot
