#include "serve/rank_board.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <thread>

namespace cachalot {
namespace {

TEST(RankBoard, AnotherMappingSeesWhatWasWritten) {
  const auto board = RankBoard::create(3).value();
  const auto other = RankBoard::attach(dup(board->fd())).value();
  EXPECT_EQ(other->num_slots(), 3);
  EXPECT_EQ(other->secret(), board->secret());
  EXPECT_NE(RankBoard::create(3).value()->secret(), board->secret());
  EXPECT_FALSE(board->read(1));
  other->write(1, {.rank = 5, .steps = 7});
  const auto report = board->read(1);
  ASSERT_TRUE(report);
  EXPECT_EQ(report->rank, 5);
  EXPECT_EQ(report->steps, 7U);
  EXPECT_FALSE(board->read(0));
}

TEST(RankBoard, AReaderNeverSeesHalfAReport) {
  const auto board = RankBoard::create(1).value();
  std::atomic<bool> done = false;
  std::thread writer([&] {
    for (uint64_t count = 1; count < 200'000; count++)
      board->write(0, {.rows_sent = count, .ucx_bytes_received = count});
    done = true;
  });
  while (!done) {
    const auto report = board->read(0);
    if (report) {
      EXPECT_EQ(report->rows_sent, report->ucx_bytes_received);
    }
  }
  writer.join();
}

TEST(RankBoard, AnotherFileIsNone) {
  EXPECT_FALSE(RankBoard::attach(0)) << "standard input";
}

}  // namespace
}  // namespace cachalot
