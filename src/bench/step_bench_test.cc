#include "bench/step_bench.h"

#include <gmock/gmock.h>

#include <thread>

#include "base/folder_test_util.h"
#include "comm/local_mesh_test_util.h"
#include "weights/synth.h"

namespace cachalot {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr const char* kStepConfig = R"({
  "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3",
  "vocab_size": 512, "hidden_size": 128, "num_hidden_layers": 3,
  "num_attention_heads": 4, "num_key_value_heads": 4, "q_lora_rank": null,
  "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32,
  "intermediate_size": 256, "moe_intermediate_size": 128, "first_k_dense_replace": 1, "moe_layer_freq": 1,
  "n_routed_experts": 16, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
  "scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": true, "routed_scaling_factor": 1.0,
  "max_position_embeddings": 512, "rms_norm_eps": 1e-06, "rope_theta": 10000, "hidden_act": "silu",
  "bos_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": false, "torch_dtype": "bfloat16"
})";

// Ranks as threads of this process, the first one with an engine beside it that does all of their work alone.
class StepBenchTest : public testing::Test {
 protected:
  void SetUp() override {
    const Result<SynthSummary> written = synthesize(kStepConfig, "config.json", folder_.path(),
                                                    {.target = {.format = WeightFormat::kAwq, .quantize_head = true}});
    ASSERT_TRUE(written) << written.error().message;
  }

  StepBenchResult measure(ParallelOptions parallel, const StepBenchOptions& options) {
    const int num_ranks = parallel.group_size(), num_replicas = num_ranks / parallel.tensor_parallel_size;
    auto meshes = make_local_mesh(num_ranks).value();
    StepBenchResult first;
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < num_ranks; rank++) {
      threads.emplace_back([&, rank, parallel]() mutable {
        parallel.data_parallel_rank = rank / parallel.tensor_parallel_size;
        parallel.tensor_parallel_rank = rank % parallel.tensor_parallel_size;
        EngineOptions engine_options{.model = folder_.path(), .threads = 1};
        reserve_for_steps(options, 1, engine_options);
        const Placement placement{
            .parallel = parallel, .mesh = meshes[static_cast<size_t>(rank)].get(), .num_local_ranks = num_ranks};
        const auto engine = RankEngine::create(engine_options, placement, {}).value();
        std::unique_ptr<RankEngine> alone;
        reserve_for_steps(options, num_replicas, engine_options);
        if (rank == 0) alone = RankEngine::create(engine_options, {}).value();
        auto result = run_step_bench(*engine, alone.get(), options);
        ASSERT_TRUE(result) << result.error().message;
        if (rank == 0) first = std::move(*result);
      });
    }
    threads.clear();
    return first;
  }

  const TestFolder folder_;
};

TEST_F(StepBenchTest, MeasuresTensorParallelRanksBesideOneProcess) {
  const StepBenchResult result = measure({.tensor_parallel_size = 2, .enable_expert_parallel = true},
                                         {.prompt = 32, .batches = {3}, .context = 8, .steps = 4, .repeat = 2});
  ASSERT_EQ(result.figures.size(), 2);
  const StepFigure& decode = result.figures[1];
  EXPECT_EQ(decode.phase, "decode");
  ASSERT_EQ(decode.ranks.size(), 2);
  // Three rows with two experts each, over both ranks.
  EXPECT_DOUBLE_EQ(decode.ranks[0].expert_rows + decode.ranks[1].expert_rows, 6);
  for (const StepFigure& figure : result.figures) {
    EXPECT_GT(figure.alone_ms, 0);
    EXPECT_GE(figure.expert_imbalance, 1);
    EXPECT_LE(figure.min_efficiency, figure.efficiency);
    for (const RankStep& rank : figure.ranks) {
      EXPECT_GT(rank.compute_ms, 0);
      EXPECT_NEAR(rank.compute_ms + rank.exchange_ms + rank.waiting_ms, figure.step_ms, 1e-6);
    }
  }
  ASSERT_EQ(result.events.size(), 2);
  for (const char* name : {"attention", "attention all-gather", "gate", "dispatch", "shared expert", "experts",
                           "combine", "o_proj reduce-scatter", "head", "waiting"})
    EXPECT_THAT(result.events[1], HasSubstr(fmt::format("\"name\":\"{}\"", name)));
}

TEST_F(StepBenchTest, EveryReplicaBringsItsOwnSequences) {
  const StepBenchResult result = measure({.data_parallel_size = 2, .enable_expert_parallel = true},
                                         {.prompt = 0, .batches = {2, 4}, .context = 8, .steps = 3, .repeat = 1});
  ASSERT_EQ(result.figures.size(), 2);
  EXPECT_DOUBLE_EQ(result.figures[0].ranks[0].expert_rows + result.figures[0].ranks[1].expert_rows, 8);
  EXPECT_DOUBLE_EQ(result.figures[1].ranks[0].expert_rows + result.figures[1].ranks[1].expert_rows, 16);
  EXPECT_THAT(result.events[0], AllOf(HasSubstr("rank 0 (replica 0, tp 0)"), HasSubstr("agreement on the next round")));
  EXPECT_THAT(result.events[1], HasSubstr("rank 1 (replica 1, tp 0)"));
}

}  // namespace
}  // namespace cachalot
