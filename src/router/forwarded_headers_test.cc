#include "router/forwarded_headers.h"

#include <gmock/gmock.h>

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

TEST(ForwardedHeaders, TheServersKeyReplacesTheClients) {
  const auto fields = request_fields(request_with({{"authorization", "Bearer client"}}), "id", "server");
  EXPECT_EQ(fields.find("Authorization"), "Bearer server");
}

TEST(ForwardedHeaders, AnAnswerKeepsItsOwnRequestIdAndLength) {
  const http::Headers answer{
      {"Content-Length", "7"}, {"Connection", "close"}, {"Transfer-Encoding", "chunked"}, {"X-Request-Id", "theirs"}};
  const auto fields = response_fields(answer, "ours");
  EXPECT_THAT(std::vector(fields.begin(), fields.end()),
              UnorderedElementsAre(Pair("Content-Length", "7"), Pair("X-Request-Id", "theirs")));
  EXPECT_EQ(response_fields({}, "ours").find("X-Request-Id"), "ours");
}

}  // namespace
}  // namespace cachalot::router
