// What ranks say that they hold and did, against the model's files, the plan and the routing: replicated weights or a
// skipped exchange cannot pass for parallelism.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "golden_cases.h"
#include "processes/header_weights.h"
#include "processes/logits_run.h"
#include "routing_rows.h"

namespace cachalot::test {
namespace {

constexpr int kNumGenerated = 4;

struct Param {
  std::string model;
  Layout layout;
  friend void PrintTo(const Param& param, std::ostream* out) { *out << param.model; }
};

class Accounting : public testing::TestWithParam<Param> {
 protected:
  void SetUp() override {
    const std::vector<GoldenCase> cases = load_golden_cases(model_name_);
    ASSERT_EQ(cases.size(), 6u);
    const std::vector<TokenId>& tokens = cases[3].tokens;
    input_ = {tokens, static_cast<int>(tokens.size()) - kNumGenerated, {}};
    answer_ = run_logits({.model = folder_,
                          .layout = layout_,
                          .tokens = input_.tokens,
                          .generated_from = input_.generated_from,
                          .replica = replica_});
    ASSERT_EQ(std::ssize(answer_.ranks), layout_.expert_parallel ? layout_.num_ranks() : layout_.tp_size);
  }

  const boost::json::object& rank(int idx) const { return answer_.ranks.at(static_cast<size_t>(idx)).as_object(); }
  int num_ranks() const { return static_cast<int>(answer_.ranks.size()); }
  // Without expert parallelism only the replica that was asked runs.
  int dp_rank(int idx) const { return layout_.expert_parallel ? idx / layout_.tp_size : replica_; }
  uint64_t number(int idx, const char* key) const { return rank(idx).at(key).to_number<uint64_t>(); }

  const std::string model_name_ = GetParam().model, folder_ = golden_folder(model_name_);
  const Layout layout_ = GetParam().layout;
  const int replica_ = layout_.dp_size / 2;
  ReplicaInput input_;
  LogitsAnswer answer_;
};

TEST_P(Accounting, EveryRankIsAProcessOfItsOwnAndSaysWhoItIs) {
  std::set<uint64_t> pids;
  for (int idx = 0; idx < num_ranks(); idx++) {
    EXPECT_EQ(number(idx, "rank"), static_cast<uint64_t>(idx));
    EXPECT_EQ(number(idx, "dp_rank"), static_cast<uint64_t>(dp_rank(idx)));
    EXPECT_EQ(number(idx, "tp_rank"), static_cast<uint64_t>(idx % layout_.tp_size));
    EXPECT_FALSE(rank(idx).at("node").as_string().empty());
    EXPECT_GT(rank(idx).at("resident_bytes").to_number<int64_t>(), 0);
    EXPECT_EQ(number(idx, "arithmetic"), number(0, "arithmetic"));
    EXPECT_GT(number(idx, "arithmetic"), 0u);
    pids.insert(number(idx, "pid"));
  }
  EXPECT_EQ(pids.size(), answer_.ranks.size());
}

TEST_P(Accounting, ExpertsOfEachLayerAreDividedEvenlyAndHeldOnce) {
  const auto config = load_model_config(folder_);
  ASSERT_TRUE(config);
  const int num_sharing = layout_.expert_parallel ? num_ranks() : 1;
  const SharedPlacement placement = even_placement(*config, num_sharing);
  for (int idx = 0; idx < num_ranks(); idx++) {
    const auto layers = boost::json::value_to<std::vector<std::vector<int32_t>>>(rank(idx).at("experts"));
    ASSERT_EQ(std::ssize(layers), placement->shape().num_layers);
    for (int layer = 0; layer < placement->shape().num_layers; layer++)
      EXPECT_TRUE(std::ranges::equal(layers[static_cast<size_t>(layer)], placement->slots(layer, idx % num_sharing)))
          << "layer " << layer << ", rank " << idx;
    EXPECT_EQ(number(idx, "placement_version"), 1u);
    EXPECT_EQ(rank(idx).at("placement_hash").to_number<int64_t>(), placement->hash());
  }
}

TEST_P(Accounting, WeightBytesArePlannedAndFollowFromTheFilesHeaders) {
  for (int idx = 0; idx < num_ranks(); idx++) {
    const uint64_t bytes = number(idx, "weight_bytes"), by_headers = weight_bytes_by_headers(folder_, layout_, idx);
    EXPECT_EQ(bytes, number(idx, "planned_weight_bytes")) << idx;
    // Each weight begins at a multiple of 64 bytes.
    EXPECT_NEAR(static_cast<double>(bytes) / static_cast<double>(by_headers), 1, 0.005) << idx;
  }
}

TEST_P(Accounting, RowsThatTravelAreWhatTheRoutingImpliesOnceEach) {
  if (!layout_.expert_parallel) GTEST_SKIP() << "without expert parallelism no row travels to experts";
  ModelRun alone(folder_, {.compute_dtype = DType::kF32, .isa = detect_isa()});
  ASSERT_FALSE(HasFailure());
  std::vector<ReplicaInput> inputs(static_cast<size_t>(layout_.dp_size));
  std::vector<RunResult> results(inputs.size());
  inputs[static_cast<size_t>(replica_)] = input_;
  results[static_cast<size_t>(replica_)] = std::move(alone.run({input_})[0]);
  const std::vector<Rows> expected = rows_by_routing(alone, layout_, inputs, results);
  for (int idx = 0; idx < num_ranks(); idx++) {
    EXPECT_EQ((Rows{number(idx, "rows_brought"), number(idx, "rows_sent"), number(idx, "rows_received")}),
              expected[static_cast<size_t>(idx)])
        << "rank " << idx;
    if (dp_rank(idx) != replica_) {
      EXPECT_EQ(number(idx, "rows_brought"), 0u) << "idle rank " << idx;
    }
  }
}

TEST_P(Accounting, EachRankOwnsItsShareOfTheRowsBetweenAttentions) {
  const auto config = load_model_config(folder_);
  ASSERT_TRUE(config);
  for (int idx = 0; idx < num_ranks(); idx++) {
    uint64_t rows = 0;
    if (dp_rank(idx) == replica_) {
      const RowPartition prompt(input_.generated_from, layout_.tp_size), generated(1, layout_.tp_size);
      const int tp_rank = idx % layout_.tp_size;
      rows = static_cast<uint64_t>((prompt.count(tp_rank) + kNumGenerated * generated.count(tp_rank)) *
                                   config->num_layers);
    }
    EXPECT_EQ(number(idx, "sequence_parallel_rows"), rows) << idx;
  }
}

TEST_P(Accounting, ThereIsOneAgreementForEachRound) {
  constexpr uint64_t kNumRounds = 1 + kNumGenerated;  // of one step each
  for (int idx = 0; idx < num_ranks(); idx++) {
    EXPECT_EQ(number(idx, "steps"), kNumRounds) << idx;
    EXPECT_EQ(number(idx, "agreements"), kNumRounds + 1) << idx;  // the last one: to end
  }
}

TEST_P(Accounting, BytesWentThroughSharedMemory) {
  for (int idx = 0; idx < num_ranks(); idx++) {
    const boost::json::object& bytes = rank(idx).at("bytes").as_object();
    EXPECT_EQ(bytes.at("shm").to_number<uint64_t>() > 0, num_ranks() > 1) << idx;
    EXPECT_EQ(bytes.at("ucx").to_number<uint64_t>(), 0u) << idx;
  }
}

std::string param_name(const testing::TestParamInfo<Param>& info) {
  const auto& [model, layout] = info.param;
  std::string name = model + "_dp" + std::to_string(layout.dp_size) + "_tp" + std::to_string(layout.tp_size) +
                     (layout.expert_parallel ? "" : "_noep");
  std::ranges::replace(name, '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Processes, Accounting,
                         testing::Values(Param{"r1-bf16", {1, 1}}, Param{"r1-bf16", {4, 1}}, Param{"r1-fp8", {2, 2}},
                                         Param{"r1-awq", {2, 2}}, Param{"v2lite-bf16", {1, 4}},
                                         Param{"r1-bf16", {3, 1}}, Param{"r1-awq", {7, 1}},
                                         Param{"v2lite-bf16", {3, 2}}, Param{"r1-bf16", {2, 2, false}}),
                         param_name);

}  // namespace
}  // namespace cachalot::test
