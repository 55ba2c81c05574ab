#include "comm/shm/segment.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "base/file.h"

namespace cachalot {

namespace {

struct Sleeper {
  bool is_woken(int milliseconds = 0) {
    pollfd polled{.fd = event_fd.get(), .events = POLLIN};
    return poll(&polled, 1, milliseconds) == 1;
  }
  void end() {
    if (!bell.end()) return;
    uint64_t count;
    [[maybe_unused]] const ssize_t size = read(event_fd.get(), &count, sizeof(count));
  }

  Bell bell{};
  FileDescriptor event_fd{eventfd(0, EFD_NONBLOCK)};
};

RingSet rings(std::initializer_list<uint32_t> numbers) {
  RingSet set;
  for (const uint32_t ring : numbers) set.insert(ring);
  return set;
}

TEST(Bell, TheLastAwaitedRingWakes) {
  Sleeper sleeper;
  const RingSet awaited = rings({0, 63, 64, 447});
  sleeper.bell.prepare(awaited, awaited, false);
  for (const uint32_t ring : {64u, 1u, 447u, 64u, 0u}) sleeper.bell.tell_published(ring, sleeper.event_fd.get());
  EXPECT_FALSE(sleeper.is_woken());
  sleeper.bell.tell_published(63, sleeper.event_fd.get());
  EXPECT_TRUE(sleeper.is_woken());
}

TEST(Bell, TheFirstWakesWhoWaitsForAny) {
  Sleeper sleeper;
  sleeper.bell.prepare(rings({3, 5, 100}), rings({3, 100}), true);
  sleeper.bell.tell_published(5, sleeper.event_fd.get());
  EXPECT_FALSE(sleeper.is_woken()) << "nobody waits for that one";
  sleeper.bell.tell_published(100, sleeper.event_fd.get());
  EXPECT_TRUE(sleeper.is_woken());
}

TEST(Bell, SaysWhereReceivesWaitOnlyDuringASleep) {
  Sleeper sleeper;
  EXPECT_FALSE(sleeper.bell.is_posted(5));
  sleeper.bell.prepare(rings({3, 5}), rings({3}), false);
  EXPECT_TRUE(sleeper.bell.is_posted(5));
  sleeper.end();
  EXPECT_FALSE(sleeper.bell.is_posted(5));
}

TEST(Bell, NothingWakesWhoDoesNotSleep) {
  Sleeper sleeper;
  sleeper.bell.prepare(rings({3}), rings({3}), false);
  sleeper.end();
  sleeper.bell.tell_published(3, sleeper.event_fd.get());
  sleeper.bell.wake(sleeper.event_fd.get());
  EXPECT_FALSE(sleeper.is_woken());
}

// Peers publish numbers in rings of several words, each as soon as all have the last one, while the owner sleeps, or is
// about to. A lost wake-up leaves it asleep.
TEST(Bell, LosesNoWakeUpBetweenManyPeers) {
  constexpr int kRounds = 1000;
  const std::vector<uint32_t> numbers = {1, 2, 70, 200, 447};
  Sleeper sleeper;
  RingSet all;
  for (const uint32_t ring : numbers) all.insert(ring);
  std::atomic<int> round = 0;
  std::vector<std::atomic<int>> published(numbers.size());
  std::vector<std::jthread> peers;
  for (size_t peer = 0; peer < numbers.size(); peer++) {
    peers.emplace_back([&, peer] {
      for (int next = 1; next <= kRounds; next++) {
        for (int seen = round.load(); seen < next; seen = round.load()) {
          if (seen < 0) return;
          round.wait(seen);
        }
        published[peer].store(next);
        sleeper.bell.tell_published(numbers[peer], sleeper.event_fd.get());
      }
    });
  }
  for (int next = 1; next <= kRounds; next++) {
    round.store(next);
    round.notify_all();
    const auto is_open = [&](size_t peer) { return published[peer].load() < next; };
    for (bool is_done = false; !is_done;) {
      RingSet awaited;
      for (size_t peer = 0; peer < numbers.size(); peer++) {
        if (is_open(peer)) awaited.insert(numbers[peer]);
      }
      sleeper.bell.prepare(all, awaited, next % 3 == 0);
      is_done = true;
      bool moved = false;
      for (size_t peer = 0; peer < numbers.size(); peer++) {
        is_done = is_done && !is_open(peer);
        moved = moved || (awaited.contains(numbers[peer]) && !is_open(peer));
      }
      const bool is_woken = is_done || moved || sleeper.is_woken(10'000);
      sleeper.end();
      if (!is_woken) {
        ADD_FAILURE() << "nobody woke the owner in round " << next;
        next = kRounds;
        round.store(-1);
        round.notify_all();
        break;
      }
    }
  }
}

}  // namespace

}  // namespace cachalot
