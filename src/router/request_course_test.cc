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

TEST_F(RequestCourseTest, ALostReplicaIsForgivenTwiceAndTheThirdEndsIt) {
  for (int tries = 0; tries < 3; tries++) {
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

// Of a server that tells its answer's log.
http::ResponseHead logged_head(const char* mark = "m1", const char* kind = "events") {
  return {.status = 200, .headers = {{"X-Cachalot-Log", std::string(kind) + " " + mark + " f"}}};
}

struct TakeoverCourseTest : RequestCourseTest {
  // An answer of which so many tokens have come.
  void begin(int num_tokens) {
    next();
    ASSERT_TRUE(course.wants_log());
    ASSERT_TRUE(course.take_head(logged_head(), now));
    course.begin_answer();
    say("data: head\n\n:@b {}\n\n");
    for (int token = 0; token < num_tokens; token++) say("data: x\n\n:@t 0 0 - 7\n\n");
  }
  void say(const char* events) {
    const LogReader::Step step = LogReader().pass(events);
    course.take_step(step, now);
    course.pass(step.events, true);
  }
  void report(const char* fingerprint) {
    for (size_t replica = 0; replica < 3; replica++)
      state.table.heard_well(replica, LoadReport{.instance = "m1", .fingerprint = fingerprint}, now);
  }
};

TEST_F(TakeoverCourseTest, AnAnswerGoesOnWhereTheBitsAreTheSame) {
  begin(2);
  EXPECT_TRUE(course.may_go_on());
  EXPECT_EQ(course.log(), ":@b {}\n\n:@t 0 0 - 7\n\n:@t 0 0 - 7\n\n");
  course.lose_stream("it is gone", true, now);
  EXPECT_EQ(course.pause(), 0ms);
  EXPECT_FALSE(course.next_replica({}, now));
  EXPECT_TRUE(course.is_waiting()) << "no replica says that its answers are the same";
  EXPECT_EQ(course.pause(), 100ms);
  report("f");
  ASSERT_TRUE(course.next_replica({}, now));
  course.begin_try(now);
  EXPECT_TRUE(course.wants_log());
  EXPECT_TRUE(course.take_head(logged_head("m2"), now));
  EXPECT_TRUE(course.goes_on());
  say("data: y\n\n:@t 0 0 - 8\n\n");
  EXPECT_FALSE(course.goes_on());
}

TEST_F(TakeoverCourseTest, PausesGrowUntilPatienceEnds) {
  begin(1);
  course.lose_stream("it gave up", false, now);
  for (const auto pause : {0ms, 100ms, 200ms, 400ms, 800ms, 1600ms, 2000ms, 2000ms}) EXPECT_EQ(course.pause(), pause);
  EXPECT_FALSE(course.next_replica({}, now + 59s));
  EXPECT_TRUE(course.is_waiting());
  const auto end = course.next_replica({}, now + 60s);
  ASSERT_FALSE(end);
  EXPECT_FALSE(course.is_waiting());
  ASSERT_TRUE(end.error());
  EXPECT_EQ(end.error()->status, 504);
}

TEST_F(TakeoverCourseTest, ThreeDeathsAtOneTokenAreBlamedOnTheRequest) {
  report("f");
  begin(1);
  for (int deaths = 0; deaths < 6; deaths++) {
    course.lose_stream("it is gone", deaths != 1, now);
    const auto replica = course.next_replica({}, now);
    if (deaths == 5) {
      ASSERT_FALSE(replica);
      ASSERT_TRUE(replica.error());
      EXPECT_EQ(replica.error()->status, 502);
      break;
    }
    ASSERT_TRUE(replica) << deaths;
    course.begin_try(now);
    ASSERT_TRUE(course.take_head(logged_head("m2"), now));
    if (deaths == 2) say("data: y\n\n:@t 0 0 - 8\n\n");  // one more token: the count begins anew
  }
  EXPECT_TRUE(state.suspects.refused_for(hash_of("/v1/completions", "{}"), now));
}

TEST_F(TakeoverCourseTest, WhatIsWrongWithTheRequestEndsIt) {
  report("f");
  begin(1);
  course.lose_stream("it is gone", true, now);
  ASSERT_TRUE(course.next_replica({}, now));
  course.begin_try(now);
  EXPECT_FALSE(course.take_head({.status = 400}, now));
  course.end_failure(true, now);
  EXPECT_FALSE(course.next_replica({}, now));
  EXPECT_FALSE(course.is_waiting());
  EXPECT_EQ(course.take_failure().status, 400);
}

TEST_F(TakeoverCourseTest, ANewServerAtTheSameAddressEndsTheOldOnesStreamAtOnce) {
  report("f");
  begin(1);
  using Means = RequestCourse::StartMeans;
  EXPECT_EQ(course.hear_start("m1", true), Means::kNothing) << "it is the one that answers";
  EXPECT_EQ(course.hear_start("m3", false), Means::kEnd);
  EXPECT_TRUE(course.was_closed());
  EXPECT_TRUE(course.hear_silence()) << "nor is a silent one waited for";
}

TEST_F(TakeoverCourseTest, WhatHasNoAnswerIsAskedAgainAtANewServer) {
  using Means = RequestCourse::StartMeans;
  next();
  EXPECT_EQ(course.hear_start("m3", false), Means::kEnd) << "which of the two has it is not known";
  EXPECT_FALSE(course.take_error({ErrorCode::kCancelled, "closed", {}}, 0, std::nullopt, now));
  std::set<size_t> asked{next()};
  course.pass("data: x\n\n", true);
  EXPECT_EQ(course.hear_start("m4", false), Means::kGrace) << "it may be the one that answers";
  EXPECT_EQ(course.hear_start("m4", true), Means::kEnd);
}

TEST_F(TakeoverCourseTest, ItsMemoryIsGivenBack) {
  begin(3);
  EXPECT_EQ(state.takeover_memory.held(), request.body.size() + course.log().size());
  course.forget_request();
  EXPECT_EQ(state.takeover_memory.held(), 0u);
  EXPECT_FALSE(course.may_go_on());
}

TEST(LogReader, GivesWhatRecordsAccountForHoweverItComes) {
  const std::string stream =
      "data: a\n\n:@b {\"x\": \":@t\"}\n\n: alive\n\n:@\n\ndata: b\n\ndata: c\n\n:@t 0 0 - 1\n\n:@t 0 0 - 2\n\ndata: "
      "d\n\n"
      ":@t 0 0 s 3\n\n:@e\n\n";
  for (size_t step = 1; step <= stream.size(); step++) {
    LogReader reader;
    std::string events, records;
    bool is_whole = false;
    for (size_t at = 0; at < stream.size(); at += step) {
      const LogReader::Step part = reader.pass(std::string_view(stream).substr(at, step));
      events += part.events;
      records += part.records;
      is_whole |= part.is_whole;
    }
    ASSERT_EQ(events, "data: a\n\n: alive\n\ndata: b\n\ndata: c\n\ndata: d\n\n") << step;
    ASSERT_EQ(records, ":@b {\"x\": \":@t\"}\n\n:@t 0 0 - 1\n\n:@t 0 0 - 2\n\n:@t 0 0 s 3\n\n");
    ASSERT_TRUE(is_whole);
    ASSERT_EQ(reader.num_held(), 0u);
  }
  LogReader reader;
  EXPECT_EQ(reader.pass("data: a\n\n:@\n\ndata: half").events, "data: a\n\n");
  const LogReader::Step end = reader.pass("data: sorry\n\n:@x\n\n");
  EXPECT_TRUE(end.is_given_up);
  EXPECT_EQ(end.events, "");
  EXPECT_EQ(end.last_words, "data: halfdata: sorry\n\n");
}

TEST_F(RequestCourseTest, ItsPlaceIsGivenBack) {
  const size_t replica = next();
  EXPECT_EQ(state.table.status(now)[replica].num_in_flight, 1);
  course.give_place_back();
  EXPECT_EQ(state.table.status(now)[replica].num_in_flight, 0);
}

}  // namespace
}  // namespace cachalot::router
