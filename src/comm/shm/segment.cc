#include "comm/shm/segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "base/check.h"

namespace cachalot {
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

}  // namespace cachalot
