#include "serve/rank_board.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

namespace cachalot {
namespace {

TEST(RankBoard, AnotherMappingSeesWhatWasWritten) {
  const auto board = RankBoard::create(3, 2).value();
  const auto other = RankBoard::attach(dup(board->fd())).value();
  EXPECT_EQ(other->num_slots(), 3);
  EXPECT_EQ(other->secret(), board->secret());
  EXPECT_NE(RankBoard::create(3, 2).value()->secret(), board->secret());
  EXPECT_FALSE(board->read(1));
  other->write(1, {.phase = RankPhase::kLoading, .percent = 40, .report = {.rank = 5, .steps = 7}});
  const auto state = board->read(1);
  ASSERT_TRUE(state);
  EXPECT_EQ(state->phase, RankPhase::kLoading);
  EXPECT_EQ(state->percent, 40U);
  EXPECT_EQ(state->report.rank, 5);
  EXPECT_EQ(state->report.steps, 7U);
  EXPECT_FALSE(board->read(0));
  other->counts(2)[1] = 9;
  EXPECT_EQ(board->counts(2)[1], 9U);
  EXPECT_EQ(board->counts(2).size(), 2U);
}

// Two scrapes of a server's metrics at a time, each on a thread of its own.
TEST(RankBoard, AReaderNeverSeesHalfAStateThoughSeveralThreadsWrite) {
  const auto board = RankBoard::create(1, 0).value();
  std::atomic<int> num_writing = 3;
  std::vector<std::jthread> writers;
  for (uint64_t writer = 0; writer < 3; writer++) {
    writers.emplace_back([&, writer] {
      for (uint64_t count = 1; count < 60'000; count++) {
        const uint64_t value = count * 3 + writer;
        board->write(0, {.percent = value, .report = {.rows_sent = value, .ucx_bytes_received = value}});
      }
      num_writing--;
    });
  }
  int num_halves = 0;
  while (num_writing > 0) {
    const auto state = board->read(0);
    if (state)
      num_halves += state->percent != state->report.rows_sent || state->percent != state->report.ucx_bytes_received;
  }
  EXPECT_EQ(num_halves, 0);
}

TEST(RankBoard, AFailureTravelsWhateverItHolds) {
  RankState state;
  state.set_failed(ErrorCode::kOutOfMemory);
  EXPECT_EQ(state.phase, RankPhase::kFailed);
  EXPECT_EQ(state.failure(), ErrorCode::kOutOfMemory);
  state.error_code = ~uint64_t{0};  // of a process that writes garbage
  EXPECT_EQ(state.failure(), ErrorCode::kInternal);
}

TEST(RankBoard, AnotherFileIsNone) {
  EXPECT_FALSE(RankBoard::attach(0)) << "standard input";
}

}  // namespace
}  // namespace cachalot
