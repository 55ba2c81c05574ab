#pragma once

// Replaces operator new, so that an allocation can be made to fail: for one file of a test program.

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace {

// Which allocation from now on fails, of threads that are not spared; negative: none.
std::atomic<int64_t> failing_allocation{-1};
thread_local bool is_spared = false;

}  // namespace

void* operator new(size_t size) {
  if (failing_allocation.load(std::memory_order_relaxed) >= 0 && !is_spared && failing_allocation.fetch_sub(1) == 0)
    throw std::bad_alloc();
  void* const memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t /*size*/) noexcept {
  std::free(memory);
}
