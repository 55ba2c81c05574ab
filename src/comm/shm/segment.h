#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/error.h"
#include "base/file_descriptor.h"
#include "comm/shm/bell.h"

namespace cachalot {

// A rank's shared memory: where its peers on the node put messages for it, and wake it. The rank makes it, its peers
// map it.
//
//   0        SegmentHeader
//   64       Bell
//   192      BoardControl                                      of the group whose first member this rank is
//   320      RingControl of ring 0, of ring 1, ...             one ring for each sending peer
//   page     data of ring 0 (ring_bytes), of ring 1, ...       pages come into being when first used
//   page     two BoardSlots (slot_bytes each)                  what the rank shows its group
struct SegmentHeader {
  static constexpr uint64_t kMagic = 0x6d68736c61636163;  // "cacalshm"
  static constexpr uint32_t kVersion = 3;

  uint64_t magic = kMagic;
  uint32_t version = kVersion;
  int32_t rank = -1;
  uint64_t epoch = 0;
  uint32_t num_rings = 0;
  uint32_t ring_bytes = 0;
  uint32_t slot_bytes = 0;
};

// How far a group has come with its board (comm/board.h). Rounds count from 1. Whoever sleeps does so on an eventfd of
// the round's, one of two that take turns: one write wakes all, and the next round's last to arrive takes it back.
struct BoardControl {
  alignas(64) std::atomic<uint64_t> num_arrived;  // of all rounds together
  std::atomic<uint32_t> num_sleeping;
  alignas(64) std::atomic<uint64_t> published;  // the last round whose slots may be read
  std::atomic<uint32_t> last;                   // the member that arrived last in it
  std::atomic<uint32_t> notes_agree;            // all its slots have the same note
  std::atomic<uint32_t> is_rung[2];             // the eventfd of even, of odd rounds is written
};

struct BoardSlot {
  static constexpr size_t kDataOffset = 64;

  uint64_t note;                // what the member says that it does
  std::atomic<uint64_t> round;  // it has arrived in
  std::byte* data() { return reinterpret_cast<std::byte*>(this) + kDataOffset; }
};

// Positions count bytes since the start and never wrap; position % ring_bytes is where in the ring.
struct RingControl {
  // Written by the producer. Bytes [head, tail) are there to be read.
  alignas(64) std::atomic<uint64_t> tail;
  std::atomic<uint32_t> starved;     // it sleeps until there is space; the consumer takes it back
  std::atomic<uint32_t> closed;      // it sends nothing more
  std::atomic<uint64_t> rewound_at;  // the message that would begin there is at the ring's start
  // Written by the consumer.
  alignas(64) std::atomic<uint64_t> head;
};
static_assert(std::atomic<uint64_t>::is_always_lock_free && sizeof(SegmentHeader) <= 64 && sizeof(Bell) == 128 &&
              sizeof(BoardControl) == 128 && sizeof(BoardSlot) <= BoardSlot::kDataOffset && sizeof(RingControl) == 128);

// Sizes and offsets of a segment.
class SegmentLayout {
 public:
  static constexpr uint32_t kPage = 4096;

  // ring_bytes: a power of two of at least a page; slot_bytes: pages.
  SegmentLayout(uint32_t num_rings, uint32_t ring_bytes, uint32_t slot_bytes)
      : num_rings_(num_rings), ring_bytes_(ring_bytes), slot_bytes_(slot_bytes) {}
  // Of a rank that shares its node with so many others. ring_bytes 0: 64 KiB to 1 MiB, as there are many or few; a
  // bound on what one message can leave behind while its receiver is busy, not on a message's length.
  static SegmentLayout of_node(int num_peers, uint32_t ring_bytes = 0);

  // Whether the sizes are possible.
  bool is_valid() const;
  uint32_t num_rings() const { return num_rings_; }
  uint32_t ring_bytes() const { return ring_bytes_; }
  uint32_t slot_bytes() const { return slot_bytes_; }
  size_t bell_offset() const { return 64; }
  size_t board_control_offset() const { return bell_offset() + sizeof(Bell); }
  size_t control_offset(uint32_t ring) const {
    return board_control_offset() + sizeof(BoardControl) + ring * sizeof(RingControl);
  }
  size_t data_offset(uint32_t ring) const {
    return (control_offset(num_rings_) + kPage - 1) / kPage * kPage + size_t{ring} * ring_bytes_;
  }
  size_t slot_offset(uint32_t slot) const { return data_offset(num_rings_) + size_t{slot} * slot_bytes_; }
  size_t size() const { return slot_offset(2); }

 private:
  uint32_t num_rings_, ring_bytes_, slot_bytes_;
};

// A mapped segment, its own or a peer's. Thread-safe as its words are.
class Segment {
 public:
  // Makes one of which no peer can change the size.
  static Result<Segment> create(int rank, uint64_t epoch, SegmentLayout layout);
  // Maps that of rank `rank`, after a look at its size and header.
  static Result<Segment> open(FileDescriptor memory, int rank, uint64_t epoch);

  ~Segment();
  Segment(Segment&& other) noexcept;
  Segment& operator=(Segment&&) = delete;

  int memory_fd() const { return memory_.get(); }
  const SegmentLayout& layout() const { return layout_; }
  int rank() const { return rank_; }
  Bell& bell() { return at<Bell>(layout_.bell_offset()); }
  BoardControl& board_control() { return at<BoardControl>(layout_.board_control_offset()); }
  BoardSlot& board_slot(uint32_t slot) { return at<BoardSlot>(layout_.slot_offset(slot)); }
  RingControl& control(uint32_t ring) { return at<RingControl>(layout_.control_offset(ring)); }
  std::span<std::byte> data(uint32_t ring) { return {base_ + layout_.data_offset(ring), layout_.ring_bytes()}; }

 private:
  Segment(FileDescriptor memory, int rank, std::byte* base, SegmentLayout layout)
      : memory_(std::move(memory)), rank_(rank), base_(base), layout_(layout) {}
  template <class T>
  T& at(size_t offset) {
    return *reinterpret_cast<T*>(base_ + offset);
  }

  FileDescriptor memory_;
  int rank_;
  std::byte* base_;
  SegmentLayout layout_;
};

}  // namespace cachalot
