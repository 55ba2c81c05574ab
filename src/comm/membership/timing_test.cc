#include <gmock/gmock.h>

#include "base/progress.h"
#include "comm/membership/role.h"

namespace cachalot::control {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(Lateness, IsForgottenBitByBit) {
  Lateness lateness(milliseconds(100));
  lateness.came(milliseconds(40));
  EXPECT_EQ(lateness.lately(), milliseconds(0));
  lateness.came(milliseconds(900));
  EXPECT_EQ(lateness.lately(), milliseconds(800));
  lateness.came(milliseconds(5));
  EXPECT_EQ(lateness.lately(), milliseconds(700));
  for (int message = 0; message < 60; message++) lateness.came(milliseconds(5));
  EXPECT_LT(lateness.lately(), milliseconds(1));
}

TEST(Timing, APeerThatHasBeenLateMayBeSilentThatMuchLongerButNotForEver) {
  const Timing timing{.failure_timeout = milliseconds(1000)};
  Lateness lateness(timing.slack());
  EXPECT_EQ(timing.silence_limit(lateness, false), milliseconds(900));
  lateness.came(milliseconds(400));
  EXPECT_EQ(timing.silence_limit(lateness, false), milliseconds(1200));
  lateness.came(seconds(30));
  EXPECT_EQ(timing.silence_limit(lateness, false), milliseconds(1900));
}

TEST(Timing, APeerThatLoadsMayBeSilentLonger) {
  const Timing timing{.failure_timeout = milliseconds(1000)};
  EXPECT_EQ(timing.silence_limit(Lateness(timing.slack()), true), milliseconds(2700));
}

TEST(Timing, SilenceIsToldInSeconds) {
  EXPECT_EQ(Timing::silence_text(milliseconds(1234)), "nothing has come from it for 1.2 s");
}

TEST(Notices, ComeLessAndLessOften) {
  const Notices::Time start{};
  Notices notices(seconds(4));
  notices.restart(start);
  std::vector<int> told;
  for (int second = 0; second <= 200; second++) {
    if (notices.due(start + seconds(second))) told.push_back(second);
  }
  EXPECT_THAT(told, testing::ElementsAre(4, 8, 14, 23, 37, 58, 89, 135, 183));
}

TEST(Notices, TheFirstComesAtOnceUnlessItIsPutOff) {
  Notices notices(seconds(4));
  EXPECT_TRUE(notices.due(Notices::Time{} + seconds(1)));
  EXPECT_FALSE(notices.due(Notices::Time{} + seconds(2)));
}

TEST(Complaints, TheFirstIsToldAtOnceAndTheRestOneInAnInterval) {
  const Complaints::Time start = Complaints::Time{} + seconds(100);
  Complaints complaints(seconds(10));
  EXPECT_EQ(complaints.due(start), std::nullopt);
  EXPECT_EQ(complaints.add(start, "a"), "a");
  for (int i = 0; i < 500; i++) EXPECT_EQ(complaints.add(start + milliseconds(10 * i), "b"), std::nullopt);
  EXPECT_EQ(complaints.due(start + seconds(9)), std::nullopt);
  EXPECT_EQ(complaints.due(start + seconds(10)), "b (the last of 500; at most one line in 10 s)");
  EXPECT_EQ(complaints.due(start + seconds(30)), std::nullopt) << "nothing more came";
  EXPECT_EQ(complaints.add(start + seconds(30), "c"), "c");
}

}  // namespace
}  // namespace cachalot::control
