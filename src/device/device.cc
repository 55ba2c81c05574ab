#include "device/device.h"

#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "base/math.h"

namespace cachalot {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

std::atomic<size_t> given{0};

}  // namespace

Result<Buffer> Device::allocate(size_t size) {
  if (size == 0) return Buffer();
  const size_t alignment = size >= kHugePage ? kHugePage : 4096;
  const size_t rounded = round_up(size, alignment);
  void* mapped =
      mmap(nullptr, rounded + alignment, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED)
    return make_error(ErrorCode::kOutOfMemory, "cannot allocate {} bytes: {}", size, std::strerror(errno));
  // Trim to an aligned range, so that release needs no more than address and size.
  const auto address = reinterpret_cast<uintptr_t>(mapped);
  const uintptr_t aligned = round_up(address, alignment);
  if (aligned > address) munmap(mapped, aligned - address);
  if (address + alignment > aligned) munmap(reinterpret_cast<void*>(aligned + rounded), address + alignment - aligned);
  auto* data = reinterpret_cast<std::byte*>(aligned);
  if (alignment == kHugePage) madvise(data, rounded, MADV_HUGEPAGE);
  given += size;
  return Buffer(data, rounded, [](std::byte* data, size_t size) { munmap(data, size); });
}

size_t Device::bytes_given() {
  return given;
}

}  // namespace cachalot
