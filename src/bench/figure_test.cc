#include "bench/figure.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <numeric>

#include "weights/synth.h"

namespace cachalot {

namespace {

// Every linear in int4 with a scale and a zero point for 64 inputs; router and embedding in 16 bits.
StoredLinear awq64(const ModelTensor& tensor) {
  const double num_weights = static_cast<double>(tensor.rows) * static_cast<double>(tensor.cols);
  const bool plain = tensor.role == TensorRole::kRouter || tensor.role == TensorRole::kEmbedding;
  return {num_weights, num_weights * (plain ? 16 : 4 + 20.0 / 64) / 8, plain ? Arithmetic::kFloat : Arithmetic::kInt8};
}

ModelConfig shape(const char* name) {
  return parse_model_config(benchmark_config(name), name).value();
}

double sum(const std::vector<Operation>& operations, double Operation::* what) {
  return std::accumulate(operations.begin(), operations.end(), 0.0,
                         [&](double total, const Operation& operation) { return total + operation.*what; });
}

TEST(StepCost, OneTokenOfTheLiteShapeReadsWhatItsActiveWeightsHold) {
  const ModelConfig config = shape("lite");
  const StoredModel model = describe_stored_model(config, awq64);
  const std::vector<int> distinct(26, 6);
  const auto operations =
      step_operations(config, model, {.generated = true, .num_rows = 1, .num_logit_rows = 1}, distinct);
  EXPECT_NEAR(sum(operations, &Operation::num_bytes), 1.25e9, 0.01e9);
  EXPECT_NEAR(sum(operations, &Operation::num_operations) / 2, 2.31e9, 0.01e9);
}

TEST(StepCost, ExpertsAreReadOnceForAllRowsAndMultipliedForEach) {
  const ModelConfig config = shape("r1slice");
  const StoredModel model = describe_stored_model(config, awq64);
  const StepShape shape{.generated = true, .num_rows = 32, .first_position = 128, .num_logit_rows = 32};
  const auto few = step_operations(config, model, shape, std::vector{100});
  const auto many = step_operations(config, model, shape, std::vector{160});
  const double expert_bytes = 3.0 * 7168 * 2048 * (4 + 20.0 / 64) / 8;
  EXPECT_NEAR(sum(many, &Operation::num_bytes) - sum(few, &Operation::num_bytes), 60 * expert_bytes, 1);
  EXPECT_DOUBLE_EQ(sum(many, &Operation::num_operations), sum(few, &Operation::num_operations));
}

TEST(StepCost, PromptRowsAttendToThePositionsUpToTheirOwn) {
  const ModelConfig config = shape("lite");
  const StoredModel nothing{.layers = {StoredLayer{}}};
  const auto piece = step_operations(config, nothing, {.num_rows = 2, .first_position = 3}, {});
  EXPECT_DOUBLE_EQ(sum(piece, &Operation::num_operations), 2 * (4 + 5) * 16 * (192 + 128));
  EXPECT_DOUBLE_EQ(sum(piece, &Operation::num_bytes), 5 * 576 * 2);
}

TEST(StepCost, GeneratedRowsReadTheLatentsOfTheirOwnContext) {
  const ModelConfig config = shape("lite");
  const StoredModel nothing{.layers = {StoredLayer{}}};
  const auto rows = step_operations(
      config, nothing, {.generated = true, .num_rows = 4, .first_position = 9, .cache_element_bytes = 4}, {});
  EXPECT_DOUBLE_EQ(sum(rows, &Operation::num_operations), 2 * 4 * 10 * 16 * (576 + 512));
  EXPECT_DOUBLE_EQ(sum(rows, &Operation::num_bytes), 4 * 10 * 576 * 4);
}

TEST(StepCost, AnIndexerReadsAllKeysAndItsRowsTheLatentsOfWhatTheyChoose) {
  const ModelConfig config = shape("v32slice");
  const StoredModel nothing{.layers = {StoredLayer{}}};
  const auto decode = [&](int64_t position) {
    return step_operations(config, nothing, {.generated = true, .num_rows = 2, .first_position = position}, {});
  };
  EXPECT_DOUBLE_EQ(sum(decode(2047), &Operation::num_bytes), 2.0 * 2048 * 576 * 2) << "nothing to choose yet";
  EXPECT_DOUBLE_EQ(sum(decode(9999), &Operation::num_bytes), 2.0 * (2048 * 576 + 10'000 * 128) * 2);
  EXPECT_DOUBLE_EQ(sum(decode(9999), &Operation::num_operations),
                   2.0 * 2 * (2048.0 * 128 * (576 + 512) + 10'000.0 * 64 * 128));
  // Of a prompt, rows 2046 and 2047 are dense, and two choose.
  const auto prompt = step_operations(config, nothing, {.num_rows = 4, .first_position = 2046}, {});
  EXPECT_DOUBLE_EQ(sum(prompt, &Operation::num_bytes), (2048.0 * 576 + 2 * 2048.0 * 576 + 2050.0 * 128) * 2);
  EXPECT_DOUBLE_EQ(
      sum(prompt, &Operation::num_operations),
      2 * ((2047.0 + 2048) * 128 * (192 + 128) + 2 * 2048.0 * 128 * (576 + 512) + (2049.0 + 2050) * 64 * 128));
}

TEST(StepCost, KeysAndValuesOfAnEarlierPiecesPositionsAreMadeAgain) {
  const ModelConfig config = shape("lite");
  const StoredModel model{.layers = {StoredLayer{.kv_b = {.num_weights = 1e9}}}};
  const auto count = [&](const StepShape& shape) {
    const StoredModel nothing{.layers = {StoredLayer{}}};
    return sum(step_operations(config, model, shape, {}), &Operation::num_operations) -
           sum(step_operations(config, nothing, shape, {}), &Operation::num_operations);
  };
  EXPECT_DOUBLE_EQ(count({.num_rows = 2, .first_position = 3}), 2e9 * 5);
  EXPECT_DOUBLE_EQ(count({.generated = true, .num_rows = 2, .first_position = 3}), 2e9 * 2);
}

TEST(StepCost, EachOperationTakesTheLongerOfReadingAndMultiplying) {
  const MachineLimits limits{.bandwidth = 10, .int8_peak = 100, .float_peak = 50};
  const std::vector<Operation> operations{
      {20, 100, Arithmetic::kInt8}, {10, 300, Arithmetic::kInt8}, {0, 100, Arithmetic::kFloat}};
  EXPECT_DOUBLE_EQ(least_seconds(operations, limits), 2 + 3 + 2);
}

TEST(StepCost, EvenRoutingReachesAllExpertsInTheEnd) {
  EXPECT_DOUBLE_EQ(uniform_distinct_experts(64, 6, 1), 6);
  EXPECT_NEAR(uniform_distinct_experts(64, 6, 2), 12 - 36.0 / 64, 1e-9);
  EXPECT_NEAR(uniform_distinct_experts(64, 6, 512), 64, 1e-9);
  EXPECT_EQ(uniform_distinct_experts(0, 0, 8), 0);
}

Sample sample(double seconds, double bandwidth) {
  return {.num_tokens = 10,
          .seconds = seconds,
          .least_seconds = 1,
          .step_bytes = bandwidth,
          .limits = {.bandwidth = bandwidth, .int8_peak = 2e12, .float_peak = 5e11},
          .distinct_experts = 6};
}

Figure figure_of(const std::vector<Sample>& samples) {
  Figure figure{
      .phase = "decode", .batch = 1, .weights = "awq", .isa = "avx512", .context = 128, .uniform_distinct_experts = 6};
  summarize(samples, figure);
  return figure;
}

TEST(Figure, SpeedAndLimitsAreOfTheMedianSample) {
  const Figure figure = figure_of({sample(5, 1e9), sample(2, 2e9), sample(4, 3e9)});
  EXPECT_DOUBLE_EQ(figure.tokens_per_s, 2.5);
  EXPECT_DOUBLE_EQ(figure.min, 2);
  EXPECT_DOUBLE_EQ(figure.max, 5);
  EXPECT_DOUBLE_EQ(figure.limit_tokens_per_s, 10);
  EXPECT_DOUBLE_EQ(figure.fraction_of_limit(), 0.25);
  EXPECT_DOUBLE_EQ(figure.limits.bandwidth, 3e9);
  EXPECT_DOUBLE_EQ(figure.step_bytes, 3e9);
}

TEST(Figure, DoesNotCountWhenRoutingIsUneven) {
  Figure figure = figure_of({sample(2, 1e9)});
  EXPECT_TRUE(figure.counts());
  EXPECT_THAT(figures_table({&figure, 1}), testing::Not(testing::HasSubstr("does not count")));
  figure.distinct_experts = 5.6;
  EXPECT_FALSE(figure.counts());
  EXPECT_THAT(figures_table({&figure, 1}), testing::HasSubstr("does not count"));
}

TEST(Figure, JsonHoldsEveryFigureWithItsKeys) {
  const std::vector<Figure> figures{figure_of({sample(2, 3e10)}), figure_of({sample(4, 3e10)})};
  const auto results = boost::json::parse(figures_json(figures)).at("results").as_array();
  ASSERT_EQ(results.size(), 2U);
  std::vector<std::string> keys;
  for (const auto& [key, value] : results[0].as_object()) keys.emplace_back(key);
  EXPECT_THAT(keys, testing::ElementsAre("phase", "batch", "weights", "isa", "context", "tokens_per_s", "min", "max",
                                         "limit_tokens_per_s", "step_bytes", "fraction_of_limit", "distinct_experts",
                                         "uniform_distinct_experts", "bandwidth_gb_s", "int8_tops"));
  EXPECT_EQ(results[1].at("tokens_per_s").as_double(), 2.5);
  EXPECT_EQ(results[1].at("bandwidth_gb_s").as_double(), 30);
  EXPECT_EQ(results[1].at("int8_tops").as_double(), 2);
}

}  // namespace

}  // namespace cachalot
