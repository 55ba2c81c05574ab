#include "comm/shm/shm_transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <array>
#include <vector>

#include "base/error.h"
#include "comm/local_mesh_test_util.h"

namespace cachalot {
namespace {

using testing::HasSubstr;

// Three ranks in one thread: every step of the sleep protocol is taken by hand.
class ShmTransportTest : public testing::Test {
 protected:
  static constexpr uint32_t kRingBytes = 4096;

  ShmTransportTest() {
    auto made = make_local_shm(3, kRingBytes);
    CHECK(made, "{}", made.error().message);
    ranks_ = std::move(*made);
  }

  bool moves(int rank) {
    const Result<bool> moved = ranks_[rank]->progress();
    CHECK(moved, "{}", moved.error().message);
    return *moved;
  }
  void fall_asleep(int rank, std::span<const ReceiveOp> receives, bool any) {
    ranks_[rank]->await(receives, any);
    ASSERT_TRUE(ranks_[rank]->prepare_sleep());
    ASSERT_FALSE(moves(rank));
    ASSERT_FALSE(is_woken(rank));
  }
  bool is_woken(int rank) const {
    pollfd polled{.fd = ranks_[rank]->event_fd(), .events = POLLIN};
    return poll(&polled, 1, 0) == 1;
  }
  void start_receives() {
    for (ReceiveOp& op : receives_) ranks_[0]->start(op);
  }

  std::vector<std::unique_ptr<ShmTransport>> ranks_;
  std::vector<std::byte> from1_ = std::vector<std::byte>(10'000), from2_ = from1_;
  std::array<ReceiveOp, 2> receives_ = {ReceiveOp{.peer = 1, .buffer = from1_}, ReceiveOp{.peer = 2, .buffer = from2_}};
  std::vector<std::byte> short_message_ = std::vector<std::byte>(10), long_message_ = std::vector<std::byte>(9'000);
};

TEST_F(ShmTransportTest, ASleeperIsWokenOnceByTheLastMessageThatItWaitsFor) {
  SendOp send1{.peer = 0, .data = short_message_}, send2 = send1;
  start_receives();
  for (int round = 0; round < 3; round++) {
    fall_asleep(0, receives_, false);
    ranks_[1]->start(send1);
    EXPECT_TRUE(send1.done) << "there was space in the ring";
    EXPECT_FALSE(is_woken(0));
    ranks_[2]->start(send2);
    EXPECT_TRUE(is_woken(0));
    ranks_[0]->end_sleep();
    EXPECT_FALSE(is_woken(0));
    EXPECT_TRUE(moves(0));
    for (ReceiveOp& op : receives_) {
      EXPECT_TRUE(op.done);
      EXPECT_EQ(op.size, 10);
      op.done = false;
    }
    send1.done = send2.done = false;
    start_receives();
  }
}

TEST_F(ShmTransportTest, ASleepThatEndsEarlyLeavesTheNextOneRight) {
  SendOp send1{.peer = 0, .data = short_message_}, send2 = send1;
  start_receives();
  fall_asleep(0, receives_, false);
  ranks_[1]->start(send1);
  ranks_[0]->end_sleep();  // a deadline, another transport
  EXPECT_TRUE(moves(0));
  fall_asleep(0, receives_, false);
  EXPECT_FALSE(is_woken(0));
  ranks_[2]->start(send2);
  EXPECT_TRUE(is_woken(0));
}

TEST_F(ShmTransportTest, AnySleeperIsWokenByTheFirst) {
  SendOp send{.peer = 0, .data = short_message_};
  start_receives();
  fall_asleep(0, receives_, true);
  ranks_[2]->start(send);
  EXPECT_TRUE(is_woken(0));
}

TEST_F(ShmTransportTest, WhatComesBetweenPreparingAndSleepingIsSeen) {
  SendOp send{.peer = 0, .data = short_message_};
  start_receives();
  ranks_[0]->await(receives_, false);
  ASSERT_TRUE(ranks_[0]->prepare_sleep());
  ranks_[1]->start(send);
  EXPECT_TRUE(moves(0));
}

TEST_F(ShmTransportTest, WhatIsNotAwaitedDoesNotWake) {
  SendOp send{.peer = 0, .data = short_message_};
  start_receives();
  fall_asleep(0, std::span(receives_).last(1), false);
  ranks_[1]->start(send);
  EXPECT_FALSE(is_woken(0));
}

// Rank 0 may be waiting for what rank 2 sends only after rank 1 has gone on.
TEST_F(ShmTransportTest, APeerThatNeedsSpaceWakesASleeperThatCanMakeSome) {
  SendOp send{.peer = 0, .data = long_message_};
  start_receives();
  fall_asleep(0, std::span(receives_).last(1), false);
  ranks_[1]->start(send);
  EXPECT_FALSE(is_woken(0));
  fall_asleep(1, {}, false);
  EXPECT_TRUE(is_woken(0));
  ranks_[0]->end_sleep();

  EXPECT_FALSE(is_woken(1));
  EXPECT_TRUE(moves(0));
  EXPECT_TRUE(is_woken(1)) << "there is space";
  ranks_[1]->end_sleep();
  while (moves(1) || moves(0)) continue;
  EXPECT_TRUE(send.done && receives_[0].done);
  EXPECT_EQ(receives_[0].size, long_message_.size());
}

TEST_F(ShmTransportTest, APeerThatNeedsSpaceLeavesASleeperAloneThatCannotMakeAny) {
  SendOp send{.peer = 0, .data = long_message_};
  ranks_[0]->start(receives_[1]);
  fall_asleep(0, std::span(receives_).last(1), false);
  ranks_[1]->start(send);
  fall_asleep(1, {}, false);
  EXPECT_FALSE(is_woken(0)) << "nothing is to be received from rank 1";
}

TEST_F(ShmTransportTest, MessagesThatWereSentBeforeClosingArriveAndThenItIsAnError) {
  SendOp send{.peer = 0, .data = short_message_};
  ranks_[1]->start(send);
  ranks_[1]->close();
  EXPECT_FALSE(moves(0)) << "nothing is open with rank 1";
  start_receives();
  EXPECT_TRUE(moves(0));
  EXPECT_TRUE(receives_[0].done);
  EXPECT_FALSE(moves(0));
  std::array<std::byte, 1> byte;
  ReceiveOp receive{.peer = 1, .buffer = byte};
  ranks_[0]->start(receive);
  const Result<bool> moved = ranks_[0]->progress();
  ASSERT_FALSE(moved);
  EXPECT_EQ(moved.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(moved.error().message, HasSubstr("rank 1 has closed"));
}

TEST_F(ShmTransportTest, ClosingWakesPeers) {
  start_receives();
  fall_asleep(0, receives_, false);
  ranks_[2]->close();
  EXPECT_TRUE(is_woken(0));
}

TEST_F(ShmTransportTest, ClosingTouchesNoOperationAfterwards) {
  {
    std::vector<std::byte> buffer(10'000);
    ReceiveOp receive{.peer = 1, .buffer = buffer};
    SendOp to_closing{.peer = 0, .data = long_message_};
    ranks_[0]->start(receive);
    ranks_[1]->start(to_closing);
    EXPECT_TRUE(moves(0)) << "the message is under way";
    ranks_[0]->close();
    EXPECT_FALSE(ranks_[1]->progress() && ranks_[1]->progress()) << "it fills the ring, and then it is an error";
    ranks_[1]->close();
  }
  EXPECT_FALSE(moves(0));
}

TEST_F(ShmTransportTest, NamesThePeerWhoseMessageIsTooLong) {
  SendOp send{.peer = 0, .data = short_message_};
  ReceiveOp receive{.peer = 2, .buffer = std::span(from2_).first(9)};
  ranks_[0]->start(receive);
  ranks_[2]->start(send);
  const Result<bool> moved = ranks_[0]->progress();
  ASSERT_FALSE(moved);
  EXPECT_THAT(moved.error().message, HasSubstr("rank 2 (shared memory): a message of 10 bytes came where at most 9"));
}

TEST_F(ShmTransportTest, CountsTheBytesOfMessages) {
  SendOp sends[] = {{.peer = 0, .data = short_message_}, {.peer = 0, .data = long_message_}};
  ReceiveOp receives[] = {{.peer = 1, .buffer = from1_}, {.peer = 1, .buffer = from2_}};
  for (SendOp& op : sends) ranks_[1]->start(op);
  for (ReceiveOp& op : receives) ranks_[0]->start(op);
  while (moves(0) || moves(1)) continue;
  EXPECT_EQ(ranks_[1]->bytes_sent(), 9'010);
  EXPECT_EQ(ranks_[0]->bytes_received(), 9'010);
  EXPECT_EQ(ranks_[0]->bytes_sent() + ranks_[1]->bytes_received(), 0);
}

TEST(SegmentLayout, ShrinksAsRanksGrow) {
  const auto ring_bytes = [](int num_ranks) { return SegmentLayout::of_node(num_ranks - 1).ring_bytes(); };
  EXPECT_EQ(ring_bytes(1), 1 << 20);
  EXPECT_EQ(ring_bytes(8), 1 << 20);
  EXPECT_EQ(ring_bytes(32), 256 << 10);
  EXPECT_EQ(ring_bytes(48), 128 << 10) << "a power of two";
  EXPECT_EQ(ring_bytes(1000), 64 << 10);
  EXPECT_EQ(SegmentLayout::of_node(7).slot_bytes(), (512 << 10) + 4096);
  EXPECT_EQ(SegmentLayout::of_node(127).slot_bytes(), (256 << 10) + 4096);
  EXPECT_EQ(SegmentLayout::of_node(999).slot_bytes(), (64 << 10) + 4096);
}

TEST(Segment, RefusesOneThatIsNotWhatItShouldBe) {
  const auto error_of = [](int rank, uint64_t epoch, auto spoil) {
    Result<Segment> own = Segment::create(3, 7, {2, 4096, 4096});
    CHECK(own);
    spoil(own->memory_fd());
    const Result<Segment> opened = Segment::open(FileDescriptor(dup(own->memory_fd())), rank, epoch);
    return opened ? std::string() : opened.error().message;
  };
  const auto overwrite = [](size_t offset, uint32_t value) {
    return [=](int fd) { CHECK(pwrite(fd, &value, sizeof(value), static_cast<off_t>(offset)) == sizeof(value)); };
  };
  EXPECT_EQ(error_of(3, 7, [](int) {}), "");
  EXPECT_THAT(error_of(4, 7, [](int) {}), HasSubstr("shared memory of rank 4: it is rank 3's of epoch 7"));
  EXPECT_THAT(error_of(3, 8, [](int) {}), HasSubstr("wanted is epoch 8"));
  EXPECT_THAT(error_of(3, 7, overwrite(offsetof(SegmentHeader, magic), 1)), HasSubstr("its format"));
  EXPECT_THAT(error_of(3, 7, overwrite(offsetof(SegmentHeader, version), 99)), HasSubstr("version 99"));
  EXPECT_THAT(error_of(3, 7, overwrite(offsetof(SegmentHeader, num_rings), 3)), HasSubstr("3 rings of 4096 bytes"));
  EXPECT_THAT(error_of(3, 7, overwrite(offsetof(SegmentHeader, ring_bytes), 4097)), HasSubstr("2 rings of 4097 bytes"));
  EXPECT_THAT(error_of(3, 7, overwrite(offsetof(SegmentHeader, slot_bytes), 64)), HasSubstr("and slots of 64"));
  EXPECT_THAT(error_of(3, 7, [](int fd) { EXPECT_NE(ftruncate(fd, 0), 0) << "nobody can shrink it"; }), "");
}

}  // namespace
}  // namespace cachalot
