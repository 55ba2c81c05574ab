#include "kernels/cpu/product.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace cachalot {
namespace {

TEST(WorkRanges, GivesAThreadItsOwnRangeInOrder) {
  std::vector<WorkRanges::Range> memory(2);
  WorkRanges ranges(memory);
  ranges.set(0, 10, 13);
  ranges.set(1, 13, 13);
  EXPECT_EQ(ranges.next(0), 10);
  EXPECT_EQ(ranges.next(0), 11);
  EXPECT_EQ(ranges.next(0), 12);
  EXPECT_EQ(ranges.next(0), -1);
  EXPECT_EQ(ranges.next(1), -1);
}

TEST(WorkRanges, LetsAnIdleThreadTakeTheLaterHalfOfAnothersRange) {
  std::vector<WorkRanges::Range> memory(3);
  WorkRanges ranges(memory);
  ranges.set(0, 0, 10);
  ranges.set(1, 10, 10);
  ranges.set(2, 10, 10);
  EXPECT_EQ(ranges.next(1), 5);
  EXPECT_EQ(ranges.next(1), 6);
  EXPECT_EQ(ranges.next(0), 0);
  EXPECT_EQ(ranges.next(2), 3) << "of thread 0's [1, 5)";
}

TEST(WorkRanges, GivesEveryItemOnceToSomeThread) {
  constexpr int kNumThreads = 8, kNumItems = 20000;
  std::vector<WorkRanges::Range> memory(kNumThreads);
  WorkRanges ranges(memory);
  for (int thread_idx = 0; thread_idx < kNumThreads; thread_idx++)  // all the work is the first thread's
    ranges.set(thread_idx, thread_idx == 0 ? 0 : kNumItems, kNumItems);
  std::vector<std::atomic<int>> taken(kNumItems);
  std::vector<std::thread> threads;
  for (int thread_idx = 0; thread_idx < kNumThreads; thread_idx++) {
    threads.emplace_back([&, thread_idx] {
      for (int64_t item; (item = ranges.next(thread_idx)) >= 0;) taken[static_cast<size_t>(item)]++;
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::atomic<int>& count : taken) ASSERT_EQ(count, 1);
}

}  // namespace

}  // namespace cachalot
