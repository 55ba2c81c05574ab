#pragma once

#include <atomic>
#include <cstdint>
#include <span>

namespace cachalot {

// Items shared out among threads. Each thread begins with a range of its own, so that it reads long streams; one that
// runs out takes the later half of what another has left, so that a core with other work on it slows only its own
// share. next() may be called by all threads at once, set() before them.
class WorkRanges {
 public:
  struct alignas(64) Range {
    std::atomic<uint64_t> ends{0};  // begin in the lower half, end in the upper; all of a range's state
  };

  explicit WorkRanges(std::span<Range> ranges) : ranges_(ranges) {}

  int num_threads() const { return static_cast<int>(ranges_.size()); }
  void set(int thread_idx, int64_t begin, int64_t end) {
    ranges_[static_cast<size_t>(thread_idx)].ends.store(pack(begin, end), std::memory_order_relaxed);
  }

  // An item that nobody else gets, or -1 if there is none left to take.
  int64_t next(int thread_idx) {
    Range& own = ranges_[static_cast<size_t>(thread_idx)];
    uint64_t ends = own.ends.load(std::memory_order_relaxed);
    while (begin_of(ends) < end_of(ends)) {
      if (exchange(own, ends, pack(begin_of(ends) + 1, end_of(ends)))) return begin_of(ends);
    }
    for (size_t offset = 1; offset < ranges_.size(); offset++) {
      const int64_t item = take_half(ranges_[(static_cast<size_t>(thread_idx) + offset) % ranges_.size()], own);
      if (item >= 0) return item;
    }
    return -1;
  }

 private:
  static uint64_t pack(int64_t begin, int64_t end) {
    return static_cast<uint64_t>(begin) | static_cast<uint64_t>(end) << 32;
  }
  static int64_t begin_of(uint64_t ends) { return static_cast<int64_t>(ends & 0xffffffffu); }
  static int64_t end_of(uint64_t ends) { return static_cast<int64_t>(ends >> 32); }
  static bool exchange(Range& range, uint64_t& expected, uint64_t desired) {
    return range.ends.compare_exchange_weak(expected, desired, std::memory_order_relaxed);
  }

  // The later half of `victim` becomes `own`, which is empty; gives its first item.
  static int64_t take_half(Range& victim, Range& own) {
    uint64_t ends = victim.ends.load(std::memory_order_relaxed);
    while (begin_of(ends) < end_of(ends)) {
      const int64_t begin = begin_of(ends), end = end_of(ends), middle = begin + (end - begin) / 2;
      if (!exchange(victim, ends, pack(begin, middle))) continue;
      own.ends.store(pack(middle + 1, end), std::memory_order_relaxed);
      return middle;
    }
    return -1;
  }

  std::span<Range> ranges_;
};

}  // namespace cachalot
