#include "router/replica_table.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace cachalot::router {

namespace {

using Candidates = std::vector<Candidate>;

Candidate idle() {
  return {.is_open = true};
}

Candidate with_report(const LoadReport& report) {
  return {.is_open = true, .report = report};
}

TEST(ReplicaChoice, NobodyIsChosenWhereNobodyIsOpen) {
  EXPECT_EQ(choose_replica({}, 100, 0), std::nullopt);
  const Candidates closed(3);
  EXPECT_EQ(choose_replica(closed, 100, 0), std::nullopt);
}

TEST(ReplicaChoice, EqualsTakeTurns) {
  Candidates candidates(4, idle());
  candidates[2].is_open = false;
  std::array<int, 4> times{};
  for (size_t start = 0; start < 12; start++) times[*choose_replica(candidates, 100, start)]++;
  EXPECT_EQ(times, (std::array<int, 4>{3, 3, 0, 6}));
}

TEST(ReplicaChoice, LeastTokensBeforeItsOwnWin) {
  // Two long prompts weigh more than a few short answers; waiting sequences count as running ones do.
  const Candidates candidates{with_report({.num_running = 1, .num_waiting = 1, .num_pending_tokens = 4000}),
                              with_report({.num_running = 5}), with_report({.num_running = 3, .num_waiting = 3})};
  for (size_t start = 0; start < 3; start++) EXPECT_EQ(choose_replica(candidates, 100, start), 1u);
}

TEST(ReplicaChoice, WhatTheReportDoesNotKnowCountsToo) {
  Candidates candidates{idle(), idle()};
  candidates[0].num_unreported = 1;
  candidates[0].unreported_tokens = 500;
  EXPECT_EQ(choose_replica(candidates, 100, 0), 1u);
  // Requests that have ended since the report are no load any more.
  candidates = {with_report({.num_running = 4}), with_report({.num_running = 2})};
  candidates[0].num_unreported = -3;
  EXPECT_EQ(choose_replica(candidates, 100, 1), 0u);
}

TEST(ReplicaChoice, AFullKvCacheIsAvoided) {
  const Candidates candidates{with_report({.num_running = 4, .kv_usage = 0.95}),
                              with_report({.num_running = 6, .kv_usage = 0.2})};
  EXPECT_EQ(choose_replica(candidates, 100, 0), 1u);
}

TEST(ReplicaChoice, AKnownPrefixIsACreditThatLoadOverrides) {
  Candidates candidates{idle(), idle()};
  candidates[1].known_tokens = 900;
  EXPECT_EQ(choose_replica(candidates, 1000, 0), 1u);
  candidates[1].report = {.num_running = 10};
  EXPECT_EQ(choose_replica(candidates, 1000, 0), 1u) << "640 tokens of others' work are less than 900 of its own";
  candidates[1].report = {.num_running = 20};
  EXPECT_EQ(choose_replica(candidates, 1000, 0), 0u);
}

TEST(ReplicaChoice, AReplicaThatCameBackGetsItsPartOfTheLoad) {
  // Requests that go where the least work is: over a while the loads stand in the proportion of the ramps.
  Candidates candidates{idle(), idle()};
  candidates[1].ramp = 0.25;
  for (size_t request = 0; request < 500; request++)
    candidates[*choose_replica(candidates, 64, request)].num_unreported++;
  EXPECT_NEAR(candidates[1].num_unreported, 100, 2);
}

using std::chrono::seconds;

class ReplicaTableTest : public testing::Test {
 protected:
  ReplicaTable& make(size_t num_replicas, const ReplicaTable::Limits& limits = {}) {
    std::vector<std::string> urls;
    for (size_t replica = 0; replica < num_replicas; replica++) urls.push_back("http://r" + std::to_string(replica));
    table_.emplace(urls, HealthPolicy{.rise = 1}, limits);
    for (size_t replica = 0; replica < num_replicas; replica++) report(replica, {});
    return *table_;
  }
  void report(size_t replica, const LoadReport& load) {
    table_->question_asked(replica);
    table_->heard_well(replica, load, now_);
  }
  std::expected<ReplicaTable::Place, NoPlace> admit(const RequestFacts& facts = {.num_prompt_tokens = 100},
                                                    std::vector<size_t> sent_to = {},
                                                    std::optional<size_t> forced = std::nullopt,
                                                    const std::weak_ptr<SilenceListener>& listener = {}) {
    return table_->admit(facts, sent_to, forced, listener, now_);
  }

  std::optional<ReplicaTable> table_;
  ReplicaTable::Time now_{seconds(1000)};
};

TEST_F(ReplicaTableTest, SpreadsRequestsBetweenTwoReports) {
  make(4);
  std::vector<ReplicaTable::Place> places;
  std::array<int, 4> times{};
  for (int request = 0; request < 40; request++) {
    auto place = admit();
    ASSERT_TRUE(place);
    times[place->replica()]++;
    places.push_back(std::move(*place));
  }
  EXPECT_EQ(times, (std::array<int, 4>{10, 10, 10, 10}));
}

TEST_F(ReplicaTableTest, AReportReplacesWhatWasSentBeforeItWasAskedFor) {
  ReplicaTable& table = make(2);
  std::vector<ReplicaTable::Place> places;
  for (int request = 0; request < 6; request++) places.push_back(std::move(*admit({.num_prompt_tokens = 100}, {}, 0)));
  EXPECT_EQ(admit()->replica(), 1u);
  // The report knows of the six; one more is sent while it is under way.
  table.question_asked(0);
  places.push_back(std::move(*admit({.num_prompt_tokens = 5000}, {}, 0)));
  table.heard_well(0, LoadReport{}, now_);
  report(1, {.num_running = 50});
  EXPECT_EQ(admit()->replica(), 1u) << "5000 tokens that the report does not know of";
  places.clear();
  EXPECT_EQ(admit()->replica(), 0u);
}

TEST_F(ReplicaTableTest, WhatEndsAfterAReportIsTakenOffIt) {
  make(2);
  std::vector<ReplicaTable::Place> places;
  for (int request = 0; request < 6; request++) places.push_back(std::move(*admit({}, {}, 0)));
  report(0, {.num_running = 6});
  report(1, {.num_running = 3});
  EXPECT_EQ(admit()->replica(), 1u);
  while (places.size() > 2) places.pop_back();
  EXPECT_EQ(admit()->replica(), 0u);
}

TEST_F(ReplicaTableTest, GoesNowhereTwiceAndNowhereElseThanForced) {
  ReplicaTable& table = make(3);
  EXPECT_EQ(admit({}, {0, 2})->replica(), 1u);
  EXPECT_EQ(admit({}, {0, 1, 2}).error(), NoPlace::kNoneUp);
  for (int time = 0; time < 5; time++) EXPECT_EQ(admit({}, {}, 2)->replica(), 2u);
  table.heard_ill(2, "503");
  EXPECT_EQ(admit({}, {}, 2).error(), NoPlace::kForcedIsDown);
  table.heard_ill(0, "503");
  table.heard_ill(1, "503");
  EXPECT_FALSE(table.any_up());
  EXPECT_EQ(admit().error(), NoPlace::kNoneUp);
}

TEST_F(ReplicaTableTest, HoldsTheLimitOfEachAndGivesPlacesBack) {
  make(2, {.max_in_flight_per_replica = 1});
  auto first = admit();
  {
    const auto second = admit();
    ASSERT_TRUE(first && second);
    EXPECT_NE(first->replica(), second->replica());
    EXPECT_EQ(admit().error(), NoPlace::kAllFull);
    EXPECT_EQ(admit({}, {}, 0).error(), NoPlace::kAllFull);
  }
  EXPECT_TRUE(admit());
}

TEST_F(ReplicaTableTest, HoldsTheLimitOfAllTogether) {
  make(1, {.max_in_flight = 2});
  const auto first = admit(), second = admit();
  EXPECT_EQ(admit().error(), NoPlace::kRouterFull);
}

TEST_F(ReplicaTableTest, APromptGoesWhereItsBeginningWasUnlessThatIsBusy) {
  make(3);
  const RequestFacts facts{.num_prompt_tokens = 1000, .prefixes = prefixes_of(std::string(4096, 'a'))};
  const size_t home = admit(facts)->replica();
  for (int time = 0; time < 10; time++) EXPECT_EQ(admit(facts)->replica(), home);
  report(home, {.num_running = 5, .num_pending_tokens = 2000});
  const size_t other = admit(facts)->replica();
  EXPECT_NE(other, home);
  report(home, {});
  EXPECT_EQ(admit(facts)->replica(), other) << "the last one that saw it";
}

class Listener : public SilenceListener {
 public:
  void replica_is_silent(size_t) override { num_calls++; }
  void replica_is_new(size_t, const std::string& mark, bool was_older) override {
    starts.push_back(mark + (was_older ? " for certain" : ""));
  }
  int num_calls = 0;
  std::vector<std::string> starts;
};

TEST_F(ReplicaTableTest, WhoWaitsForASilentReplicaHearsOfItOnce) {
  ReplicaTable& table = make(2);
  const auto here = std::make_shared<Listener>(), there = std::make_shared<Listener>(),
             gone = std::make_shared<Listener>();
  const auto at_0 = admit({}, {}, 0, here), at_1 = admit({}, {}, 1, there);
  {
    const auto ended = admit({}, {}, 0, gone);
  }
  table.heard_ill(0, "503");
  EXPECT_EQ(here->num_calls, 0) << "it finishes what it has";
  table.heard_nothing(0, "no answer", now_);
  table.heard_nothing(0, "no answer", now_);
  EXPECT_TRUE(table.is_silent(0));
  EXPECT_EQ(here->num_calls, 1);
  EXPECT_EQ(there->num_calls, 0);
  EXPECT_EQ(gone->num_calls, 0);
}

TEST_F(ReplicaTableTest, WhoIsAtAnOlderProcessHearsOfItsEnd) {
  make(2);
  report(0, {.instance = "a"});
  const auto before = std::make_shared<Listener>(), after = std::make_shared<Listener>(),
             there = std::make_shared<Listener>();
  const auto at_0 = admit({}, {}, 0, before), at_1 = admit({}, {}, 1, there);
  report(0, {.instance = "a"});
  const auto later = admit({}, {}, 0, after);  // to the old process or the new one
  report(0, {.instance = "b"});
  report(0, {.instance = "b"});
  EXPECT_EQ(before->starts, std::vector<std::string>{"b for certain"});
  EXPECT_EQ(after->starts, std::vector<std::string>{"b"});
  EXPECT_TRUE(there->starts.empty());
}

TEST_F(ReplicaTableTest, AnAnswerGoesOnOnlyWhereTheBitsAreTheSame) {
  make(3);
  report(0, {.fingerprint = "a"});
  report(1, {.fingerprint = "b"});
  for (int time = 0; time < 3; time++) EXPECT_EQ(admit({.fingerprint = "b"})->replica(), 1u);
  EXPECT_EQ(admit({.fingerprint = "c"}).error(), NoPlace::kNoneUp);
}

TEST_F(ReplicaTableTest, AReplicaThatHealsIsNotOutAndGetsNothing) {
  ReplicaTable& table = make(2);
  report(0, *parse_load_report(R"({"running": 0, "healing": true})"));
  EXPECT_TRUE(table.status(now_)[0].health.is_up());
  for (int time = 0; time < 3; time++) EXPECT_EQ(admit()->replica(), 1u);
  report(0, {});
  const auto first = admit(), second = admit();
  EXPECT_NE(first->replica(), second->replica());
}

// Load alone takes nobody out: the health question may wait behind what is being answered.
TEST_F(ReplicaTableTest, AReplicaThatAnswersOthersMeanwhileIsNotSilent) {
  ReplicaTable& table = make(1);
  const auto later = now_ + std::chrono::seconds(1);
  table.heard(0, later);
  for (int time = 0; time < 5; time++) {
    table.heard_nothing(0, "no answer", now_);
    table.was_refused(0, "no connection in time", now_);
    table.request_not_taken(0, "no connection in time", now_);
  }
  EXPECT_TRUE(table.any_up());
  table.heard_nothing(0, "no answer", later);
  EXPECT_FALSE(table.any_up());
}

TEST(LoadReport, NumbersThatCannotBeAreRefused) {
  EXPECT_EQ(parse_load_report(R"({"running": 3, "waiting": 2, "pending_tokens": 1e3, "kv_usage": 0.5})")->num_running,
            3);
  EXPECT_TRUE(parse_load_report(R"({"running": 3, "other": "x"})"));
  EXPECT_EQ(parse_load_report(R"({"running": 3, "instance": "ab"})")->instance, "ab");
  for (const char* report :
       {R"({"running": -1})", R"({"running": 1e300})", R"({"waiting": "x"})", R"({"pending_tokens": -5})",
        R"({"kv_usage": 1.5})", R"({"kv_usage": null})", "[]", "", R"({"running": 1)"})
    EXPECT_FALSE(parse_load_report(report)) << report;
}

}  // namespace

}  // namespace cachalot::router
