#include "router/request_course.h"

#include <gtest/gtest.h>

namespace cachalot::router {
namespace {

using namespace std::chrono_literals;  // NOLINT(google-build-using-namespace)

struct RequestCourseTest : testing::Test {
  RequestCourseTest() {
    for (size_t replica = 0; replica < 3; replica++) state.table.heard_well(replica, LoadReport{}, now);
  }
  size_t next() {
    const auto replica = course.next_replica({}, now);
    EXPECT_TRUE(replica);
    course.begin_try(now);
    return replica.value_or(9);
  }
  static Error lost() { return {ErrorCode::kUnavailable, "broken", {}}; }

  const RequestCourse::Time now{1000s};
  RouterState state{{.server_urls = {"http://a:1", "http://b:1", "http://c:1"}}};
  http::Request request{.method = "POST", .path = "/v1/completions", .target = "/v1/completions", .body = "{}"};
  RequestCourse course{state, request, "r1", now};
};

TEST_F(RequestCourseTest, AskedIsEachReplicaOnceWhileNobodyAnswers) {
  EXPECT_FALSE(course.check(now));
  std::set<size_t> asked;
  for (int tries = 0; tries < 3; tries++) {
    asked.insert(next());
    EXPECT_FALSE(course.take_head({.status = 503}, now));
    course.end_failure(true, now);
  }
  EXPECT_EQ(asked.size(), 3u);
  const auto end = course.next_replica({}, now);
  ASSERT_FALSE(end);
  EXPECT_FALSE(end.error()) << "the last one's answer is the client's";
  EXPECT_EQ(course.take_failure().status, 503);
}

TEST_F(RequestCourseTest, ALostReplicaIsForgivenOnceAndTheSecondEndsIt) {
  for (int tries = 0; tries < 2; tries++) {
    next();
    course.lose_connection(now);
    course.lose_connection(now);
    EXPECT_FALSE(course.take_error(lost(), 1, std::nullopt, now));
  }
  EXPECT_FALSE(course.next_replica({}, now));
  EXPECT_EQ(course.take_failure().status, 502);
  EXPECT_TRUE(state.suspects.refused_for(hash_of("/v1/completions", "{}"), now));
}

TEST_F(RequestCourseTest, OnlyCommentsLeaveTheWayToAnotherReplicaOpen) {
  next();
  EXPECT_TRUE(course.take_head({.status = 200}, now));
  course.begin_answer();
  course.pass(": waiting\n\n", true);
  EXPECT_TRUE(course.may_go_elsewhere(true));
  EXPECT_TRUE(course.hear_silence()) << "it is given up at once";
  course.pass("data: x\n\n", true);
  EXPECT_FALSE(course.may_go_elsewhere(true));
  EXPECT_FALSE(course.hear_silence()) << "it has its grace";
  EXPECT_EQ(request.body, "") << "nobody needs it any more";
}

TEST_F(RequestCourseTest, AReplicaThatAnswersAgainMayBeAnotherProcess) {
  next();
  course.begin_answer();
  course.take_piece(now);
  course.pass("data: x\n\n", true);
  EXPECT_FALSE(course.grace_is_over(1, false)) << "it is not silent any more";
  EXPECT_TRUE(course.grace_is_over(1, true)) << "and yet nothing has come";
  course.take_piece(now);
  EXPECT_FALSE(course.grace_is_over(1, true));
}

TEST_F(RequestCourseTest, ItsPlaceIsGivenBack) {
  const size_t replica = next();
  EXPECT_EQ(state.table.status(now)[replica].num_in_flight, 1);
  course.give_place_back();
  EXPECT_EQ(state.table.status(now)[replica].num_in_flight, 0);
}

}  // namespace
}  // namespace cachalot::router
