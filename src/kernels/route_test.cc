#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "kernels/ops_test_util.h"

namespace cachalot {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

struct Routed {
  std::vector<int32_t> ids;
  std::vector<float> weights;
};

// Routes one row; `args` says how.
Routed route(const Ops& ops, std::vector<float> logits, int64_t top_k, RouteArgs args, std::vector<float> bias = {},
             std::vector<int32_t> forced = {}) {
  Routed routed{std::vector<int32_t>(top_k), std::vector<float>(top_k)};
  args.logits = View<float, 2>(logits.data(), 1, logits.size());
  if (!bias.empty()) args.choice_bias = View<float, 1>(bias.data(), bias.size());
  if (!forced.empty()) args.forced_ids = View<int32_t, 2>(forced.data(), 1, top_k);
  args.ids = View<int32_t, 2>(routed.ids.data(), 1, top_k);
  args.weights = View<float, 2>(routed.weights.data(), 1, top_k);
  ops.route(args);
  return routed;
}

float sigmoid(float x) {
  return 1 / (1 + std::exp(-x));
}

TEST(Route, ChoosesTheLargestScoresAndWeighsBySoftmax) {
  for (IsaLevel isa : levels_here()) {
    const Routed routed =
        route(*TestOps(isa), {0, 2, 1, 3}, 2, {.score = RoutingScore::kSoftmax, .scaling_factor = 2.5});
    const float sum = 1 + std::exp(1.f) + std::exp(2.f) + std::exp(3.f);
    EXPECT_THAT(routed.ids, ElementsAre(3, 1));
    EXPECT_NEAR(routed.weights[0], 2.5 * std::exp(3.f) / sum, 1e-6);
    EXPECT_NEAR(routed.weights[1], 2.5 * std::exp(2.f) / sum, 1e-6);
  }
}

TEST(Route, UsesTheBiasForTheChoiceOnlyAndNormalizesTheScores) {
  for (IsaLevel isa : levels_here()) {
    const Routed routed =
        route(*TestOps(isa), {-1, 2, 1, 0}, 2,
              {.score = RoutingScore::kSigmoid, .normalize = true, .scaling_factor = 3}, {5, 0, 0, -5});
    EXPECT_THAT(routed.ids, ElementsAre(0, 1));
    const float sum = sigmoid(-1) + sigmoid(2);
    EXPECT_NEAR(routed.weights[0], 3 * sigmoid(-1) / sum, 1e-6);
    EXPECT_NEAR(routed.weights[1], 3 * sigmoid(2) / sum, 1e-6);
  }
}

TEST(Route, GroupsAreRankedByTheirMaximumOrBySumOfTheirTopTwo) {
  // Group 0 has the largest expert, group 1 the best pair, group 2 is dull.
  const std::vector<float> logits = {4, -9, -9, 2, 2, 1, 0, 0, 0};
  for (IsaLevel isa : levels_here()) {
    const TestOps ops(isa);
    RouteArgs args{
        .score = RoutingScore::kSigmoid, .groups = RoutingGroups::kByMaximum, .num_groups = 3, .topk_groups = 1};
    EXPECT_THAT(route(*ops, logits, 2, args).ids, ElementsAre(0, 1));
    args.groups = RoutingGroups::kByTopTwo;
    EXPECT_THAT(route(*ops, logits, 2, args).ids, ElementsAre(3, 4));
    args.topk_groups = 2;
    EXPECT_THAT(route(*ops, logits, 3, args).ids, ElementsAre(3, 4, 5)) << "group 2 has the second-best pair";
    args.groups = RoutingGroups::kNone;
    EXPECT_THAT(route(*ops, logits, 3, args).ids, ElementsAre(0, 3, 4));
  }
}

TEST(Route, ExcludedGroupsLoseEvenAgainstNegativeChoices) {
  for (IsaLevel isa : levels_here()) {
    const RouteArgs args{.groups = RoutingGroups::kByTopTwo, .num_groups = 2, .topk_groups = 1};
    EXPECT_THAT(route(*TestOps(isa), {0, 0, 0, 0}, 2, args, {-3, -2, -4, -4}).ids, ElementsAre(1, 0));
  }
}

TEST(Route, TiesGoToTheLowerId) {
  for (IsaLevel isa : levels_here()) {
    const RouteArgs args{.groups = RoutingGroups::kByMaximum, .num_groups = 10, .topk_groups = 4};
    std::vector<float> logits(40, 1.f);
    EXPECT_THAT(route(*TestOps(isa), logits, 6, args).ids, ElementsAre(0, 1, 2, 3, 4, 5));
    logits[39] = 2;
    EXPECT_THAT(route(*TestOps(isa), logits, 6, args).ids, ElementsAre(39, 0, 1, 2, 3, 4));
  }
}

TEST(Route, ForcedIdsKeepTheirOrderAndGetTheirScores) {
  for (IsaLevel isa : levels_here()) {
    const Routed routed = route(*TestOps(isa), {0, 1, 2, 3}, 2, {.score = RoutingScore::kSigmoid}, {}, {2, 0});
    EXPECT_THAT(routed.ids, ElementsAre(2, 0));
    EXPECT_NEAR(routed.weights[0], sigmoid(2), 1e-6);
    EXPECT_NEAR(routed.weights[1], sigmoid(0), 1e-6);
  }
}

TEST(Route, NumbersThatAreNoneStillGiveDifferentExperts) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();
  for (IsaLevel isa : levels_here()) {
    for (RoutingScore score : {RoutingScore::kSigmoid, RoutingScore::kSoftmax}) {
      for (float bad : {kNan, kInfinity, -kInfinity}) {
        std::vector<float> logits(32, bad);
        logits[20] = 1;
        const RouteArgs args{.score = score, .groups = RoutingGroups::kByTopTwo, .num_groups = 4, .topk_groups = 2};
        const std::vector<int32_t> ids = route(*TestOps(isa), logits, 12, args).ids;
        EXPECT_EQ(std::set<int32_t>(ids.begin(), ids.end()).size(), ids.size());
        EXPECT_THAT(ids, ::testing::Each(::testing::AllOf(::testing::Ge(0), ::testing::Lt(32))));
      }
    }
  }
}

// The choice as DeepSeek's own files make it, in double and by sorting. False if two candidates are too close to call.
bool expected_choice(const float* logits, const std::vector<float>& bias, const RouteArgs& args, int64_t num_experts,
                     int64_t top_k, std::vector<int32_t>& ids, std::vector<double>& weights) {
  std::vector<double> scores(num_experts), choice(num_experts);
  double sum = 0;
  for (int64_t i = 0; i < num_experts; i++) sum += std::exp(double{logits[i]});
  for (int64_t i = 0; i < num_experts; i++) {
    scores[i] = args.score == RoutingScore::kSigmoid ? 1 / (1 + std::exp(-double{logits[i]}))
                                                     : std::exp(double{logits[i]}) / sum;
    choice[i] = scores[i] + bias[i];
  }
  const auto order_of = [](const std::vector<double>& values) {
    std::vector<int32_t> order(values.size());
    for (size_t i = 0; i < order.size(); i++) order[i] = static_cast<int32_t>(i);
    std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return values[a] > values[b]; });
    return order;
  };
  if (args.groups != RoutingGroups::kNone) {
    const int64_t size = num_experts / args.num_groups;
    std::vector<double> group_scores;
    for (int group = 0; group < args.num_groups; group++) {
      std::vector<double> members(choice.begin() + group * size, choice.begin() + (group + 1) * size);
      std::sort(members.rbegin(), members.rend());
      group_scores.push_back(members[0] + (args.groups == RoutingGroups::kByTopTwo ? members[1] : 0));
    }
    const std::vector<int32_t> order = order_of(group_scores);
    if (args.topk_groups < args.num_groups &&
        group_scores[order[args.topk_groups - 1]] - group_scores[order[args.topk_groups]] < 1e-6)
      return false;
    for (int place = args.topk_groups; place < args.num_groups; place++) {
      std::fill_n(choice.begin() + order[place] * size, size, -1e300);
    }
  }
  ids = order_of(choice);
  for (int64_t slot = 0; slot < top_k; slot++) {
    if (choice[ids[slot]] - choice[ids[slot + 1]] < 1e-6) return false;
  }
  ids.resize(top_k);
  double chosen = 0;
  for (int32_t id : ids) chosen += scores[id];
  weights.clear();
  for (int32_t id : ids) weights.push_back(scores[id] / (args.normalize ? chosen + 1e-20 : 1) * args.scaling_factor);
  return true;
}

struct Method {
  int64_t num_experts, top_k;
  RouteArgs args;
};
const Method kMethods[] = {
    {256,
     8,
     {.score = RoutingScore::kSigmoid,
      .groups = RoutingGroups::kByTopTwo,
      .num_groups = 8,
      .topk_groups = 4,
      .normalize = true,
      .scaling_factor = 2.5}},
    {160,
     6,
     {.score = RoutingScore::kSoftmax,
      .groups = RoutingGroups::kByMaximum,
      .num_groups = 8,
      .topk_groups = 3,
      .scaling_factor = 16}},
    {64, 6, {.score = RoutingScore::kSoftmax}},
    {24,
     4,
     {.score = RoutingScore::kSigmoid,
      .groups = RoutingGroups::kByTopTwo,
      .num_groups = 4,
      .topk_groups = 2,
      .normalize = true}},
    {37, 5, {.score = RoutingScore::kSoftmax, .normalize = true}},
};

TEST(Route, ChoosesAsDeepSeekDoesWithTheSameBitsEverywhere) {
  constexpr int64_t kNumRows = 60;
  for (const auto& [num_experts, top_k, method] : kMethods) {
    SCOPED_TRACE(fmt::format("{} experts", num_experts));
    Rows<float> logits = Rows<float>::random(kNumRows, num_experts, 1, 2.f),
                biases = Rows<float>::random(1, num_experts, 2, 0.05f);
    if (method.score == RoutingScore::kSoftmax) biases = Rows<float>(1, num_experts);
    const std::vector<float> bias(biases.view().data(), biases.view().data() + num_experts);
    expect_same_bits_everywhere(kNumRows, [&](const Ops& ops, int64_t begin, int64_t count) {
      Rows<int32_t> ids(count, top_k);
      Rows<float> weights(count, top_k);
      RouteArgs args = method;
      args.logits = logits.rows(begin, count);
      args.choice_bias = biases.row(0);
      args.ids = ids.view();
      args.weights = weights.view();
      ops.route(args);
      Bits bits;
      int64_t num_close = 0;
      for (int64_t row = 0; row < count; row++) {
        bits.append(ids.row(row));
        bits.append(weights.row(row));
        std::vector<int32_t> expected_ids;
        std::vector<double> expected;
        if (!expected_choice(logits.row(begin + row).data(), bias, args, num_experts, top_k, expected_ids, expected)) {
          num_close++;
          continue;
        }
        EXPECT_THAT(std::vector<int32_t>(ids.view().row(row), ids.view().row(row) + top_k),
                    ElementsAreArray(expected_ids));
        for (int64_t slot = 0; slot < top_k; slot++)
          EXPECT_NEAR(weights.view()(row, slot), expected[slot], 1e-6 * args.scaling_factor);
      }
      EXPECT_LT(num_close, 5);
      return bits;
    });
  }
}

}  // namespace
}  // namespace cachalot
