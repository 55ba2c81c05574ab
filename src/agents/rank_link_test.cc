#include "agents/rank_link.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "base/process_test_util.h"

namespace cachalot::agents {
namespace {

using std::chrono::milliseconds;

Order example(uint32_t number, size_t card_bytes = 10) {
  return {.epoch = {.number = number,
                    .placement_version = 3,
                    .members =
                        {{.process = 0xfedcba9876543210, .rank = 3, .server = 1, .card = std::string(card_bytes, 'c')}},
                    .given_up = {2}},
          .serve_until = std::chrono::steady_clock::time_point(std::chrono::nanoseconds(123'456'789'012'345))};
}

RankReport example_report(uint32_t epoch) {
  return {.process = 0xfedcba9876543210,
          .rank = 3,
          .phase = RankPhase::kMember,
          .epoch = epoch,
          .committed = 17,
          .placement_version = 2,
          .card = std::string("\0how", 4)};
}

// What the agent's end hears next.
RankReport hear(int fd, FrameReader& reader) {
  while (true) {
    const auto fields = reader.next();
    if (fields && *fields) return decode_report(**fields).value();
    std::array<char, 7> bytes{};
    EXPECT_TRUE(readable_within(fd, milliseconds(10'000)));
    const ssize_t count = recv(fd, bytes.data(), bytes.size(), 0);
    EXPECT_GT(count, 0);
    if (count <= 0) return {};
    reader.add({bytes.data(), static_cast<size_t>(count)});
  }
}

void send_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = send(fd, bytes.data(), bytes.size(), 0);
    if (count > 0) bytes.remove_prefix(static_cast<size_t>(count));
    std::this_thread::sleep_for(milliseconds(1));
  }
}

TEST(RankLink, SaysItsReportAtOnceAndAgain) {
  auto ends = make_rank_link();
  ASSERT_TRUE(ends);
  RankLink link(std::move(ends->second), milliseconds(100));
  FrameReader reader;
  link.report(example_report(4));
  for (int count = 0; count < 3; count++) EXPECT_EQ(hear(ends->first.get(), reader), example_report(4));
  link.report(example_report(5));
  while (hear(ends->first.get(), reader) != example_report(5)) {
  }
  EXPECT_EQ(hear(ends->first.get(), reader), example_report(5));
}

TEST(RankLink, TakesOrdersAsTheyComeAndTheNewestThatCameBefore) {
  auto ends = make_rank_link();
  ASSERT_TRUE(ends);
  std::vector<Order> taken;
  RankLink link(std::move(ends->second), milliseconds(1'000));
  send_all(ends->first.get(), encode_frame(example(1)) + encode_frame(example(2)));
  std::mutex mutex;
  std::condition_variable changed;
  const auto wait_for = [&](uint32_t number) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(10),
                            [&] { return !taken.empty() && taken.back().epoch.number == number; });
  };
  link.on_order([&](const Order& order) {
    const std::lock_guard lock(mutex);
    taken.push_back(order);
    changed.notify_all();
  });
  EXPECT_TRUE(wait_for(2));
  send_all(ends->first.get(), encode_frame(example(3, 1 << 20)));  // longer than what a socket holds
  EXPECT_TRUE(wait_for(3));
  link.on_order({});
  EXPECT_EQ(taken.back().epoch, example(3, 1 << 20).epoch);
  EXPECT_EQ(taken.back().serve_until, example(3).serve_until);
}

TEST(RankLink, ARankEndsWithItsAgentsEndOrByWhatIsNoOrder) {
  for (const std::string& word : {std::string(), std::string("\xff\xff\xff\xff", 4), std::string("\1\0\0\0x", 5)}) {
    auto ends = make_rank_link();
    ASSERT_TRUE(ends);
    Process rank = fork_process([&] {
      ends->first.reset();
      const RankLink link(std::move(ends->second), milliseconds(1'000));
      std::this_thread::sleep_for(std::chrono::seconds(20));
      return 0;
    });
    ends->second.reset();
    EXPECT_FALSE(rank.wait_for(milliseconds(100)));
    word.empty() ? ends->first.reset() : send_all(ends->first.get(), word);
    EXPECT_EQ(rank.wait_for(std::chrono::seconds(10)), 1);
  }
}

}  // namespace
}  // namespace cachalot::agents
