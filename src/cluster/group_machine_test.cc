#include "cluster/group_machine.h"

#include <gtest/gtest.h>

namespace cachalot {
namespace {

using std::chrono::milliseconds;
using Action = GroupMachine::Action;
using Time = GroupMachine::Time;

constexpr RestartPolicy kPolicy{.first_wait = milliseconds(100),
                                .longest_wait = milliseconds(350),
                                .most_restarts = 4,
                                .window = milliseconds(100'000)};

// Two processes and a clock that moves when it is told to.
class GroupMachineTest : public testing::Test {
 protected:
  Action next() { return machine_.next(now_); }
  Action next_after(int ms) {
    now_ += milliseconds(ms);
    return next();
  }
  void start_and_serve() {
    ASSERT_EQ(next(), Action::kStart);
    machine_.member_ready(0);
    machine_.member_ready(1);
    ASSERT_EQ(machine_.state(), GroupState::kReady);
  }
  void end_both() {
    machine_.member_ended(0, "was ended by signal 9 (Killed)", now_);
    machine_.member_ended(1, "ended with status 1", now_);
  }
  // From a loss to the next start: how long it was waited.
  int wait_for_start() {
    for (int waited = 0; waited < 10'000; waited += 10) {
      const Action action = next();
      if (action == Action::kStart) return waited;
      EXPECT_EQ(action, Action::kNothing);
      if (machine_.state() == GroupState::kGaveUp) return -1;
      now_ += milliseconds(10);
    }
    return -2;
  }

  Time now_{std::chrono::hours(1)};
  GroupMachine machine_{2, kPolicy, now_};
};

TEST_F(GroupMachineTest, StartsAtOnceAndServesWhenAllAreReady) {
  EXPECT_EQ(next(), Action::kStart);
  EXPECT_EQ(machine_.state(), GroupState::kStarting);
  EXPECT_EQ(next_after(60'000), Action::kNothing) << "loading may take its time";
  machine_.member_ready(1);
  EXPECT_EQ(machine_.state(), GroupState::kStarting);
  EXPECT_FALSE(machine_.has_served());
  machine_.member_ready(0);
  EXPECT_EQ(machine_.state(), GroupState::kReady);
  EXPECT_EQ(machine_.num_restarts(), 0);
}

TEST_F(GroupMachineTest, ALossEndsAllAndStartsAllAnew) {
  start_and_serve();
  machine_.member_ended(1, "was ended by signal 9 (Killed)", now_);
  EXPECT_EQ(machine_.state(), GroupState::kLost);
  EXPECT_EQ(machine_.lost_member(), 1U);
  EXPECT_EQ(machine_.loss(), "was ended by signal 9 (Killed)");
  EXPECT_EQ(next(), Action::kNothing) << "the other one has its grace";
  machine_.member_ended(0, "ended with status 1", now_);
  EXPECT_EQ(machine_.lost_member(), 1U) << "the first loss is the reason";
  EXPECT_EQ(machine_.num_losses(), 1);
  EXPECT_EQ(next(), Action::kNothing);
  EXPECT_EQ(machine_.state(), GroupState::kBackingOff);
  EXPECT_EQ(wait_for_start(), 100);
  EXPECT_EQ(machine_.num_restarts(), 1);
  EXPECT_FALSE(machine_.is_ready(0));
}

TEST_F(GroupMachineTest, WhoeverDoesNotEndIsKilledUntilItHasEnded) {
  start_and_serve();
  machine_.member_lost(0, "answers no more", now_);
  EXPECT_EQ(next_after(999), Action::kNothing);
  EXPECT_EQ(next_after(1), Action::kKill);
  EXPECT_EQ(next_after(10), Action::kNothing) << "it takes a moment to die";
  EXPECT_EQ(next_after(1'000), Action::kKill);
  end_both();
  EXPECT_EQ(wait_for_start(), 100);
}

TEST_F(GroupMachineTest, WaitsTwiceAsLongEachTimeUpToABound) {
  start_and_serve();
  for (const int expected : {100, 200, 350, 350}) {
    end_both();
    EXPECT_EQ(wait_for_start(), expected);
    machine_.member_ready(0);
    machine_.member_ready(1);
  }
}

TEST_F(GroupMachineTest, GivesUpWhenItIsLostTooOftenWithinTheWindow) {
  start_and_serve();
  for (int restart = 0; restart < kPolicy.most_restarts; restart++) {
    end_both();
    ASSERT_GE(wait_for_start(), 0);
  }
  end_both();
  EXPECT_EQ(next(), Action::kNothing);
  EXPECT_EQ(machine_.state(), GroupState::kGaveUp);
  EXPECT_EQ(next_after(1'000'000), Action::kNothing) << "for good";
}

TEST_F(GroupMachineTest, LossesOfLongAgoDoNotCount) {
  start_and_serve();
  for (int restart = 0; restart < 3 * kPolicy.most_restarts; restart++) {
    end_both();
    ASSERT_EQ(wait_for_start(), 100);
    machine_.member_ready(0);
    machine_.member_ready(1);
    now_ += kPolicy.window;
  }
  EXPECT_EQ(machine_.num_restarts(), 3 * kPolicy.most_restarts);
}

TEST_F(GroupMachineTest, AGroupThatNeverServedIsNotTriedAgain) {
  ASSERT_EQ(next(), Action::kStart);
  machine_.member_ready(0);
  machine_.member_ended(1, "ended with status 1", now_);
  EXPECT_EQ(next_after(1'000), Action::kKill);
  machine_.member_ended(0, "was ended by signal 9 (Killed)", now_);
  EXPECT_EQ(next(), Action::kNothing);
  EXPECT_EQ(machine_.state(), GroupState::kGaveUp);
  EXPECT_FALSE(machine_.has_served());
}

TEST_F(GroupMachineTest, WordFromAMemberThatIsLostAlreadyChangesNothing) {
  start_and_serve();
  end_both();
  machine_.member_ready(0);
  machine_.member_lost(0, "answers no more", now_);
  EXPECT_EQ(machine_.state(), GroupState::kLost);
  EXPECT_EQ(machine_.loss(), "was ended by signal 9 (Killed)");
}

}  // namespace
}  // namespace cachalot
