#include "comm/shm/segment.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "base/error.h"
#include "base/math.h"

namespace cachalot {

void Bell::prepare(const RingSet& posted, const RingSet& awaited, bool any) {
  any_.store(any ? 1 : 0, std::memory_order_relaxed);  // read by who has seen a bit of awaited_
  sleeping_.store(1);
  for (size_t word = 0; word < RingSet::kWords; word++) {
    // Both are empty between sleeps: most words stay so.
    if (posted.words[word] != 0) posted_[word].store(posted.words[word]);
    if (awaited.words[word] != 0) awaited_[word].store(awaited.words[word]);
  }
}

bool Bell::end() {
  const bool woken = sleeping_.exchange(0) == 0;
  // A peer that clears its bit afterwards finds it cleared.
  for (auto& word : awaited_) word.store(0, std::memory_order_relaxed);
  for (auto& word : posted_) word.store(0, std::memory_order_relaxed);
  return woken;
}

void Bell::tell_published(uint32_t ring, int event_fd) {
  auto& word = awaited_[RingSet::word_of(ring)];
  const uint64_t bit = RingSet::bit_of(ring);
  if ((word.load() & bit) == 0 || (word.fetch_and(~bit) & bit) == 0) return;
  // Of two peers that clear the last bits of two words, at least one sees that all are clear.
  if (any_.load(std::memory_order_relaxed) != 0 ||
      std::ranges::all_of(awaited_, [](const auto& other) { return other.load() == 0; }))
    wake(event_fd);
}

void Bell::tell_closed(int event_fd) {
  num_closed_.fetch_add(1);
  wake(event_fd);
}

void Bell::wake(int event_fd) {
  if (sleeping_.load() == 0 || sleeping_.exchange(0) == 0) return;
  eventfd_write(event_fd, 1);  // it takes any number of ones; and whoever waits has a deadline
}

namespace {

Result<std::byte*> map(int fd, size_t size) {
  void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED)
    return make_error(ErrorCode::kOutOfMemory, "shared memory: cannot map {} bytes: {}", size, std::strerror(errno));
  return static_cast<std::byte*>(base);
}

}  // namespace

SegmentLayout SegmentLayout::of_node(int num_peers, uint32_t ring_bytes) {
  constexpr uint32_t kRings = 8 << 20, kMinRing = 64 << 10, kMaxRing = 1 << 20;
  // Of more than half a MiB, messages, whose ends copy at the same time, are faster than slots.
  constexpr uint32_t kSlots = 32 << 20, kMinSlot = 64 << 10, kMaxSlot = 512 << 10;
  const auto num_ranks = static_cast<uint32_t>(num_peers) + 1;
  if (ring_bytes == 0) ring_bytes = std::bit_floor(std::clamp(kRings / num_ranks, kMinRing, kMaxRing));
  const uint32_t slot_bytes = std::bit_floor(std::clamp(kSlots / num_ranks, kMinSlot, kMaxSlot));
  return {static_cast<uint32_t>(num_peers), ring_bytes, slot_bytes + kPage};  // the note stands before the bytes
}

bool SegmentLayout::is_valid() const {
  return num_rings_ <= RingSet::kMaxRings && std::has_single_bit(ring_bytes_) && ring_bytes_ >= kPage &&
         slot_bytes_ >= kPage && slot_bytes_ % kPage == 0;
}

Result<Segment> Segment::create(int rank, uint64_t epoch, SegmentLayout layout) {
  if (layout.num_rings() > RingSet::kMaxRings)
    return make_error(ErrorCode::kUnsupported, "shared memory: {} ranks on a node, at most {}", layout.num_rings() + 1,
                      RingSet::kMaxRings + 1);
  CHECK(layout.is_valid());
  FileDescriptor memory(memfd_create("cachalot-rank", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  // Sealed: a peer that shrank it would make this rank's next access a SIGBUS.
  if (!memory || ftruncate(memory.get(), static_cast<off_t>(layout.size())) != 0 ||
      fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return make_error(ErrorCode::kIo, "shared memory: cannot make {} bytes (memfd): {}", layout.size(),
                      std::strerror(errno));
  ASSIGN_OR_RETURN(std::byte * base, map(memory.get(), layout.size()));
  new (base) SegmentHeader{.rank = rank,
                           .epoch = epoch,
                           .num_rings = layout.num_rings(),
                           .ring_bytes = layout.ring_bytes(),
                           .slot_bytes = layout.slot_bytes()};
  return Segment(std::move(memory), rank, base, layout);
}

Result<Segment> Segment::open(FileDescriptor memory, int rank, uint64_t epoch) {
  struct stat stat{};
  SegmentHeader header;
  if (fstat(memory.get(), &stat) != 0 || pread(memory.get(), &header, sizeof(header), 0) != sizeof(header))
    return make_error(ErrorCode::kIo, "shared memory of rank {}: cannot be read: {}", rank, std::strerror(errno));
  if (header.magic != SegmentHeader::kMagic || header.version != SegmentHeader::kVersion)
    return make_error(ErrorCode::kCorrupt,
                      "shared memory of rank {}: its format is {:x} version {}, this rank's {:x} version {}", rank,
                      header.magic, header.version, SegmentHeader::kMagic, SegmentHeader::kVersion);
  if (header.rank != rank || header.epoch != epoch)
    return make_error(ErrorCode::kCorrupt, "shared memory of rank {}: it is rank {}'s of epoch {}, wanted is epoch {}",
                      rank, header.rank, header.epoch, epoch);
  const SegmentLayout layout(header.num_rings, header.ring_bytes, header.slot_bytes);
  const int seals = fcntl(memory.get(), F_GET_SEALS);
  if (!layout.is_valid() || layout.size() != static_cast<size_t>(stat.st_size) || seals < 0 ||
      (seals & F_SEAL_SHRINK) == 0)
    return make_error(ErrorCode::kCorrupt,
                      "shared memory of rank {}: {} rings of {} bytes and slots of {} do not make its {} sealed bytes",
                      rank, header.num_rings, header.ring_bytes, header.slot_bytes, stat.st_size);
  ASSIGN_OR_RETURN(std::byte * base, map(memory.get(), layout.size()));
  return Segment(std::move(memory), rank, base, layout);
}

Segment::Segment(Segment&& other) noexcept
    : memory_(std::move(other.memory_)),
      rank_(other.rank_),
      base_(std::exchange(other.base_, nullptr)),
      layout_(other.layout_) {}

Segment::~Segment() {
  if (base_ != nullptr) munmap(base_, layout_.size());
}

namespace {

// What is copied before it is published, so that both ends of a long message work at the same time.
constexpr size_t kPortionBytes = 128 << 10;

}  // namespace

// If all is read, or of this lap as much as the message takes: then the consumer has also gone back where it was told
// to before, as that was in an earlier lap.
bool RingWriter::may_rewind(uint64_t lap, uint64_t num_bytes) const {
  return head_ == tail_ || head_ >= lap + num_bytes;
}

bool RingWriter::begin(uint64_t size) {
  uint64_t start = round_up(tail_, MessageHeader::kAlignment);
  const uint64_t offset = start & (data_.size() - 1);
  const bool far = offset >= SegmentLayout::kPage;  // within a page there is nothing to gain
  if (far || start + sizeof(MessageHeader) > head_ + data_.size()) look();
  if (far && may_rewind(start - offset, sizeof(MessageHeader) + size)) {
    control_.rewound_at.store(start, std::memory_order_relaxed);  // published with the tail
    start += data_.size() - offset;
    if (head_ == tail_) head_ = start;
  }
  if (start + sizeof(MessageHeader) > head_ + data_.size()) return false;
  const MessageHeader header{.size = size, .sequence = sequence_++, .epoch = epoch_};
  std::memcpy(at(start), &header, sizeof(header));
  tail_ = start + sizeof(header);
  in_message_ = true;
  num_written_ = 0;
  return true;
}

RingProgress RingWriter::write(std::span<const std::byte> message) {
  RingProgress progress;
  if (!in_message_) {
    if (!begin(message.size())) return progress;
    progress.moved = true;
  }
  const size_t wanted = std::min(message.size() - num_written_, kPortionBytes);
  if (head_ + data_.size() - tail_ < wanted) look();
  const size_t count = std::min<size_t>(wanted, head_ + data_.size() - tail_);
  if (count > 0) {
    const size_t until_end = data_.size() - (tail_ & (data_.size() - 1));
    const size_t first = std::min(count, until_end);
    std::memcpy(at(tail_), message.data() + num_written_, first);
    std::memcpy(data_.data(), message.data() + num_written_ + first, count - first);
    tail_ += count;
    num_written_ += count;
    progress.moved = true;
  }
  if (progress.moved) control_.tail.store(tail_);
  progress.done = num_written_ == message.size();
  in_message_ = !progress.done;
  return progress;
}

Status RingReader::check(uint64_t position) const {
  if (tail_ < position || tail_ - position > data_.size())
    return make_error(ErrorCode::kCorrupt, "its ring says {} to {} of {} bytes", position, tail_, data_.size());
  return {};
}

Result<bool> RingReader::begin(size_t capacity) {
  tail_ = control_.tail.load();
  uint64_t start = round_up(head_, MessageHeader::kAlignment);
  // Looked at after the tail, so what was said before the next message was published is seen here.
  if (start > 0 && start == control_.rewound_at.load(std::memory_order_relaxed))
    start = round_up(start + 1, data_.size());
  MessageHeader header;
  if (tail_ >= head_ && tail_ < start + sizeof(header)) return false;
  RETURN_IF_ERROR(check(start));
  std::memcpy(&header, at(start), sizeof(header));
  if (header.epoch != epoch_)
    return make_error(ErrorCode::kCorrupt, "a message of epoch {} came in epoch {}", header.epoch, epoch_);
  if (header.sequence != sequence_)
    return make_error(ErrorCode::kCorrupt, "message {} came where message {} was due", header.sequence, sequence_);
  if (header.size > capacity)
    return make_error(ErrorCode::kCorrupt, "a message of {} bytes came where at most {} are expected", header.size,
                      capacity);
  sequence_++;
  head_ = start + sizeof(header);
  in_message_ = true;
  message_size_ = header.size;
  num_read_ = 0;
  return true;
}

Result<RingProgress> RingReader::read(std::span<std::byte> buffer, size_t& size) {
  RingProgress progress;
  if (!in_message_) {
    ASSIGN_OR_RETURN(progress.moved, begin(buffer.size()));
    if (!progress.moved) return progress;
  }
  const size_t wanted = std::min(message_size_ - num_read_, kPortionBytes);
  if (tail_ - head_ < wanted) {
    tail_ = control_.tail.load();
    RETURN_IF_ERROR(check(head_));
  }
  const size_t count = std::min<size_t>(wanted, tail_ - head_);
  if (count > 0) {
    const size_t first = std::min(count, data_.size() - (head_ & (data_.size() - 1)));
    std::memcpy(buffer.data() + num_read_, at(head_), first);
    std::memcpy(buffer.data() + num_read_ + first, data_.data(), count - first);
    head_ += count;
    num_read_ += count;
    progress.moved = true;
  }
  if (progress.moved) control_.head.store(head_);
  progress.done = num_read_ == message_size_;
  if (progress.done) {
    size = message_size_;
    in_message_ = false;
  }
  return progress;
}

}  // namespace cachalot
