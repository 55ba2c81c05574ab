#include "bench/step_figure.h"

#include <gmock/gmock.h>

#include <boost/json.hpp>

#include "bench/step_bench.h"
#include "model/feed_forward.h"

namespace cachalot {
namespace {

using std::chrono::microseconds;
using testing::DoubleNear;
using testing::HasSubstr;

TraceSpan span(std::string_view name, int begin_us, int end_us, int rows = -1, int experts = -1) {
  const std::chrono::steady_clock::time_point zero;
  return {.name = name,
          .layer = 1,
          .rows = rows,
          .experts = experts,
          .begin = zero + microseconds(begin_us),
          .end = zero + microseconds(end_us)};
}

TEST(StepFigure, PassesOfOneExchangeCountTogether) {
  const std::vector<TraceSpan> spans{span(kGateSpan, 0, 1), span(kExpertsSpan, 1, 4, 6, 2), span("combine", 4, 5),
                                     span(kExpertsSpan, 5, 7, 3, 1), span(kGateSpan, 8, 9)};
  const std::vector<ExpertWork> work = expert_work(spans);
  ASSERT_EQ(work.size(), 2);
  EXPECT_EQ(work[0].rows, 9);
  EXPECT_EQ(work[0].experts, 3);
  EXPECT_FLOAT_EQ(work[0].seconds, 5e-6F);
  EXPECT_EQ(work[1].rows, 0);
}

// Two ranks, two layers: the first has more work in one, the second in the other.
StepTurn uneven_turn(double alone_seconds, double seconds) {
  return {
      .num_steps = 2,
      .ranks = {{.seconds = seconds,
                 .computing = 0.6 * seconds,
                 .exchanging = 0.1 * seconds,
                 .work = {{.rows = 30, .experts = 3, .seconds = 0.3F}, {.rows = 10, .experts = 1, .seconds = 0.1F}}},
                {.seconds = seconds,
                 .computing = 0.9 * seconds,
                 .exchanging = 0.1 * seconds,
                 .work = {{.rows = 10, .experts = 1, .seconds = 0.1F}, {.rows = 30, .experts = 3, .seconds = 0.3F}}}},
      .alone_seconds = alone_seconds};
}

TEST(StepFigure, AStepIsComputingExchangingAndWaiting) {
  const std::vector<StepTurn> turns{uneven_turn(0, 2)};
  const StepFigure figure = summarize("decode", 4, turns);
  EXPECT_DOUBLE_EQ(figure.step_ms, 1000);
  ASSERT_EQ(figure.ranks.size(), 2);
  EXPECT_DOUBLE_EQ(figure.ranks[0].compute_ms, 600);
  EXPECT_DOUBLE_EQ(figure.ranks[0].exchange_ms, 100);
  EXPECT_DOUBLE_EQ(figure.ranks[0].waiting_ms, 300);
  EXPECT_DOUBLE_EQ(figure.ranks[0].expert_rows, 20);
  EXPECT_DOUBLE_EQ(figure.ranks[0].experts, 2);
  EXPECT_NEAR(figure.ranks[1].waiting_ms, 0, 1e-9);
}

TEST(StepFigure, ImbalanceIsOfEachLayerThoughTheRanksDoTheSameInAll) {
  const std::vector<StepTurn> turns{uneven_turn(1.8, 2)};
  const StepFigure figure = summarize("decode", 4, turns);
  EXPECT_DOUBLE_EQ(figure.expert_imbalance, 1.5);
  EXPECT_DOUBLE_EQ(figure.row_imbalance, 1.5);
  EXPECT_NEAR(figure.experts_ms, 300, 1e-4);
  EXPECT_NEAR(figure.imbalance_ms(), 100, 1e-4);  // a third of the slowest ranks' time in experts
  EXPECT_DOUBLE_EQ(figure.efficiency, 0.9);
  EXPECT_NEAR(figure.balanced_efficiency(), 1.0, 1e-6);
}

TEST(StepFigure, WithoutExpertsAllIsInBalance) {
  const std::vector<StepTurn> turns{{.num_steps = 1, .ranks = {{.seconds = 1, .computing = 1}}}};
  const StepFigure figure = summarize("prefill", 512, turns);
  EXPECT_EQ(figure.imbalance(), 1);
  EXPECT_EQ(figure.imbalance_ms(), 0);
}

TEST(StepFigure, TheMedianTurnIsByTheRatioToOneProcess) {
  const std::vector<StepTurn> turns{uneven_turn(4, 5), uneven_turn(1, 2), uneven_turn(9, 10)};
  const StepFigure figure = summarize("decode", 4, turns);
  EXPECT_DOUBLE_EQ(figure.efficiency, 0.8);
  EXPECT_DOUBLE_EQ(figure.min_efficiency, 0.5);
  EXPECT_DOUBLE_EQ(figure.max_efficiency, 0.9);
  EXPECT_DOUBLE_EQ(figure.step_ms, 2500);
}

TEST(StepFigure, PrintsTableAndJson) {
  const std::vector<StepTurn> turns{uneven_turn(1.8, 2)};
  const std::vector<StepFigure> figures{summarize("decode", 4, turns)};
  EXPECT_THAT(steps_table(figures), HasSubstr("the ranks reach 0.900 of its speed"));
  const auto result = boost::json::parse(steps_json(figures)).at("results").at(0);
  EXPECT_THAT(result.at("efficiency").as_double(), DoubleNear(0.9, 1e-9));
  EXPECT_THAT(result.at("ranks").at(1).at("compute_ms").as_double(), DoubleNear(900, 1e-6));
}

TEST(ChromeTrace, IsJsonWithATrackForEachRank) {
  const std::vector<TraceSpan> spans{span("experts", 10, 25, 6, 2)};
  const std::vector<std::string> events{chrome_events(0, "rank 0 (replica 0, tp 0)", spans),
                                        chrome_events(1, "rank 1 (replica 0, tp 1)", {})};
  const auto all = boost::json::parse(chrome_trace(events)).at("traceEvents").as_array();
  ASSERT_EQ(all.size(), 4);
  EXPECT_EQ(all[1].at("args").at("name"), "rank 0 (replica 0, tp 0)");
  EXPECT_EQ(all[2].at("name"), "experts");
  EXPECT_EQ(all[2].at("cat"), "compute");
  EXPECT_EQ(all[2].at("tid"), 0);
  EXPECT_EQ(all[2].at("ts").as_double(), 10);
  EXPECT_EQ(all[2].at("dur").as_double(), 15);
  EXPECT_EQ(all[2].at("args").at("layer"), 1);
  EXPECT_EQ(all[2].at("args").at("rows"), 6);
  EXPECT_EQ(all[3].at("tid"), 1);
}

}  // namespace
}  // namespace cachalot
