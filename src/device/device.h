#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "device/thread_pool.h"
#include "tensor/view.h"

namespace cachalot {

// What one rank computes on: a set of cores and their memory. Used by one thread (the engine's).
class Device {
 public:
  explicit Device(ThreadPoolOptions options) : threads_(std::move(options)) {}

  ThreadPool& threads() { return threads_; }

  // Zeroed memory, 2 MiB-aligned with huge pages where that is worth it; pages are touched on first use. The error says
  // how much was asked for.
  static Result<Buffer> allocate(size_t size);
  // All that allocate() has given in this process so far: what a plan is held against.
  static size_t bytes_given();

 private:
  ThreadPool threads_;
};

// How much memory this process may take.
struct MemoryInfo {
  size_t total_bytes = 0;  // the node's, or the cgroup's limit if that is smaller
  std::string source;      // "node", or the cgroup file that set the limit
};

MemoryInfo memory_info();

// Of a process, in its own pid namespace; 0: there is none. Cheap to ask for, unlike the proportional size, for which
// the system walks all pages.
int64_t resident_bytes(int64_t pid);

// Instruction levels, lowest first. Results may differ in their last bits between levels, so a group of ranks agrees on
// one.
enum class IsaLevel {
  kReference,  // plain loops, any x86-64
  kAvx2,       // AVX2, FMA, F16C
  kAvx512,     // AVX-512 F, BW, DQ, VL, VNNI
};

// The highest level that this CPU (and operating system) runs.
IsaLevel detect_isa();
std::string_view isa_name(IsaLevel isa);  // "reference", "avx2", "avx512"

}  // namespace cachalot
