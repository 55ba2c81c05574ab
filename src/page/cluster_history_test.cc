#include "page/cluster_history.h"

#include <gmock/gmock.h>

#include <boost/json.hpp>
#include <cmath>

#include "http/message.h"

namespace cachalot::page {
namespace {

namespace json = boost::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

RankView rank(int64_t number, int64_t pid = 100, const std::string& host = "node1") {
  return {.rank = number,
          .pid = pid,
          .percent = 100,
          .num_experts = 16,
          .experts_held = 6,
          .moe_layers = 2,
          .phase = "ready",
          .host = host,
          .has_report = true};
}

// A cluster as the test says, looked at once a second.
class HistoryTest : public testing::Test {
 protected:
  HistoryTest() {
    cluster_.phase = "ready";
    for (int replica = 0; replica < 2; replica++) {
      ServerView server{.phase = "ready", .epoch = 1, .has_counts = true};
      server.ranks = {rank(2 * replica), rank(2 * replica + 1)};
      cluster_.members.push_back({.url = "http://node", .state = "up", .server = server});
    }
  }
  ServerView& server(size_t idx) { return *cluster_.members[idx].server; }

  // The events of one look, a second after the last.
  std::vector<http::SseEvent> look() {
    now_ += 1000;
    return read(history_.observe(now_, cluster_));
  }
  // Of many looks, the texts of what happened.
  std::vector<std::string> happenings(int num_looks = 1) {
    std::vector<std::string> texts;
    while (num_looks-- > 0)
      for (const http::SseEvent& event : look())
        if (event.event == "event") texts.emplace_back(json::parse(event.data).at("text").as_string());
    return texts;
  }
  json::value last(const std::vector<http::SseEvent>& events, std::string_view name) {
    for (auto event = events.rbegin(); event != events.rend(); ++event)
      if (event->event == name) return json::parse(event->data);
    ADD_FAILURE() << "no event " << name;
    return {};
  }
  static std::vector<http::SseEvent> read(const std::string& text) { return http::SseParser().add(text).value(); }
  // Each of a rank's seconds of work has such parts, in milliseconds.
  static void work(RankView& rank, int computing, int waiting) {
    rank.steps += 10;
    rank.nanoseconds_computing += static_cast<uint64_t>(computing) * 1'000'000;
    rank.nanoseconds_waiting += static_cast<uint64_t>(waiting) * 1'000'000;
  }

  ClusterHistory history_{{.kind = "router", .version = "1.2.3", .model = "<b>nano</b>"}};
  ClusterView cluster_;
  int64_t now_ = 1'700'000'000'000;
};

TEST_F(HistoryTest, RatesAreOfTheLastSecondsOfAllServers) {
  look();
  std::vector<http::SseEvent> events;
  for (int second = 0; second < 10; second++) {
    server(0).generation_tokens += 100;
    server(1).generation_tokens += 50;
    server(1).prompt_tokens += 7;
    server(0).prefix_queried_tokens += 10;
    server(0).prefix_hit_tokens += 4;
    server(0).num_running = 3;
    server(1).num_waiting = 2;
    server(1).kv_usage_percent = 50;
    const auto now = look();
    events.insert(events.end(), now.begin(), now.end());
  }
  const json::value point = last(events, "point");
  EXPECT_EQ(point.at("generation").to_number<double>(), 150);
  EXPECT_EQ(point.at("prompt").to_number<double>(), 7);
  EXPECT_EQ(point.at("hits").to_number<double>(), 0.4);
  EXPECT_EQ(point.at("running").to_number<double>(), 3);
  EXPECT_EQ(point.at("waiting").to_number<double>(), 2);
  EXPECT_EQ(point.at("kv").to_number<double>(), 0.25);
  EXPECT_TRUE(point.at("first_token_p50").is_null());
  EXPECT_EQ(last(events, "state").at("replicas").at(0).at("tokens_per_second").to_number<double>(), 100);
}

TEST_F(HistoryTest, LatenciesAreThoseOfTheLastSeconds) {
  const HistogramView old{.bounds = {0.1, 0.2}, .counts = {1000, 0, 0}};
  server(0).first_token = server(1).first_token = old;
  look();
  std::vector<http::SseEvent> events;
  for (int second = 0; second < 6; second++) {
    server(0).first_token.counts[1] += 10;
    const auto now = look();
    events.insert(events.end(), now.begin(), now.end());
  }
  EXPECT_NEAR(last(events, "point").at("first_token_p50").to_number<double>(), 0.15, 1e-9);
}

TEST(Quantile, LiesBetweenTheBounds) {
  const HistogramView histogram{.bounds = {1, 2, 4}, .counts = {2, 0, 2, 0}};
  EXPECT_EQ(quantile_of(histogram, 0.25), 0.5);
  EXPECT_EQ(quantile_of(histogram, 0.75), 3);
  EXPECT_EQ(quantile_of({.bounds = {1, 2}, .counts = {0, 0, 9}}, 0.5), 2);
  EXPECT_TRUE(std::isnan(quantile_of({.bounds = {1}, .counts = {0, 0}}, 0.5)));
}

TEST_F(HistoryTest, SaysWhatIsLostAndWhatComesBack) {
  EXPECT_THAT(happenings(2), ElementsAre("replica 0 takes requests", "replica 1 takes requests"));
  const ServerView was = server(1);
  cluster_.members[1].state = "down";
  cluster_.members[1].reason = "Connection refused";
  cluster_.members[1].server.reset();
  EXPECT_THAT(happenings(2), ElementsAre("replica 1 with ranks 2, 3 is lost: Connection refused"));
  const json::value state = last(look(), "state");
  const json::array& ranks = state.at("replicas").at(1).at("ranks").as_array();
  ASSERT_EQ(ranks.size(), 2);
  EXPECT_EQ(ranks[0].at("phase"), "lost");
  EXPECT_EQ(state.at("replicas").at(0).at("ranks").at(0).at("phase"), "ready");

  cluster_.members[1] = {.state = "up", .server = was};
  server(1).ranks = {rank(2, 200), rank(3, 201, "node2")};
  server(1).epoch = 2;
  EXPECT_THAT(happenings(2),
              ElementsAre("replica 1 is back and takes requests", "rank 3 moved from node1 to node2",
                          "replica 1: rank 2 started anew", "replica 1: its group formed anew, epoch 2"));
  server(0).phase = "failed";
  server(0).failure = "unavailable";
  server(0).ranks[0].phase = "failed";
  EXPECT_THAT(happenings(2), ElementsAre("replica 0 has failed: unavailable", "rank 0 has failed"));
}

TEST_F(HistoryTest, AServerThatIsUpAndSaysNothingForAMomentIsNotLost) {
  happenings();
  server(1).generation_tokens = 100;
  EXPECT_EQ(last(look(), "state").at("replicas").at(1).at("tokens_per_second"), 100.0);
  cluster_.members[1].server.reset();
  EXPECT_THAT(happenings(3), IsEmpty());
  const json::value state = last(look(), "state");
  EXPECT_TRUE(state.at("replicas").at(1).at("tokens_per_second").is_null()) << "nobody knows";
  EXPECT_EQ(state.at("replicas").at(1).at("ranks").at(0).at("phase"), "ready");
}

TEST_F(HistoryTest, AReplicaThatLacksARankSaysSoUntilItIsWhole) {
  happenings();
  server(1).is_healing = true;
  EXPECT_THAT(happenings(), ElementsAre("replica 1 lacks a rank, which is to come back; its answers wait for it"));
  EXPECT_THAT(happenings(), IsEmpty());
  server(1).is_healing = false;
  EXPECT_THAT(happenings(), ElementsAre("replica 1 is whole, its answers go on"));
}

TEST_F(HistoryTest, AServerThatDrainsIsNotLost) {
  happenings();
  cluster_.members[1].state = "down";
  cluster_.members[1].reason = "/load answers 503";
  EXPECT_THAT(happenings(), IsEmpty());  // it has not said yet why
  server(1).phase = "draining";
  EXPECT_THAT(happenings(2), ElementsAre("replica 1 drains: it finishes what it has begun"));
  cluster_.members[1].server.reset();
  EXPECT_THAT(happenings(2), ElementsAre("replica 1 has ended"));
}

TEST_F(HistoryTest, AServerThatIsReadyAndGetsNothingIsToldOfAfterAMoment) {
  happenings();
  cluster_.members[1].state = "down";
  cluster_.members[1].reason = "5 errors in a row";
  EXPECT_THAT(happenings(2), IsEmpty());
  EXPECT_THAT(happenings(), ElementsAre("replica 1 with ranks 2, 3 is lost: 5 errors in a row"));
}

TEST_F(HistoryTest, MomentsInDoubtAreForgotten) {
  happenings();
  for (int blip = 0; blip < 4; blip++) {
    cluster_.members[1].state = "down";
    EXPECT_THAT(happenings(), IsEmpty());
    cluster_.members[1].state = "up";
    EXPECT_THAT(happenings(), IsEmpty());
  }
}

TEST_F(HistoryTest, SaysForWhomTheOthersWait) {
  happenings();
  std::vector<std::string> said;
  for (int second = 0; second < 40; second++) {
    for (size_t idx = 0; idx < 2; idx++)
      for (RankView& each : server(idx).ranks) work(each, each.rank == 2 ? 950 : 500, each.rank == 2 ? 10 : 460);
    for (const std::string& text : happenings()) said.push_back(text);
  }
  EXPECT_THAT(said, ElementsAre("rank 2 is slow: the others wait 48% of their steps, it waits 1%"));
  const json::value state = last(look(), "state");
  EXPECT_EQ(state.at("replicas").at(0).at("ranks").at(0).at("waits_for"), 2);
  EXPECT_EQ(state.at("replicas").at(1).at("ranks").at(1).at("waits_for"), 2);
  EXPECT_TRUE(state.at("replicas").at(1).at("ranks").at(0).at("waits_for").is_null());
  EXPECT_THAT(happenings(30), IsEmpty()) << "with nothing to do it is neither slow nor fast";
  said.clear();
  for (int second = 0; second < 20; second++) {
    for (size_t idx = 0; idx < 2; idx++)
      for (RankView& each : server(idx).ranks) work(each, 900, 50);
    for (const std::string& text : happenings()) said.push_back(text);
  }
  EXPECT_THAT(said, ElementsAre("rank 2 keeps up again"));
}

TEST_F(HistoryTest, RanksThatStandTwiceAreOfGroupsOfTheirOwn) {
  server(1).ranks = {rank(0), rank(1)};
  for (int second = 0; second < 8; second++) {
    for (RankView& each : server(0).ranks) work(each, each.rank == 0 ? 900 : 300, each.rank == 0 ? 0 : 600);
    for (RankView& each : server(1).ranks) work(each, 900, 0);
    look();
  }
  const json::value state = last(look(), "state");
  EXPECT_EQ(state.at("replicas").at(0).at("ranks").at(1).at("waits_for"), 0);
  EXPECT_TRUE(state.at("replicas").at(1).at("ranks").at(1).at("waits_for").is_null());
}

TEST_F(HistoryTest, ExpertsAreToldByRankAndLayer) {
  server(0).ranks[1].layer_rows = {0, 5};
  std::vector<http::SseEvent> events;
  for (int second = 0; second < 11; second++) {
    server(0).ranks[1].layer_rows[1] += 10;
    const auto now = look();
    events.insert(events.end(), now.begin(), now.end());
  }
  const json::value experts = last(events, "experts");
  EXPECT_EQ(experts.at("experts"), 16);
  EXPECT_EQ(experts.at("ranks").as_array().size(), 4);
  EXPECT_EQ(experts.at("ranks").at(0).at("held"), 3.0);
  EXPECT_EQ(json::serialize(experts.at("rows").at(1)), "[0E0,5E1]");
}

TEST_F(HistoryTest, CountsThatBeginAnewAreNoRate) {
  look();
  server(0).generation_tokens = 1000;
  look();
  server(0).generation_tokens = 3;
  server(0).ranks[0].pid = 7;
  const json::value state = last(look(), "state");
  EXPECT_TRUE(state.at("replicas").at(0).at("tokens_per_second").is_null());
}

TEST_F(HistoryTest, HasABoundWhateverHappens) {
  for (int second = 0; second < 2 * 3600; second++) {
    server(0).ranks[0].host = second % 2 == 0 ? "node1" : "node2";
    history_.observe(now_ += 1000, cluster_);
  }
  const std::string greeting = history_.greeting();
  EXPECT_LT(greeting.size(), 200'000);
  const json::value hello = last(read(greeting), "hello");
  EXPECT_EQ(hello.at("series").at("t").as_array().size(), ClusterHistory::kMostPoints);
  EXPECT_EQ(hello.at("series").at("hits").as_array().size(), ClusterHistory::kMostPoints);
  EXPECT_EQ(hello.at("events").as_array().size(), ClusterHistory::kMostEvents);
  EXPECT_EQ(hello.at("model"), "<b>nano</b>");
  EXPECT_EQ(hello.at("series").at("t").as_array().back().as_int64() / 5000, now_ / 5000);
}

TEST_F(HistoryTest, A32RanksLookIsSmall) {
  cluster_.members.clear();
  for (int replica = 0; replica < 8; replica++) {
    ServerView server{.phase = "ready", .has_counts = true};
    for (int tp = 0; tp < 4; tp++) {
      server.ranks.push_back(rank(4 * replica + tp));
      server.ranks.back().layer_rows.assign(61, 123'456);
    }
    cluster_.members.push_back({.url = "http://192.168.1.2:7555", .state = "up", .server = server});
  }
  look();
  EXPECT_LT(history_.observe(now_ += 1000, cluster_).size(), 16'000);
}

TEST_F(HistoryTest, AClockThatIsSetBackHoldsNothingUp) {
  for (int second = 0; second < 8; second++) look();
  now_ -= 3'600'000;
  int num_points = 0;
  for (int second = 0; second < 12; second++)
    for (const http::SseEvent& event : look()) num_points += event.event == "point";
  EXPECT_GE(num_points, 2);
}

TEST(ServerViewTest, IsReadFromAState) {
  const auto view = parse_server_view(
      R"({"version": 1, "phase": "ready", "running": 2, "waiting": 1, "kv_usage_percent": 7, "epoch": 3, "healing": true,
          "counts": {"prompt_tokens": 5, "generation_tokens": 6, "prefix_queried_tokens": 4, "prefix_hit_tokens": 2,
                     "first_token_seconds": {"bounds": [0.5], "counts": [1, 2]}},
          "ranks": [{"rank": 1, "phase": "ready", "percent": 100, "failure": null, "host": "b", "pid": 9,
                     "report": {"resident_bytes": 11, "steps": 12, "nanoseconds_waiting": 13,
                                "expert_rows_by_layer": [0, 3]}}]})");
  ASSERT_TRUE(view);
  EXPECT_EQ(view->epoch, 3);
  EXPECT_TRUE(view->is_healing);
  EXPECT_EQ(view->num_running, 2);
  EXPECT_TRUE(view->has_counts);
  EXPECT_EQ(view->prefix_hit_tokens, 2);
  EXPECT_THAT(view->first_token.counts, ElementsAre(1, 2));
  ASSERT_EQ(view->ranks.size(), 1);
  EXPECT_EQ(view->ranks[0].host, "b");
  EXPECT_EQ(view->ranks[0].steps, 12);
  EXPECT_EQ(view->ranks[0].nanoseconds_waiting, 13);
  EXPECT_THAT(view->ranks[0].layer_rows, ElementsAre(0, 3));
}

TEST(ServerViewTest, WhatIsOddIsPassedOver) {
  for (const char* text : {"", "no JSON", "[]", "{}", "\"ready\"", "{\"phase\""}) EXPECT_FALSE(parse_server_view(text));
  const auto view = parse_server_view(
      R"({"phase": 3, "running": "many", "kv_usage_percent": 1e300, "counts": {"generation_tokens": -1,
          "first_token_seconds": {"bounds": [1, 2], "counts": [1]}}, "ranks": [7, {"host": "\u001b[2J<script>",
          "report": {"expert_rows_by_layer": ["a", -5, 2]}}]})");
  ASSERT_TRUE(view);
  EXPECT_EQ(view->phase, "");
  EXPECT_EQ(view->num_running, 0);
  EXPECT_EQ(view->generation_tokens, 0);
  EXPECT_THAT(view->first_token.bounds, IsEmpty());
  ASSERT_EQ(view->ranks.size(), 1);
  EXPECT_THAT(view->ranks[0].host, HasSubstr("\\x1b"));
  EXPECT_THAT(view->ranks[0].layer_rows, ElementsAre(0, 0, 2));
  std::string many = R"({"phase": "ready", "ranks": [{})";
  for (int idx = 0; idx < 5000; idx++) many += ",{}";
  EXPECT_EQ(parse_server_view(many + "]}")->ranks.size(), 1024);
}

}  // namespace
}  // namespace cachalot::page
