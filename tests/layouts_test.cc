// Layouts: data and expert parallelism change no bit, however the experts' rows travel; and what travels is what the
// routing implies.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "base/math.h"
#include "model_harness.h"
#include "placement/moves.h"
#include "routing_rows.h"

namespace cachalot::test {
namespace {

const std::string kGolden = std::string(CACHALOT_SOURCE_DIR) + "/tests/data/golden/";
constexpr int kVocab = 320;

std::vector<TokenId> random_tokens(int count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<TokenId> tokens(static_cast<size_t>(count));
  for (TokenId& token : tokens) token = static_cast<TokenId>(random() % kVocab);
  return tokens;
}

// Replicas that are in prefill, in decode, through with it, and idle, all at the same time.
std::vector<ReplicaInput> mixed_inputs(int num_replicas) {
  std::vector<ReplicaInput> inputs(static_cast<size_t>(num_replicas));
  for (int replica = 0; replica < num_replicas; replica++) {
    ReplicaInput& input = inputs[static_cast<size_t>(replica)];
    const auto seed = static_cast<unsigned>(replica);
    switch (replica % 5) {
      case 0:
        input = {random_tokens(70, seed), 65, {}};
        break;  // a prompt in chunks, then some answer
      case 1:
        input = {random_tokens(9, seed), 2, {}};
        break;  // soon in decode
      case 2:
        input = {random_tokens(41, seed), -1, {}};
        break;  // a prompt alone
      case 3:
        break;  // idle
      default:
        input = {random_tokens(1, seed), -1, {}};
    }
  }
  return inputs;
}

struct Model {
  std::string folder;
  DType compute_dtype;
  ActivationDTypeOption activation;
};

std::string model_name(const Model& model) {
  std::string name = model.folder + (model.compute_dtype == DType::kF32 ? "_float32" : "_bfloat16") +
                     (model.activation == ActivationDTypeOption::kInt8 ? "_int8" : "");
  std::ranges::replace(name, '-', '_');
  return name;
}

RunOptions options_of(const Model& model, const Layout& layout) {
  return {.compute_dtype = model.compute_dtype,
          .activation_dtype = model.activation,
          .isa = detect_isa(),
          .layout = layout,
          .chunk = 16,
          .max_rows = 64};
}

// All experts of all tokens among the first top_k.
std::vector<int32_t> to_first_experts(const ModelRun& run, const ReplicaInput& input) {
  std::vector<int32_t> ids;
  const int top_k = run.config().num_experts_per_token;
  for (size_t row = 0; row < static_cast<size_t>(run.num_moe_layers()) * input.tokens.size(); row++) {
    for (int slot = 0; slot < top_k; slot++)
      ids.push_back(static_cast<int32_t>((row + static_cast<size_t>(slot)) % static_cast<size_t>(top_k)));
  }
  return ids;
}

void expect_same(const std::vector<RunResult>& results, const std::vector<RunResult>& alone, const std::string& what) {
  ASSERT_EQ(results.size(), alone.size());
  for (size_t replica = 0; replica < alone.size(); replica++)
    EXPECT_TRUE(same_bits(results[replica].logits, alone[replica].logits)) << what << ", replica " << replica;
}

class DataAndExpertParallel : public testing::TestWithParam<Model> {
 protected:
  // Each input alone on one rank of a layout without data parallelism.
  std::vector<RunResult> alone(const std::vector<ReplicaInput>& inputs, int tp_size = 1) {
    ModelRun run(kGolden + GetParam().folder, options_of(GetParam(), {.dp_size = 1, .tp_size = tp_size}));
    std::vector<RunResult> results;
    for (const ReplicaInput& input : inputs) results.push_back(std::move(run.run({input})[0]));
    return results;
  }
};

TEST_P(DataAndExpertParallel, GivesTheBitsOfOneRank) {
  const std::vector<RunResult> expected = alone(mixed_inputs(8));
  for (const int dp_size : {2, 4, 8}) {
    ModelRun run(kGolden + GetParam().folder, options_of(GetParam(), {.dp_size = dp_size, .tp_size = 1}));
    expect_same(run.run(mixed_inputs(dp_size)), {expected.begin(), expected.begin() + dp_size},
                "DP " + std::to_string(dp_size));
  }
  // Tensor parallelism rounds in its own way, whatever there is besides.
  ModelRun run(kGolden + GetParam().folder, options_of(GetParam(), {.dp_size = 4, .tp_size = 2}));
  expect_same(run.run(mixed_inputs(4)), alone(mixed_inputs(4), 2), "DP 4, TP 2");
}

TEST_P(DataAndExpertParallel, GivesTheBitsOfOneRankWhereRanksDoNotDivideTheExperts) {
  const std::vector<RunResult> expected = alone(mixed_inputs(7));
  for (const int dp_size : {3, 5, 7}) {
    ModelRun run(kGolden + GetParam().folder, options_of(GetParam(), {.dp_size = dp_size, .tp_size = 1}));
    expect_same(run.run(mixed_inputs(dp_size)), {expected.begin(), expected.begin() + dp_size},
                "DP " + std::to_string(dp_size));
  }
  ModelRun run(kGolden + GetParam().folder, options_of(GetParam(), {.dp_size = 3, .tp_size = 2}));
  expect_same(run.run(mixed_inputs(3)), alone(mixed_inputs(3), 2), "DP 3, TP 2");
}

// Each expert on one to three ranks at random, otherwise in each layer, with spare slots and ranks that have none.
SharedPlacement random_placement(const ModelConfig& config, int num_ranks, unsigned seed) {
  std::mt19937 random(seed);
  const ExpertPlacement::Shape shape = placement_shape(config, num_ranks);
  std::vector<ExpertPlacement::Layer> layers;
  for (int layer = 0; layer < shape.num_layers; layer++) {
    ExpertPlacement::Layer& ranks = layers.emplace_back(static_cast<size_t>(num_ranks));
    const size_t num_holders = 1 + random() % ranks.size();
    for (int32_t expert = 0; expert < shape.num_experts; expert++) {
      std::set<size_t> on;
      for (unsigned copies = 1 + random() % 3; copies > 0; copies--) on.insert(random() % num_holders);
      for (const size_t rank : on) ranks[rank].push_back(expert);
    }
    ranks[random() % ranks.size()].push_back(ExpertPlacement::kSpare);
  }
  auto placement = ExpertPlacement::create(shape, seed, layers);
  CHECK(placement, "{}", placement.error().message);
  return std::make_shared<const ExpertPlacement>(std::move(*placement));
}

TEST_P(DataAndExpertParallel, NoPlacementWithCopiesChangesABit) {
  const std::vector<RunResult> expected = alone(mixed_inputs(5));
  const auto config = load_model_config(kGolden + GetParam().folder);
  ASSERT_TRUE(config);
  for (unsigned seed = 1; seed <= 4; seed++) {
    const int dp_size = 2 + static_cast<int>(seed % 4);
    RunOptions options = options_of(GetParam(), {.dp_size = dp_size, .tp_size = 1});
    options.placement = random_placement(*config, dp_size, seed);
    for (int rank = 0; rank < dp_size; rank++) options.nodes.push_back(rank / 2);
    options.exchange_max_bytes = seed % 2;
    ModelRun run(kGolden + GetParam().folder, options);
    expect_same(run.run(mixed_inputs(dp_size)), {expected.begin(), expected.begin() + dp_size},
                "seed " + std::to_string(seed));
  }
}

TEST_P(DataAndExpertParallel, NoMoveOfExpertsChangesABit) {
  const std::vector<RunResult> expected = alone(mixed_inputs(3));
  const auto config = load_model_config(kGolden + GetParam().folder);
  ASSERT_TRUE(config);
  const ExpertPlacement::Shape shape = placement_shape(*config, 3);
  std::mt19937 random(11);
  const auto random_load = [&] {
    ExpertLoad load = ExpertLoad::uniform(shape.num_layers, shape.num_experts);
    for (std::vector<double>& layer : load.layers)
      for (double& rows : layer) rows = static_cast<double>(1 + random() % 64);
    return load;
  };
  const BalanceOptions balance{.num_ranks = 3, .num_redundant = 4};
  for (const int num_spare : {0, 1}) {
    const auto first = balanced_placement(random_load(), balance, 1);
    ASSERT_TRUE(first);
    SharedPlacement now = std::make_shared<const ExpertPlacement>(*with_spare_slots(*first, num_spare));
    RunOptions options = options_of(GetParam(), {.dp_size = 3, .tp_size = 1});
    options.placement = now;
    options.num_move_buffers = num_move_buffers(*now);
    ModelRun run(kGolden + GetParam().folder, options);
    int64_t moved = 0;
    for (int turn = 0; turn < 2; turn++) {
      const ExpertLoad load = random_load();
      const auto target = rebalanced_placement(*now, load, balance);
      ASSERT_TRUE(target);
      while (auto stage = next_stage(*now, *target, load, options.num_move_buffers)) {
        const auto next = std::make_shared<const ExpertPlacement>(std::move(*stage));
        const bool from_ranks = turn == 1;
        const int64_t of_stage = num_moves(*now, *next);
        const auto from_files = run.move_to(next, from_ranks, run.files());
        ASSERT_TRUE(from_files) << from_files.error().message;
        EXPECT_EQ(*from_files, from_ranks ? 0 : of_stage);
        moved += of_stage;
        now = next;
        expect_same(run.run(mixed_inputs(3)), {expected.begin(), expected.begin() + 3},
                    "version " + std::to_string(now->version()));
      }
    }
    EXPECT_GT(moved, 0);
  }
}

// A folder of which a disk no longer gives one expert.
class BrokenFiles : public WeightCatalog {
 public:
  explicit BrokenFiles(const ModelFiles& files) : files_(files) {}
  const std::string& name() const override { return files_.name(); }
  Result<WeightSource> linear(std::string_view prefix, int64_t out, int64_t in) const override {
    return files_.linear(prefix, out, in);
  }
  Result<WeightSource> head() const override { return files_.head(); }
  Result<std::vector<float>> vector(std::string_view name, int64_t size) const override {
    return files_.vector(name, size);
  }
  Result<TensorRef> embedding() const override { return files_.embedding(); }
  Error not_finite(std::string_view name, size_t index) const override { return files_.not_finite(name, index); }
  Status fetch_pages(const WeightSource&) const override { return make_error(ErrorCode::kIo, "the disk is gone"); }
  void drop_pages(const WeightSource&) const override {}

 private:
  const ModelFiles& files_;
};

TEST_P(DataAndExpertParallel, AnExpertThatCannotBeReadLeavesAllWhereTheyAre) {
  const std::vector<RunResult> expected = alone(mixed_inputs(2));
  RunOptions options = options_of(GetParam(), {.dp_size = 2, .tp_size = 1});
  const auto config = load_model_config(kGolden + GetParam().folder);
  ASSERT_TRUE(config);
  options.placement = even_placement(*config, 2);
  options.num_move_buffers = num_move_buffers(*options.placement);
  ModelRun run(kGolden + GetParam().folder, options);
  std::vector<ExpertPlacement::Layer> layers = layers_of(*options.placement);
  for (ExpertPlacement::Layer& layer : layers) std::swap(layer[0][0], layer[1][0]);
  const auto swapped = std::make_shared<const ExpertPlacement>(*next_stage(
      *options.placement, *ExpertPlacement::create(options.placement->shape(), 2, layers),
      ExpertLoad::uniform(options.placement->shape().num_layers, config->num_experts), options.num_move_buffers));
  const auto moved = run.move_to(swapped, false, BrokenFiles(run.files()));
  ASSERT_FALSE(moved);
  EXPECT_NE(moved.error().message.find("the disk is gone"), std::string::npos) << moved.error().message;
  EXPECT_EQ(run.exchange(0).placement().version(), options.placement->version());
  expect_same(run.run(mixed_inputs(2)), {expected.begin(), expected.begin() + 2}, "behind the failure");
  ASSERT_TRUE(run.move_to(swapped, false, run.files()));
  expect_same(run.run(mixed_inputs(2)), {expected.begin(), expected.begin() + 2}, "then moved");
}

TEST_P(DataAndExpertParallel, BadRoutingThroughSmallBuffersChangesNoBit) {
  for (const Layout layout : {Layout{4, 1}, Layout{2, 2}}) {
    RunOptions options = options_of(GetParam(), layout);
    options.exchange_max_bytes = 1;
    ModelRun run(kGolden + GetParam().folder, options);
    std::vector<ReplicaInput> inputs = mixed_inputs(layout.dp_size);
    const std::vector<RunResult> free = run.run(inputs);
    expect_same(free, alone(inputs, layout.tp_size), "free routing");
    for (ReplicaInput& input : inputs) input.forced_expert_ids = to_first_experts(run, input);
    const auto passes_before = run.exchange(0).counters().num_passes;
    expect_same(run.run(inputs), alone(inputs, layout.tp_size), "all tokens to one rank");
    // Rank 0 holds all these experts and takes one row a peer and pass.
    ASSERT_EQ(run.exchange(0).layout().rows_per_peer, 1);
    size_t passes = 0;
    for (size_t step = 0;; step++) {
      int most_rows = -1;
      for (const ReplicaInput& input : inputs) {
        const std::vector<int> rows = run.rows_of_steps(input);
        if (step < rows.size()) most_rows = std::max(most_rows, rows[step]);
      }
      if (most_rows < 0) break;
      passes += static_cast<size_t>(ceil_div(most_rows, layout.tp_size));
    }
    EXPECT_EQ(run.exchange(0).counters().num_passes - passes_before,
              passes * static_cast<size_t>(run.num_moe_layers()));
  }
}

INSTANTIATE_TEST_SUITE_P(All, DataAndExpertParallel,
                         testing::Values(Model{"r1-bf16", DType::kBF16, ActivationDTypeOption::kAuto},
                                         Model{"r1-bf16", DType::kF32, ActivationDTypeOption::kAuto},
                                         Model{"r1-awq", DType::kBF16, ActivationDTypeOption::kAuto},
                                         Model{"r1-fp8", DType::kBF16, ActivationDTypeOption::kAuto},
                                         Model{"r1-fp8", DType::kBF16, ActivationDTypeOption::kInt8},
                                         Model{"v2lite-bf16", DType::kBF16, ActivationDTypeOption::kAuto},
                                         Model{"v32-fp8", DType::kBF16, ActivationDTypeOption::kAuto},
                                         Model{"glm52-bf16", DType::kBF16, ActivationDTypeOption::kInt8}),
                         [](const auto& info) { return model_name(info.param); });

// ---- accounting ----

TEST(Accounting, RowsThatTravelAreWhatTheRoutingImpliesOnceEach) {
  for (const Layout layout : {Layout{1, 1}, Layout{4, 1}, Layout{2, 2}, Layout{1, 4}, Layout{8, 1}, Layout{7, 1}}) {
    ModelRun run(kGolden + "r1-awq", options_of({"r1-awq", DType::kBF16, ActivationDTypeOption::kAuto}, layout));
    const std::vector<ReplicaInput> inputs = mixed_inputs(layout.dp_size);
    std::vector<RunResult> results = run.run(inputs);
    const std::vector<Rows> expected = rows_by_routing(run, layout, inputs, results);
    for (int rank = 0; rank < layout.num_ranks(); rank++) {
      const auto& counters = run.exchange(rank).counters();
      EXPECT_EQ((Rows{counters.rows_brought, counters.rows_sent, counters.rows_received}),
                expected[static_cast<size_t>(rank)])
          << "DP " << layout.dp_size << ", TP " << layout.tp_size << ", rank " << rank;
    }
    if (layout.dp_size >= 4) {
      EXPECT_EQ(expected[3].brought, 0u);  // the idle replica works for others
      EXPECT_GT(run.exchange(3).counters().rows_received, 0u);
    }
  }
}

}  // namespace
}  // namespace cachalot::test
