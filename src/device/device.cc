#include "device/device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "base/math.h"
#include "base/text.h"

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

namespace {

// The number in a cgroup file; 0 if there is none ("max", or no such file).
size_t read_limit(const std::string& path) {
  std::ifstream file(path);
  std::string text;
  return file >> text ? leading_number<size_t>(text) : 0;
}

// This process's own path below a cgroup hierarchy: the line "0::/path" (version 2) or "N:...memory...:/path" (version
// 1).
std::string cgroup_path(bool version2) {
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (version2 ? controllers.empty() : controllers.find("memory") != std::string::npos)
      return line.substr(second + 1);
  }
  return "/";
}

}  // namespace

MemoryInfo memory_info() {
  MemoryInfo info{static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGE_SIZE)), "node"};
  const auto consider = [&](const std::string& root, std::string path, const char* name) {
    // A limit anywhere up the tree holds.
    for (;;) {
      const std::string file = root + (path == "/" ? "" : path) + "/" + name;
      const size_t limit = read_limit(file);
      if (limit > 0 && limit < info.total_bytes) info = {limit, file};
      if (path.empty() || path == "/") break;
      path = path.substr(0, path.rfind('/'));
    }
  };
  consider("/sys/fs/cgroup", cgroup_path(true), "memory.max");
  consider("/sys/fs/cgroup/memory", cgroup_path(false), "memory.limit_in_bytes");
  return info;
}

int64_t resident_bytes(int64_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/statm");
  int64_t total = 0, resident = 0;
  return file >> total >> resident ? resident * sysconf(_SC_PAGESIZE) : 0;
}

IsaLevel detect_isa() {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (!avx2) return IsaLevel::kReference;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512vnni");
  return avx512 ? IsaLevel::kAvx512 : IsaLevel::kAvx2;
}

std::string_view isa_name(IsaLevel isa) {
  constexpr std::string_view kNames[] = {"reference", "avx2", "avx512"};
  return kNames[static_cast<size_t>(isa)];
}

}  // namespace cachalot
