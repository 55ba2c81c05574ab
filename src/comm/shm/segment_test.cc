#include "comm/shm/segment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <random>
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

using testing::HasSubstr;

struct Ring {
  explicit Ring(size_t num_bytes, uint64_t writer_epoch = 1)
      : data(num_bytes), writer(control, data, writer_epoch), reader(control, data, 1) {}

  RingControl control{};
  std::vector<std::byte> data;
  RingWriter writer;
  RingReader reader;
};

std::vector<std::byte> random_bytes(size_t size, std::mt19937& random) {
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

// Both ends take turns at random, so that every fill level of the ring comes up.
void stream_messages(size_t ring_bytes, size_t max_size, int num_messages, unsigned seed) {
  Ring ring(ring_bytes);
  std::mt19937 random(seed);
  std::deque<std::vector<std::byte>> messages;  // those that are written, wholly or in part, and not read
  std::vector<std::byte> buffer(max_size);
  bool is_writing = false;
  int num_written = 0, num_read = 0;
  while (num_read < num_messages) {
    if (random() % 2 == 0 && (is_writing || num_written < num_messages)) {
      if (!std::exchange(is_writing, true))
        messages.push_back(random_bytes(random() % 3 == 0 ? random() % 3 : random() % max_size, random));
      if (ring.writer.write(messages.back()).done) {
        is_writing = false;
        num_written++;
      }
    } else {
      size_t size = 0;
      const Result<RingProgress> progress = ring.reader.read(buffer, size);
      ASSERT_TRUE(progress) << progress.error().message;
      if (!progress->done) continue;
      ASSERT_EQ(size, messages.front().size());
      ASSERT_TRUE(std::ranges::equal(messages.front(), std::span(buffer).first(size))) << "message " << num_read;
      messages.pop_front();
      num_read++;
    }
  }
}

TEST(Ring, KeepsOrderAndContentOfMessagesOfAnySize) {
  for (unsigned seed = 0; seed < 20; seed++) {
    stream_messages(4096, 100, 500, seed);      // many in the ring
    stream_messages(4096, 5'000, 100, seed);    // about one
    stream_messages(8192, 100'000, 20, seed);   // far longer
    stream_messages(65536, 20'000, 100, seed);  // with returns to the start
  }
}

std::ptrdiff_t used_bytes(const Ring& ring) {
  const auto is_used = [](std::byte byte) { return byte != std::byte{}; };
  return ring.data.rend() - std::find_if(ring.data.rbegin(), ring.data.rend(), is_used);
}

// lag: by how many messages the reader is behind.
void test_first_pages(int lag) {
  for (const size_t size : {100, 3000, 8192, 10'001}) {
    Ring ring(1 << 16);
    std::vector<std::byte> message(size, std::byte{7}), buffer(size);
    for (int idx = 0; idx < 2000; idx++) {
      size_t read_size;
      ASSERT_TRUE(ring.writer.write(message).done);
      if (idx < lag) continue;
      ASSERT_TRUE(ring.reader.read(buffer, read_size)->done);
      ASSERT_EQ(buffer, message);
    }
    const auto ssize = static_cast<std::ptrdiff_t>(size);
    EXPECT_LE(used_bytes(ring), 4096 + (2 + lag) * (ssize + 128)) << size << " bytes";
    if (size > 4096 && lag == 0) {
      EXPECT_LE(used_bytes(ring), ssize + 128) << size << " bytes";
    }
  }
}

TEST(Ring, StaysOnItsFirstPagesWhileTheReaderKeepsUp) {
  test_first_pages(0);
}

TEST(Ring, StaysOnItsFirstPagesWhileTheReaderIsAMessageBehind) {
  test_first_pages(1);
}

// As between ranks of a collective: nobody is ahead of another by more than a message, and nobody should wait.
TEST(Ring, TakesASecondMessageWhileTheFirstIsUnread) {
  for (const size_t size : {3000, 8192, 20'000, 32'000}) {
    Ring ring(1 << 16);
    std::vector<std::byte> message(size, std::byte{7}), buffer(size);
    std::mt19937 random(1);
    int num_unread = 0;
    for (int idx = 0; idx < 2000; idx++) {
      ASSERT_TRUE(ring.writer.write(message).done) << size << " bytes, message " << idx;
      num_unread++;
      while (num_unread > static_cast<int>(random() % 2)) {
        size_t read_size;
        ASSERT_TRUE(ring.reader.read(buffer, read_size)->done);
        num_unread--;
      }
    }
  }
}

TEST(Ring, SaysWhenNothingCanMove) {
  Ring ring(4096);
  std::vector<std::byte> message(5000), buffer(5000);
  size_t size;
  EXPECT_FALSE(ring.reader.read(buffer, size)->moved);
  EXPECT_TRUE(ring.writer.write(message).moved);
  EXPECT_FALSE(ring.writer.write(message).moved) << "it is full";
  EXPECT_TRUE(ring.reader.read(buffer, size)->moved);
  EXPECT_EQ(ring.reader.num_unread(), 0);
  EXPECT_FALSE(ring.reader.read(buffer, size)->moved);
  EXPECT_TRUE(ring.writer.write(message).done);
  EXPECT_TRUE(ring.reader.read(buffer, size)->done);
}

TEST(Ring, RefusesAMessageLongerThanTheBuffer) {
  Ring ring(4096);
  std::vector<std::byte> message(100), buffer(99);
  size_t size;
  ring.writer.write(message);
  const Result<RingProgress> progress = ring.reader.read(buffer, size);
  ASSERT_FALSE(progress);
  EXPECT_THAT(progress.error().message, HasSubstr("a message of 100 bytes came where at most 99 are expected"));
}

TEST(Ring, RefusesAnotherEpoch) {
  Ring ring(4096, 2);
  size_t size;
  ring.writer.write({});
  const Result<RingProgress> progress = ring.reader.read({}, size);
  ASSERT_FALSE(progress);
  EXPECT_THAT(progress.error().message, HasSubstr("epoch 2 came in epoch 1"));
}

TEST(Ring, RefusesARingThatMakesNoSense) {
  const auto error_after = [](auto spoil) {
    Ring ring(4096);
    std::vector<std::byte> message(100), buffer(100);
    size_t size;
    ring.writer.write(message);
    spoil(ring);
    const Result<RingProgress> progress = ring.reader.read(buffer, size);
    return progress ? std::string() : progress.error().message;
  };
  EXPECT_EQ(error_after([](Ring&) {}), "");
  EXPECT_THAT(error_after([](Ring& ring) { ring.control.tail = 5000; }), HasSubstr("its ring says 0 to 5000 of 4096"));
  EXPECT_THAT(error_after([](Ring& ring) { ring.data[8] = std::byte{3}; }),
              HasSubstr("message 3 came where message 0"));
  EXPECT_THAT(error_after([](Ring& ring) { std::fill_n(ring.data.begin(), 8, std::byte{255}); }),
              HasSubstr("a message of 18446744073709551615 bytes came"));
}

}  // namespace

}  // namespace cachalot
