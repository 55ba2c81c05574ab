#include "router/forwarding.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cachalot::router {

namespace {

using testing::Pair;
using testing::UnorderedElementsAre;

http::Request request_with(http::Headers headers) {
  http::Request request{.method = "POST", .headers = std::move(headers)};
  request.peer = "10.0.0.7:41000";
  return request;
}

TEST(ForwardedHeaders, WhatConcernsTheConnectionStaysBehind) {
  const auto fields = request_fields(request_with({{"Host", "router:8002"},
                                                   {"Connection", "keep-alive, X-Private"},
                                                   {"x-private", "1"},
                                                   {"Keep-Alive", "timeout=5"},
                                                   {"TE", "trailers"},
                                                   {"Upgrade", "h2c"},
                                                   {"Transfer-Encoding", "chunked"},
                                                   {"Content-Length", "5"},
                                                   {"Expect", "100-continue"},
                                                   {"Proxy-Authorization", "secret"},
                                                   {"X-Data-Parallel-Rank", "1"},
                                                   {"Content-Type", "application/json"},
                                                   {"Authorization", "Bearer k"}}),
                                     "id", "");
  EXPECT_THAT(std::vector(fields.begin(), fields.end()),
              UnorderedElementsAre(Pair("Content-Type", "application/json"), Pair("Authorization", "Bearer k"),
                                   Pair("X-Forwarded-For", "10.0.0.7"), Pair("X-Forwarded-Proto", "http"),
                                   Pair("X-Request-Id", "id")));
}

TEST(ForwardedHeaders, TheClientIsAddedToThoseBeforeIt) {
  const auto fields =
      request_fields(request_with({{"X-Forwarded-For", "1.2.3.4"}, {"X-Forwarded-Proto", "https"}}), "id", "");
  EXPECT_EQ(fields.find("X-Forwarded-For"), "1.2.3.4, 10.0.0.7");
  EXPECT_EQ(fields.find("X-Forwarded-Proto"), "https");
  EXPECT_EQ(address_of("[2001:db8::7]:443"), "2001:db8::7");
}

// Whoever reads them believes what stands there.
TEST(ForwardedHeaders, WhatOnlyAProxyMaySayIsNotTakenFromClients) {
  const auto fields = request_fields(request_with({{"X_Forwarded_For", "6.6.6.6"},
                                                   {"Content_Length", "7"},
                                                   {"x_request_id", "forged"},
                                                   {"Forwarded", "for=6.6.6.6"},
                                                   {"X-Real-IP", "6.6.6.6"},
                                                   {"X-Forwarded-Host", "evil"},
                                                   {"X-Forwarded-Proto", "gopher"},
                                                   {"X-Forwarded-For", "1.2.3.4, \"<script>\" , ::1"},
                                                   {"X-Forwarded-For", "5.6.7.8"},
                                                   {"Connection", "close, X-Forwarded-For, X-Request-Id"}}),
                                     "id", "");
  EXPECT_THAT(std::vector(fields.begin(), fields.end()),
              UnorderedElementsAre(Pair("X-Forwarded-For", "1.2.3.4, ::1, 5.6.7.8, 10.0.0.7"),
                                   Pair("X-Forwarded-Proto", "http"), Pair("X-Request-Id", "id")));
  std::string many = "1.1.1.1";
  for (int idx = 0; idx < 100; idx++) many += ", 2.2.2.2";
  EXPECT_LT(request_fields(request_with({{"X-Forwarded-For", many}}), "id", "").find("X-Forwarded-For")->size(), 200u);
}

TEST(ForwardedHeaders, TheServersKeyReplacesTheClients) {
  const auto fields = request_fields(request_with({{"authorization", "Bearer client"}}), "id", "server");
  EXPECT_EQ(fields.find("Authorization"), "Bearer server");
  EXPECT_FALSE(request_fields(request_with({{"x-api-key", "client"}}), "id", "server").contains("x-api-key"));
}

TEST(ForwardedHeaders, AServerIsToldWhichClientItIsBehindItsOneKey) {
  constexpr const char* kField = "X-Cachalot-Client";
  const auto client_of = [&](const char* key) {
    return std::string(request_fields(request_with({{"authorization", std::string("Bearer ") + key}}), "id", "server")
                           .find(kField)
                           .value_or(""));
  };
  EXPECT_EQ(client_of("one"), client_of("one"));
  EXPECT_NE(client_of("one"), client_of("two"));
  EXPECT_EQ(client_of("one").find("one"), std::string::npos);
  EXPECT_FALSE(request_fields(request_with({{kField, "mine"}}), "id", "").contains(kField)) << "no client's to say";
}

TEST(ForwardedHeaders, AnAnswerKeepsItsOwnRequestIdAndLength) {
  const http::Headers answer{
      {"Content-Length", "7"}, {"Connection", "close"}, {"Transfer-Encoding", "chunked"}, {"X-Request-Id", "theirs"}};
  const auto fields = response_fields(answer, "ours");
  EXPECT_THAT(std::vector(fields.begin(), fields.end()),
              UnorderedElementsAre(Pair("Content-Length", "7"), Pair("X-Request-Id", "theirs")));
  EXPECT_EQ(response_fields({}, "ours").find("X-Request-Id"), "ours");
}

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

TEST(EventBoundary, TellsCommentsFromEvents) {
  for (const char* comments : {"", "\n\n", ": still here\n\n", ":\r\n\r\n: b\n\n"})
    EXPECT_TRUE(EventBoundary::are_comments(comments)) << comments;
  for (const char* events : {"data: 1\n\n", ": a\n\ndata: 1\n\n", "event: x\n\n", "\r\n\r\nid\n\n"})
    EXPECT_FALSE(EventBoundary::are_comments(events)) << events;
}

}  // namespace

}  // namespace cachalot::router
