#include "comm/exchange_clock.h"

#include <gmock/gmock.h>

#include <thread>

namespace cachalot {
namespace {

using std::chrono::milliseconds;
using Clock = ExchangeClock::Clock;

TEST(ExchangeClock, SplitsACallIntoWaitingAndTheRest) {
  ExchangeClock clock;
  {
    const ExchangeClock::Call call(clock, "combine", 3);
    const Clock::time_point begin = Clock::now();
    std::this_thread::sleep_for(milliseconds(4));
    clock.add_wait(begin, begin + milliseconds(3), 3);
  }
  EXPECT_EQ(clock.waiting(), milliseconds(3));
  EXPECT_GE(clock.exchanging(), milliseconds(1));
  EXPECT_EQ(clock.total(), clock.waiting() + clock.exchanging());
}

TEST(ExchangeClock, CountsACallWithinACallOnce) {
  ExchangeClock clock;
  const Clock::time_point begin = Clock::now();
  {
    const ExchangeClock::Call outer(clock, "all-reduce", -1);
    const ExchangeClock::Call inner(clock, "all-gather", -1);
    std::this_thread::sleep_for(milliseconds(2));
  }
  EXPECT_GE(clock.exchanging(), milliseconds(2));
  EXPECT_LE(clock.exchanging(), Clock::now() - begin);
}

TEST(ExchangeClock, NotesCallsAndTheirWaitsInATrace) {
  ExchangeClock clock;
  StepTrace trace;
  clock.set_trace(&trace);
  {
    const ExchangeClock::Call call(clock, {.operation = "o_proj reduce-scatter", .step = 7, .layer = 2});
    const ExchangeClock::Call part(clock, "a part", 2);
    const Clock::time_point now = Clock::now();
    clock.add_wait(now, now, 2);
  }
  clock.set_trace(nullptr);
  {
    const ExchangeClock::Call call(clock, "not noted", 0);
  }
  ASSERT_EQ(trace.spans().size(), 2);
  EXPECT_EQ(trace.spans()[0].kind, TraceSpan::Kind::kWaiting);
  EXPECT_EQ(trace.spans()[1].name, "o_proj reduce-scatter");
  EXPECT_EQ(trace.spans()[1].kind, TraceSpan::Kind::kExchange);
  EXPECT_EQ(trace.spans()[1].layer, 2);
  EXPECT_LE(trace.spans()[1].begin, trace.spans()[0].begin);
  EXPECT_GE(trace.spans()[1].end, trace.spans()[0].end);
}

}  // namespace
}  // namespace cachalot
