#include "router/event_boundary.h"

#include <gtest/gtest.h>

namespace cachalot::router {
namespace {

TEST(EventBoundary, PassesWholeEventsAndHoldsTheRest) {
  EventBoundary boundary;
  EXPECT_EQ(boundary.pass("data: 1\n\ndata: 2\n\ndata"), "data: 1\n\ndata: 2\n\n");
  EXPECT_EQ(boundary.pass(": 3"), "");
  EXPECT_EQ(boundary.pass("\n\n"), "data: 3\n\n");
  EXPECT_EQ(boundary.pass("data: 4"), "");
  EXPECT_EQ(boundary.take_rest(), "data: 4");
  EXPECT_EQ(boundary.take_rest(), "");
}

TEST(EventBoundary, CutAnywhereNothingIsLostAndOnlyWholeEventsPass) {
  for (const std::string end : {"\n\n", "\r\n\r\n"}) {
    const std::string stream = "data: one" + end + "event: x\ndata: two" + end + "data: [DONE]" + end;
    for (size_t first = 0; first <= stream.size(); first++)
      for (size_t second = first; second <= stream.size(); second++) {
        EventBoundary boundary;
        std::string passed;
        for (const std::string& piece :
             {stream.substr(0, first), stream.substr(first, second - first), stream.substr(second)}) {
          passed += boundary.pass(piece);
          ASSERT_TRUE(passed.empty() || passed.ends_with(end)) << first << " " << second << ": " << passed;
        }
        ASSERT_EQ(passed, stream) << first << " " << second;
      }
  }
}

TEST(EventBoundary, AnEndlessEventPassesInParts) {
  EventBoundary boundary;
  size_t num_passed = 0;
  for (int piece = 0; piece < 40; piece++) num_passed += boundary.pass(std::string(100'000, 'x')).size();
  EXPECT_GT(num_passed, 2'000'000u);
}

}  // namespace
}  // namespace cachalot::router
