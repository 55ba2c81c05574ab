#include "comm/shm/segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

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

Result<Segment> Segment::create(int rank, uint64_t epoch, SegmentLayout layout) {
  if (layout.num_rings() > RingSet::kMaxRings)
    return make_error(ErrorCode::kUnsupported, "shared memory: {} ranks on a node, at most {}", layout.num_rings() + 1,
                      RingSet::kMaxRings + 1);
  CHECK(std::has_single_bit(layout.ring_bytes()) && layout.ring_bytes() >= SegmentLayout::kPage);
  FileDescriptor memory(memfd_create("cachalot-rank", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  // Sealed: a peer that shrank it would make this rank's next access a SIGBUS.
  if (!memory || ftruncate(memory.get(), static_cast<off_t>(layout.size())) != 0 ||
      fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return make_error(ErrorCode::kIo, "shared memory: cannot make {} bytes (memfd): {}", layout.size(),
                      std::strerror(errno));
  ASSIGN_OR_RETURN(std::byte * base, map(memory.get(), layout.size()));
  new (base)
      SegmentHeader{.rank = rank, .epoch = epoch, .num_rings = layout.num_rings(), .ring_bytes = layout.ring_bytes()};
  return Segment(std::move(memory), base, layout);
}

Result<Segment> Segment::open(FileDescriptor memory, int rank, uint64_t epoch) {
  struct stat stat {};
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
  const SegmentLayout layout(header.num_rings, header.ring_bytes);
  const int seals = fcntl(memory.get(), F_GET_SEALS);
  if (header.num_rings > RingSet::kMaxRings || !std::has_single_bit(header.ring_bytes) ||
      header.ring_bytes < SegmentLayout::kPage || layout.size() != static_cast<size_t>(stat.st_size) || seals < 0 ||
      (seals & F_SEAL_SHRINK) == 0)
    return make_error(ErrorCode::kCorrupt,
                      "shared memory of rank {}: {} rings of {} bytes do not make its {} sealed bytes", rank,
                      header.num_rings, header.ring_bytes, stat.st_size);
  ASSIGN_OR_RETURN(std::byte * base, map(memory.get(), layout.size()));
  return Segment(std::move(memory), base, layout);
}

Segment::Segment(Segment&& other) noexcept
    : memory_(std::move(other.memory_)), base_(std::exchange(other.base_, nullptr)), layout_(other.layout_) {}

Segment::~Segment() {
  if (base_ != nullptr) munmap(base_, layout_.size());
}

}  // namespace cachalot
