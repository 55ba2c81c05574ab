// `check --plan` against ranks that really run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "golden_cases.h"
#include "model/deepseek.h"
#include "preflight/step_traffic.h"
#include "processes/logits_run.h"
#include "processes/program.h"

namespace cachalot::test {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;

std::string folder_of(const std::string& model) {
  return model.starts_with("nano") ? CACHALOT_SOURCE_DIR "/models/" + model : golden_folder(model);
}

struct PlanAnswer {
  std::optional<int> status;
  std::string output;
  boost::json::value json;
};

PlanAnswer run_plan(std::vector<std::string> flags) {
  const ScratchFolder folder;
  const std::string path = folder / "plan.json";
  flags.insert(flags.begin(), {"check", "--plan", "--json", path});
  Program program(flags);
  PlanAnswer answer;
  answer.status = program.wait(std::chrono::seconds(30));
  EXPECT_TRUE(program.wait_for_silence(std::chrono::seconds(5)));
  answer.output = program.output();
  if (const Result<std::string> text = read_file(path)) answer.json = boost::json::parse(*text);
  return answer;
}

std::vector<std::string> layout_flags(const Layout& layout) {
  std::vector<std::string> flags{"--data-parallel-size", std::to_string(layout.dp_size), "--tensor-parallel-size",
                                 std::to_string(layout.tp_size)};
  if (layout.expert_parallel) flags.emplace_back("--enable-expert-parallel");
  return flags;
}

struct Param {
  std::string model, dtype;
  Layout layout;
};

class Plan : public testing::TestWithParam<Param> {};

TEST_P(Plan, OfConfigJsonAloneNamesTheWeightBytesThatEachRankHolds) {
  const auto& [model, dtype, layout] = GetParam();
  const LogitsAnswer answer =
      run_logits({.model = folder_of(model), .layout = layout, .tokens = {0, 5, 9}, .dtype = dtype});
  std::vector<std::string> flags = layout_flags(layout);
  flags.insert(flags.end(), {"--model", folder_of(model) + "/config.json", "--dtype", dtype});
  const PlanAnswer plan = run_plan(flags);
  ASSERT_EQ(plan.status, 0) << plan.output;
  const boost::json::array& planned = plan.json.at("ranks").as_array();
  ASSERT_EQ(std::ssize(planned), layout.num_ranks());
  ASSERT_GE(std::ssize(answer.ranks), layout.tp_size);
  for (size_t rank = 0; rank < answer.ranks.size(); rank++) {
    EXPECT_EQ(planned[rank].at("weight_bytes").to_number<uint64_t>(),
              answer.ranks[rank].at("weight_bytes").to_number<uint64_t>())
        << "rank " << rank;
    uint64_t sum = 0;
    for (const auto& [kind, bytes] : planned[rank].at("weights").as_object()) sum += bytes.to_number<uint64_t>();
    EXPECT_EQ(sum, planned[rank].at("weight_bytes").to_number<uint64_t>());
  }
}

std::string param_name(const testing::TestParamInfo<Param>& info) {
  const auto& [model, dtype, layout] = info.param;
  std::string name = fmt::format("{}_{}_dp{}_tp{}{}", model, dtype, layout.dp_size, layout.tp_size,
                                 layout.expert_parallel ? "" : "_noep");
  std::ranges::replace(name, '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Models, Plan,
                         testing::Values(Param{"r1-bf16", "bfloat16", {1, 1}}, Param{"r1-bf16", "float32", {2, 2}},
                                         Param{"r1-fp8", "bfloat16", {2, 2}},
                                         Param{"r1-fp8", "bfloat16", {1, 4, false}},
                                         Param{"r1-awq", "bfloat16", {4, 1}},
                                         Param{"r1-awq", "bfloat16", {1, 4, false}},
                                         Param{"v2lite-bf16", "bfloat16", {1, 2}}, Param{"nano", "bfloat16", {2, 2}},
                                         Param{"nano-awq", "bfloat16", {1, 1}}, Param{"nano-awq", "bfloat16", {1, 4}},
                                         Param{"nano-awq", "float32", {2, 2, false}},
                                         Param{"v32-fp8", "bfloat16", {1, 2}}, Param{"glm52-bf16", "float32", {2, 2}}),
                         param_name);

// What the ranks of a replica say that they sent for one step of a prompt, beside the estimate.
void expect_traffic(const std::string& model, const Layout& layout, double tolerance) {
  const std::string folder = folder_of(model);
  const std::vector<TokenId> tokens = load_golden_cases(model).back().tokens;
  const LogitsAnswer answer = run_logits({.model = folder, .layout = layout, .tokens = tokens});
  double sent = 0;
  for (const boost::json::value& rank : answer.ranks) sent += rank.at("bytes").at("shm").to_number<double>();
  const auto config = load_model_config(folder);
  ASSERT_TRUE(config);
  const auto num_tokens = std::ssize(tokens);
  // Replica 0 alone brings rows, so that a layout of replicas moves what one would that had a rank of each other one.
  const ModelSettings settings{.compute_dtype = DType::kF32,
                               .tp_size = layout.tp_size,
                               .ep_size = layout.expert_parallel ? layout.num_ranks() : 1,
                               .placement = even_placement(*config, layout.expert_parallel ? layout.num_ranks() : 1)};
  const StepTraffic traffic = step_traffic(*config, settings, {.dp_size = layout.dp_size, .tp_size = layout.tp_size}, 0,
                                           {.rows_per_replica = num_tokens, .logit_rows_per_replica = num_tokens});
  const double estimate = traffic.sum(&OperationTraffic::total_bytes);
  EXPECT_GE(sent, (1 - tolerance) * estimate);
  EXPECT_LE(sent, (1 + tolerance) * estimate + 20'000) << "rounds, agreements and messages' own headers";
}

TEST(PlanOfTraffic, IsWhatTensorParallelRanksSend) {
  expect_traffic("r1-bf16", {1, 2, false}, 0.01);
  expect_traffic("v2lite-bf16", {1, 4, false}, 0.01);
  expect_traffic("glm52-bf16", {1, 2, false}, 0.01);
}

TEST(PlanOfTraffic, IsAboutWhatRanksWithExpertsSend) {
  expect_traffic("r1-bf16", {1, 4}, 0.1);  // a random model's tokens do not choose all experts alike
}

TEST(PlanProgram, RefusesWhatDoesNotDivideWithTheNumbers) {
  const std::string config = CACHALOT_SOURCE_DIR "/tests/data/configs/deepseek-r1.json";
  const auto refused = [&](std::vector<std::string> flags) {
    flags.insert(flags.end(), {"--model", config});
    const PlanAnswer answer = run_plan(flags);
    EXPECT_EQ(answer.status, 1);
    return answer.output;
  };
  EXPECT_THAT(refused({"-t", "3"}), HasSubstr("128 attention heads cannot be shared out evenly over 3"));
  EXPECT_THAT(refused({"--data-parallel-size", "4", "--enable-expert-parallel", "--nodes", "3"}),
              HasSubstr("4 ranks, which 3 nodes (--nodes) cannot share"));
  EXPECT_THAT(refused({"--quantization", "awq", "--group-size", "48"}), HasSubstr("multiple of 32"));
  EXPECT_THAT(refused({"--node-memory", "64G"}), HasSubstr("more than the 58982.4 MiB"));
}

TEST(PlanProgram, IsForAModelAndNotForAClusterFile) {
  EXPECT_THAT(run_plan({}).output, HasSubstr("--model must name a folder or its config.json"));
  EXPECT_THAT(run_plan({"cluster.yaml", "--model", "m"}).output, HasSubstr("no cluster file"));
  Program program({"check", "--model", "m"});
  EXPECT_EQ(program.wait(std::chrono::seconds(10)), 1);
  EXPECT_THAT(program.output(), HasSubstr("are for --plan"));
}

// The guide's layout: its flags as they are.
TEST(PlanProgram, PlansTheRealR1On32Ranks) {
  const auto plan = [&](const char* quantization, const char* survive) {
    PlanAnswer answer =
        run_plan({"--model", CACHALOT_SOURCE_DIR "/tests/data/configs/deepseek-r1.json", "--quantization", quantization,
                  "--tensor-parallel-size=4", "--data-parallel-size", "8", "--enable-expert-parallel", "--nodes", "4",
                  "--max-model-len=2048", "--gpu-memory-utilization=0.8", "--trust-remote-code", "--dtype", "bfloat16",
                  "--node-memory", "512G", "--survive", survive});
    EXPECT_EQ(answer.status, 0) << answer.output;
    return answer;
  };
  const PlanAnswer awq = plan("moe_wna16_gcu", "none"), fp8 = plan("fp8", "none"), safe = plan("awq", "auto");
  EXPECT_THAT(safe.output, HasSubstr("  rank       1 of 32: 1 a layer, 1.3 GiB a rank, "));
  EXPECT_THAT(safe.output,
              ContainsRegex("server     4 of 32: 2 a layer, 2.6 GiB a rank, .* KV blocks beside .* <- planned"));
  EXPECT_THAT(awq.output, HasSubstr("  none       0 of 32  <- planned"));
  EXPECT_EQ(safe.json.at("survive").at("spare_slots_of_a_layer").as_int64(), 2);
  EXPECT_THAT(awq.output, HasSubstr("8 x 4 = 32 ranks (data x tensor parallel), 4 nodes of 8 each"));
  EXPECT_THAT(awq.output, HasSubstr("256 experts over 32 ranks"));
  EXPECT_THAT(awq.output, HasSubstr("embedding"));
  EXPECT_THAT(awq.output, HasSubstr("After the loss of a replica 32 of its answers, computed again by the 7 others"));
  // 61 layers of 512 + 64 bf16 numbers.
  EXPECT_EQ(awq.json.at("cache_bytes_per_token").to_number<int>(), 70'272);
  // 671 billion weights, and 11.5 of the multi-token-prediction layer: 8 bits each, and their scales.
  EXPECT_NEAR(fp8.json.at("file_bytes").to_number<double>(), 688e9, 3e9);
  const auto bytes = [](const PlanAnswer& answer, const char* kind) {
    return answer.json.at("ranks").at(31).at("weights").at(kind).to_number<double>();
  };
  // 8 experts of 3 x 7168 x 2048 weights in each of 58 layers.
  constexpr double kExpertWeights = 8.0 * 3 * 7168 * 2048 * 58;
  EXPECT_NEAR(bytes(awq, "experts") / kExpertWeights, 552.0 / 1024, 1e-3);
  EXPECT_NEAR(bytes(fp8, "experts") / kExpertWeights, 2112.0 / 2048, 1e-3);
}

TEST(PlanProgram, PlansEveryModelWithTheShapesOfItsRealConfig) {
  struct Model {
    const char *name, *tp_size;
    int cache_bytes;  // a token
  };
  for (const Model& model :
       {Model{"deepseek-v2-lite", "4", 27 * 1152}, Model{"moonlight", "4", 27 * 1152}, Model{"kimi-k2", "8", 61 * 1152},
        Model{"kimi-k2-thinking", "8", 61 * 1152}, Model{"kimi-k2.5", "8", 61 * 1152},
        Model{"glm-4.7-flash", "4", 47 * 1152}, Model{"glm-5.1", "8", 78 * (1152 + 256)}}) {
    const PlanAnswer plan =
        run_plan({"--model", fmt::format("{}/tests/data/configs/{}.json", CACHALOT_SOURCE_DIR, model.name),
                  "--tensor-parallel-size", model.tp_size, "--enable-expert-parallel", "--max-model-len", "8192"});
    EXPECT_EQ(plan.status, 0) << plan.output;
    EXPECT_EQ(plan.json.at("cache_bytes_per_token").to_number<int>(), model.cache_bytes) << model.name;
    EXPECT_THAT(plan.output, testing::Not(HasSubstr("not known here"))) << model.name;
  }
}

TEST(PlanProgram, SharesExpertsOutThatRanksDoNotDivide) {
  const PlanAnswer plan = run_plan({"--model", CACHALOT_SOURCE_DIR "/tests/data/configs/deepseek-r1.json",
                                    "--quantization", "awq", "--data-parallel-size", "31", "--enable-expert-parallel"});
  ASSERT_EQ(plan.status, 0) << plan.output;
  EXPECT_THAT(plan.output, HasSubstr("256 experts over 31 ranks in 256 slots of a layer, 8 to 9 a rank"));
  // 58 layers of 256: ranks have one expert more in some of them, all in as many, so that none needs much more memory.
  int64_t all = 0, most = 0;
  for (const boost::json::value& rank : plan.json.at("ranks").as_array()) {
    all += rank.at("expert_slots").as_int64();
    most = std::max(most, rank.at("expert_slots").as_int64());
  }
  EXPECT_EQ(all, 58 * 256);
  EXPECT_LE(most, 58 * 256 / 31 + 2);
  EXPECT_EQ(plan.json.at("placement").at("layers").as_array().size(), 58u);
}

// Models with an indexer: two kinds of cache tensors, of which a step reads all keys and few latents.
TEST(PlanProgram, CountsBothKindsOfCacheOfSparseAttention) {
  const auto plan = [&](const char* model, const char* tp_size, const char* context) {
    PlanAnswer answer = run_plan({"--model", fmt::format("{}/tests/data/configs/{}.json", CACHALOT_SOURCE_DIR, model),
                                  "--tensor-parallel-size", tp_size, "--data-parallel-size", "8",
                                  "--enable-expert-parallel", "--nodes", "8", "--node-memory", "2T", "--max-model-len",
                                  context, "--decode-batch", "1", "--decode-context", context});
    EXPECT_EQ(answer.status, 0) << answer.output;
    return answer;
  };
  // 61 layers of 512 + 64 bf16 numbers, and 61 of 128.
  const PlanAnswer v32 = plan("deepseek-v3.2", "4", "131072"), r1 = plan("deepseek-r1", "4", "131072");
  EXPECT_EQ(v32.json.at("cache_bytes_per_token").to_number<int>(), 70'272 + 15'616);
  EXPECT_THAT(v32.output, HasSubstr("85888 bytes a token (latents 70272, indexer keys 15616)"));
  const auto read_bytes = [](const PlanAnswer& answer) {
    return answer.json.at("decode").at("rank_reads_bytes").to_number<double>();
  };
  const double indexer_weights = v32.json.at("ranks").at(0).at("weights").at("indexer").to_number<double>();
  EXPECT_NEAR(read_bytes(r1) - read_bytes(v32), 131072.0 * (70'272 - 15'616) - 2048.0 * 70'272 - indexer_weights, 1e6);
  // 78 layers of latents, 21 of keys: a million tokens are 93 GiB.
  const PlanAnswer glm = plan("glm-5.2", "8", "1048576");
  EXPECT_EQ(glm.json.at("cache_bytes_per_token").to_number<int>(), 89'856 + 5'376);
  EXPECT_THAT(glm.output, HasSubstr("1 request of 1048576 tokens: 93.0 GiB of KV cache"));
}

}  // namespace
}  // namespace cachalot::test
