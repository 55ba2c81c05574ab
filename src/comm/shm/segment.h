#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/error.h"
#include "base/file.h"

namespace cachalot {

// Some of a rank's rings, a bit each.
struct RingSet {
  static constexpr size_t kWords = 7;
  static constexpr uint32_t kMaxRings = kWords * 64;

  std::array<uint64_t, kWords> words{};

  static size_t word_of(uint32_t ring) { return ring / 64; }
  static uint64_t bit_of(uint32_t ring) { return uint64_t{1} << ring % 64; }
  void insert(uint32_t ring) { words[word_of(ring)] |= bit_of(ring); }
  void erase(uint32_t ring) { words[word_of(ring)] &= ~bit_of(ring); }
  bool contains(uint32_t ring) const { return (words[word_of(ring)] & bit_of(ring)) != 0; }
};

// The part of a rank's shared memory by which it sleeps: the owner says that it does, and for which rings; peers wake
// it through an eventfd. What is written on one side and then looked for on the other (tail and awaited, tail and
// posted, head and starved, sleeping) is sequentially consistent: of two ranks that each write one word and then read
// the other's, at least one sees what the other wrote.
//
//   owner, going to sleep                           peer, after publishing (tail)
//     sleeping = 1                                    its bit of awaited is set: clear it,
//     posted = rings where a receive waits              and if it was the last one, or `any` is set: wake
//     awaited = those that it sleeps for              wake: swap sleeping for 0; if it was 1, write the eventfd
//     look at all rings once more; sleep
//
// So a rank that waits for 31 messages is woken once, by the last. A peer that is slow to clear its bit may clear that
// of the owner's next sleep: then the owner wakes too early, looks, and sleeps again; it never wakes too late. Nobody
// may wait for a sleeping rank: a peer whose message is longer than the space in its ring sets `starved`, wakes the
// owner if a receive is posted there (it will make space), and sleeps in its turn until the owner, having made space,
// swaps `starved` for 0 and wakes it.
class Bell {
 public:
  // For the owner. The next sleep ends when the last awaited ring has a message, or, if `any`, the first.
  void prepare(const RingSet& posted, const RingSet& awaited, bool any);
  bool end();  // gives whether a peer has woken it, or is about to write the eventfd

  // For peers.
  void tell_published(uint32_t ring, int event_fd);
  bool is_posted(uint32_t ring) const { return (posted_[RingSet::word_of(ring)].load() & RingSet::bit_of(ring)) != 0; }
  void wake(int event_fd);         // the owner, if it sleeps
  void tell_closed(int event_fd);  // the peer sends nothing more
  // For the owner: how many have said so.
  uint32_t num_closed() const { return num_closed_.load(); }

 private:
  using Words = std::array<std::atomic<uint64_t>, RingSet::kWords>;

  // One cache line, which every message to a sleeper changes, and another for what is seldom looked at.
  alignas(64) std::atomic<uint32_t> sleeping_;
  std::atomic<uint32_t> any_;
  Words awaited_;  // set by the owner, cleared by peers
  alignas(64) Words posted_;
  std::atomic<uint32_t> num_closed_;  // peers: one word to look at for all
};
static_assert(sizeof(Bell) == 128);

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

// How far a group has come with its board (comm/transport.h). Rounds count from 1. Whoever sleeps does so on an eventfd
// of the round's, one of two that take turns: one write wakes all, and the next round's last to arrive takes it back.
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

// Messages as a stream through one ring (RingControl and its data). A message may be many times longer than the ring:
//
//   [ padding to 64 bytes ][ MessageHeader ][ size bytes, which may go round the ring's end ]
//
// A writer goes back to the ring's start as soon as a message has room there, since there the caches are warm (and
// pages need not be touched that no message needs): RingControl::rewound_at says from where, before the message is
// published. If the ring was empty, all of it is then free for what follows.
struct MessageHeader {
  static constexpr uint64_t kAlignment = 64;  // so that headers do not go round the ring's end

  uint64_t size = 0;
  uint64_t sequence = 0;  // of this ring, from 0
  uint64_t epoch = 0;
};

struct RingProgress {
  bool moved = false;  // something is published, or freed
  bool done = false;   // the message is through
};

// The producer's end of a ring. Used by one thread.
class RingWriter {
 public:
  RingWriter(RingControl& control, std::span<std::byte> data, uint64_t epoch)
      : control_(control), data_(data), epoch_(epoch) {}

  // Writes and publishes the next portion of the message, as there is space. Called with the same message until done.
  RingProgress write(std::span<const std::byte> message);

 private:
  bool begin(uint64_t size);
  bool may_rewind(uint64_t lap, uint64_t num_bytes) const;
  void look() { head_ = std::max(head_, control_.head.load()); }
  std::byte* at(uint64_t position) { return data_.data() + (position & (data_.size() - 1)); }

  RingControl& control_;
  std::span<std::byte> data_;
  uint64_t epoch_;
  uint64_t tail_ = 0;
  uint64_t head_ = 0;  // all before it is read: the consumer's, when last looked at, or where an empty ring begins anew
  uint64_t sequence_ = 0;
  bool in_message_ = false;
  size_t num_written_ = 0;  // of the message
};

// The consumer's end. Used by one thread.
class RingReader {
 public:
  RingReader(RingControl& control, std::span<const std::byte> data, uint64_t epoch)
      : control_(control), data_(data), epoch_(epoch) {}

  // Reads the next portion of a message into the buffer. Called with the same buffer until done; `size` is then the
  // message's. Errors: the message is longer than the buffer, of another epoch, or the ring makes no sense.
  Result<RingProgress> read(std::span<std::byte> buffer, size_t& size);
  uint64_t num_unread() const { return control_.tail.load(std::memory_order_relaxed) - head_; }

 private:
  Result<bool> begin(size_t capacity);
  Status check(uint64_t position) const;  // that the tail is possible, where that is the first byte wanted
  const std::byte* at(uint64_t position) const { return data_.data() + (position & (data_.size() - 1)); }

  RingControl& control_;
  std::span<const std::byte> data_;
  uint64_t epoch_;
  uint64_t head_ = 0;
  uint64_t tail_ = 0;  // the producer's, when last looked at
  uint64_t sequence_ = 0;
  bool in_message_ = false;
  size_t message_size_ = 0, num_read_ = 0;
};

}  // namespace cachalot
