#pragma once

#include <atomic>
#include <cstdint>

namespace cachalot {

// A count that one thread advances and any thread reads.
class Counter {
 public:
  void operator+=(uint64_t amount) {
    // One writer, so no locked addition; readers need no order with anything else.
    value_.store(value_.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
  }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

}  // namespace cachalot
