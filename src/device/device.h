#pragma once

#include <memory>

#include "base/error.h"
#include "device/thread_pool.h"
#include "tensor/buffer.h"

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

}  // namespace cachalot
