#include "bench/model_bench.h"

#include <gmock/gmock.h>

#include "base/folder_test_util.h"
#include "weights/model_files.h"
#include "weights/synth.h"

namespace cachalot {
namespace {

constexpr const char* kSmallConfig = R"({
  "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3",
  "vocab_size": 512, "hidden_size": 256, "num_hidden_layers": 3,
  "num_attention_heads": 4, "num_key_value_heads": 4, "q_lora_rank": null,
  "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32,
  "intermediate_size": 512, "moe_intermediate_size": 128, "first_k_dense_replace": 1, "moe_layer_freq": 1,
  "n_routed_experts": 16, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
  "scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": true, "routed_scaling_factor": 1.0,
  "max_position_embeddings": 512, "rms_norm_eps": 1e-06, "rope_theta": 10000, "hidden_act": "silu",
  "bos_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": false, "torch_dtype": "bfloat16"
})";

class ModelBenchTest : public testing::Test {
 protected:
  void SetUp() override {
    const Result<SynthSummary> written = synthesize(kSmallConfig, "config.json", folder_,
                                                    {.target = {.format = WeightFormat::kAwq, .quantize_head = true}});
    ASSERT_TRUE(written) << written.error().message;
  }

  const TestFolder test_folder_;
  const std::string& folder_ = test_folder_.path();
};

TEST_F(ModelBenchTest, StoredBytesAreThoseOfTheFilesTensors) {
  const ModelFiles files = ModelFiles::open(folder_).value();
  const StoredModel stored = describe_stored_model(files.config(), files.checkpoint());
  ASSERT_EQ(stored.layers.size(), 3U);
  EXPECT_EQ(stored.layers[0].expert.num_weights, 0);
  const double expert_weights = 3 * 256 * 128;
  EXPECT_DOUBLE_EQ(stored.layers[1].expert.num_weights, expert_weights);
  EXPECT_DOUBLE_EQ(stored.layers[1].expert.num_bytes, expert_weights * (4 + 20.0 / 64) / 8);
  EXPECT_EQ(stored.layers[1].expert.arithmetic, Arithmetic::kInt8);
  EXPECT_EQ(stored.head.arithmetic, Arithmetic::kInt8);
  EXPECT_DOUBLE_EQ(stored.embedding_row_bytes, 256 * 2);
}

TEST_F(ModelBenchTest, MeasuresEveryPhaseAndCountsTheExpertsThatWereChosen) {
  const ModelBenchOptions options{.prefill = 96, .batches = {1, 12}, .context = 20, .steps = 1, .repeat = 1};
  EngineOptions engine_options{.model = folder_, .threads = 2};
  reserve_for_bench(options, engine_options);
  const ModelFiles files = ModelFiles::open(folder_).value();
  const auto engine = RankEngine::create(engine_options, {});
  ASSERT_TRUE(engine) << engine.error().message;
  const auto figures = run_model_bench(**engine, describe_stored_model(files.config(), files.checkpoint()), options);
  ASSERT_TRUE(figures) << figures.error().message;
  ASSERT_EQ(figures->size(), 3U);
  EXPECT_EQ((*figures)[0].phase, "prefill");
  EXPECT_EQ((*figures)[0].batch, 96);
  EXPECT_GT((*figures)[0].distinct_experts, 12);
  EXPECT_EQ((*figures)[1].phase, "decode");
  EXPECT_DOUBLE_EQ((*figures)[1].distinct_experts, 2) << "one row chooses as many as it has slots";
  EXPECT_GT((*figures)[2].distinct_experts, 6);
  EXPECT_LE((*figures)[2].distinct_experts, 16) << "24 slots, but 16 experts";
  for (const Figure& figure : *figures) {
    EXPECT_GT(figure.min, 0);
    EXPECT_LE(figure.min, figure.tokens_per_s);
    EXPECT_LE(figure.tokens_per_s, figure.max);
    EXPECT_GT(figure.limits.bandwidth, 1e8);
    EXPECT_GT(figure.fraction_of_limit(), 0);
    EXPECT_GT(figure.step_bytes, 1e5);
  }
}

}  // namespace
}  // namespace cachalot
