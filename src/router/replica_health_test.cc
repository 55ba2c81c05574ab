#include "router/replica_health.h"

#include <gtest/gtest.h>

namespace cachalot::router {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using State = ReplicaHealth::State;

class ReplicaHealthTest : public testing::Test {
 protected:
  // Up, as after its first good answer.
  void come_up() { health_.heard_well(now_); }
  void pass(milliseconds time) { now_ += time; }

  ReplicaHealth::Time now_{seconds(1000)};
  ReplicaHealth health_{{.fall = 2,
                         .rise = 3,
                         .eject_after_errors = 3,
                         .eject_time = seconds(5),
                         .longest_eject_time = seconds(12),
                         .slow_start = seconds(10)}};
};

TEST_F(ReplicaHealthTest, IsUpAfterItsFirstGoodAnswerWithItsFullShare) {
  EXPECT_EQ(health_.state(), State::kStarting);
  EXPECT_FALSE(health_.reason().empty());
  health_.was_refused("refused");
  EXPECT_EQ(health_.state(), State::kStarting);
  EXPECT_EQ(health_.reason(), "refused");
  come_up();
  EXPECT_EQ(health_.state(), State::kUp);
  EXPECT_EQ(health_.reason(), "");
  EXPECT_EQ(health_.ramp(now_), 1);
  EXPECT_EQ(health_.num_falls(), 0);
}

TEST_F(ReplicaHealthTest, OnlyRefusalsInARowTakeItOut) {
  come_up();
  for (int time = 0; time < 5; time++) {
    health_.was_refused("refused");
    EXPECT_TRUE(health_.is_up());
    health_.heard_well(now_);
  }
  health_.was_refused("refused");
  health_.was_refused("refused");
  EXPECT_EQ(health_.state(), State::kDown);
  EXPECT_FALSE(health_.is_silent());
  EXPECT_EQ(health_.num_falls(), 1);
}

TEST_F(ReplicaHealthTest, ItsOwnWordOrSilenceOrALostConnectionTakesItOutAtOnce) {
  come_up();
  ReplicaHealth ill = health_, silent = health_, gone = health_;
  ill.heard_ill("503");
  EXPECT_EQ(ill.state(), State::kDown);
  EXPECT_FALSE(ill.is_silent()) << "it may be finishing what it has";
  silent.heard_nothing("no answer");
  EXPECT_EQ(silent.state(), State::kDown);
  EXPECT_TRUE(silent.is_silent());
  EXPECT_EQ(silent.reason(), "no answer");
  gone.request_not_taken("cannot reach it");
  EXPECT_EQ(gone.state(), State::kDown);
}

TEST_F(ReplicaHealthTest, ComesBackAfterGoodAnswersInARowAndGetsItsShareStepByStep) {
  come_up();
  health_.heard_nothing("no answer");
  health_.heard_well(now_);
  EXPECT_FALSE(health_.is_silent()) << "it speaks again";
  health_.heard_well(now_);
  health_.was_refused("refused");
  health_.heard_well(now_);
  health_.heard_well(now_);
  EXPECT_FALSE(health_.is_up()) << "the refusal began the count anew";
  health_.heard_well(now_);
  EXPECT_TRUE(health_.is_up());
  EXPECT_NEAR(health_.ramp(now_), 0.1, 1e-9);
  pass(seconds(5));
  EXPECT_NEAR(health_.ramp(now_), 0.5, 1e-9);
  pass(seconds(60));
  EXPECT_EQ(health_.ramp(now_), 1);
}

TEST_F(ReplicaHealthTest, IsEjectedForATimeAfterErrorsInARow) {
  come_up();
  health_.request_failed(now_, "500");
  health_.request_failed(now_, "500");
  health_.request_answered();
  health_.request_failed(now_, "500");
  health_.request_failed(now_, "500");
  EXPECT_TRUE(health_.is_up());
  health_.request_failed(now_, "500");
  EXPECT_EQ(health_.state(), State::kDown);
  EXPECT_EQ(health_.ejected_until(), now_ + seconds(5));
  pass(milliseconds(4900));
  for (int answer = 0; answer < 5; answer++) health_.heard_well(now_);
  EXPECT_FALSE(health_.is_up()) << "it answers the health question all the while";
  pass(milliseconds(100));
  for (int answer = 0; answer < 3; answer++) health_.heard_well(now_);
  EXPECT_TRUE(health_.is_up());
  EXPECT_EQ(health_.ejected_until(), std::nullopt);
}

TEST_F(ReplicaHealthTest, IsEjectedLongerEachTimeUntilItAnswersARequest) {
  come_up();
  const auto ejection = [&] {
    for (int error = 0; error < 3; error++) health_.request_failed(now_, "500");
    const auto time = *health_.ejected_until() - now_;
    now_ = *health_.ejected_until();
    for (int answer = 0; answer < 3; answer++) health_.heard_well(now_);
    return time;
  };
  EXPECT_EQ(ejection(), seconds(5));
  EXPECT_EQ(ejection(), seconds(10));
  EXPECT_EQ(ejection(), seconds(12));
  for (int time = 0; time < 40; time++) EXPECT_EQ(ejection(), seconds(12));
  health_.request_answered();
  EXPECT_EQ(ejection(), seconds(5));
}

TEST(ReplicaHealth, ErrorsInWordsCountAQuarter) {
  ReplicaHealth health({.eject_after_errors = 2});
  const auto now = ReplicaHealth::Time();
  health.heard_well(now);
  for (int error = 0; error < 7; error++) health.request_failed(now, "500", true);
  EXPECT_TRUE(health.is_up());
  health.request_failed(now, "500", true);
  EXPECT_FALSE(health.is_up());
}

}  // namespace
}  // namespace cachalot::router
