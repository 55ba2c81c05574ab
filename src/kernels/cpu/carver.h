#pragma once

#include <cstddef>
#include <cstdint>

namespace cachalot {

// Cuts arrays out of a piece of memory, each on cache lines of its own. Without memory it only adds up their sizes, so
// that one function both lays out and measures.
class Carver {
 public:
  explicit Carver(std::byte* memory) : memory_(memory) {}

  template <class T>
  T* take(int64_t count) {
    constexpr size_t kLine = 64;
    const size_t begin = used_;
    used_ += (static_cast<size_t>(count) * sizeof(T) + kLine - 1) / kLine * kLine;
    return memory_ ? reinterpret_cast<T*>(memory_ + begin) : nullptr;
  }
  size_t used() const { return used_; }

 private:
  std::byte* memory_;
  size_t used_ = 0;
};

}  // namespace cachalot
