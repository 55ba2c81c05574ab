#include "engine/memory_plan.h"

#include <fmt/ranges.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <thread>

#include "base/file.h"
#include "base/folder_test_util.h"
#include "comm/local_mesh_test_util.h"
#include "placement/balance.h"
#include "weights/model_files.h"

namespace cachalot {
namespace {

using testing::AllOf;
using testing::HasSubstr;

ParallelOptions rank_at(int dp_size, int tp_size, int rank) {
  return {.tensor_parallel_size = tp_size,
          .tensor_parallel_rank = rank % tp_size,
          .data_parallel_size = dp_size,
          .data_parallel_rank = rank / tp_size,
          .enable_expert_parallel = true};
}

RankNumbers numbers(int64_t num_blocks, int64_t max_model_len) {
  return {.num_blocks = num_blocks,
          .max_model_len = max_model_len,
          .block_size = 64,
          .cache_bytes_per_token = 640,
          .max_rows = 2048};
}

const std::vector<std::string> kNames{"rank 0 (host a)", "rank 1 (host a)", "rank 2 (host b)", "rank 3 (host b)"};

TEST(CommonPlan, HasTheFewestBlocksOfTheReplicaAndTheLeastLengthOfAll) {
  const std::vector<RankNumbers> of_ranks{numbers(281, 9000), numbers(277, 9000), numbers(300, 8000),
                                          numbers(500, 9000)};
  for (int rank = 0; rank < 4; rank++) {
    const auto common = find_common_plan(of_ranks, rank_at(2, 2, rank), kNames);
    ASSERT_TRUE(common) << common.error().message;
    EXPECT_EQ(common->num_blocks, rank < 2 ? 277 : 300);
    EXPECT_EQ(common->max_model_len, 8000);
    EXPECT_THAT(common->text, AllOf(HasSubstr(rank < 2 ? "277 KV blocks, the least of the replica's (rank 1 (host a))"
                                                       : "300 KV blocks, the least of the replica's (rank 2 (host b))"),
                                    HasSubstr("max_model_len 8000, the least of all ranks' (rank 2 (host b))")));
  }
}

TEST(CommonPlan, NamesNobodyWhereAllHaveTheSame) {
  const std::vector<RankNumbers> of_ranks(4, numbers(281, 9000));
  EXPECT_EQ(find_common_plan(of_ranks, rank_at(2, 2, 3), kNames)->text, "281 KV blocks, and max_model_len 9000");
}

TEST(CommonPlan, NamesWhatShouldBeAlikeBothNumbersAndBothRanks) {
  const auto refused = [](int64_t RankNumbers::* number) {
    std::vector<RankNumbers> of_ranks(4, numbers(100, 6400));
    of_ranks[2].*number = 7;
    std::string message;
    for (int rank = 0; rank < 4; rank++) {
      const auto common = find_common_plan(of_ranks, rank_at(1, 4, rank), kNames);
      EXPECT_FALSE(common);
      if (common) continue;
      if (rank > 0) {
        EXPECT_EQ(common.error().message, message) << "the same on all ranks";
      }
      message = common.error().message;
    }
    return message;
  };
  EXPECT_THAT(refused(&RankNumbers::cache_bytes_per_token),
              HasSubstr("KV bytes of a token: 7 on rank 2 (host b) and 640 on rank 0 (host a)"));
  EXPECT_THAT(refused(&RankNumbers::max_rows), HasSubstr("--max-num-batched-tokens): 7 on rank 2"));
  EXPECT_THAT(refused(&RankNumbers::arithmetic), HasSubstr("rotary tables and draws (a hash): 7 on rank 2 (host b)"));
  EXPECT_THAT(refused(&RankNumbers::placement_hash),
              HasSubstr("the experts' placement (a hash): 7 on rank 2 (host b)"));
  EXPECT_THAT(refused(&RankNumbers::placement_version), HasSubstr("version of the experts' placement: 7 on rank 2"));
  // Every number behind those of which the least holds, but for experts' inputs, which have a message of their own.
  for (size_t word = 3; word < sizeof(RankNumbers) / sizeof(int64_t); word++) {
    std::vector<RankNumbers> of_ranks(2, numbers(100, 6400));
    if (word == offsetof(RankNumbers, expert_inputs) / sizeof(int64_t)) continue;
    reinterpret_cast<int64_t*>(&of_ranks[1])[word]++;
    EXPECT_FALSE(find_common_plan(of_ranks, rank_at(1, 2, 0), kNames)) << word;
  }
}

TEST(CommonPlan, APlanOfAnotherFormatIsRefused) {
  std::vector<RankNumbers> of_ranks(2, numbers(100, 6400));
  of_ranks[1].format++;
  EXPECT_THAT(find_common_plan(of_ranks, rank_at(1, 2, 0), kNames).error().message,
              HasSubstr("rank 1 (host a) sent a plan of another format"));
  of_ranks[1] = numbers(0, 6400);
  EXPECT_FALSE(find_common_plan(of_ranks, rank_at(1, 2, 0), kNames));
}

std::vector<RankStanding> living(const std::vector<int>& ranks, const std::vector<RankNumbers>& of_ranks,
                                 const std::vector<int>& standing) {
  std::vector<RankStanding> standings;
  for (const int rank : ranks) {
    const auto idx = static_cast<size_t>(rank);
    standings.push_back({rank, kNames[idx], of_ranks[idx], std::ranges::find(standing, rank) != standing.end()});
  }
  return standings;
}

TEST(EpochPlan, IsTheCommonPlanOfThoseWhoLiveWhereNobodyStandsByOne) {
  const std::vector<RankNumbers> of_ranks{numbers(281, 9000), numbers(277, 7000), numbers(300, 8000),
                                          numbers(500, 9000)};
  const EpochPlan all = plan_of_epoch(living({0, 1, 2, 3}, of_ranks, {}), rank_at(2, 2, 2));
  ASSERT_TRUE(all.plan) << all.plan.error().message;
  EXPECT_EQ(all.plan->num_blocks, 300);
  EXPECT_EQ(all.plan->max_model_len, 7000);
  const EpochPlan some = plan_of_epoch(living({0, 2, 3}, of_ranks, {}), rank_at(2, 2, 3));
  ASSERT_TRUE(some.plan) << some.plan.error().message;
  EXPECT_EQ(some.plan->num_blocks, 300);
  EXPECT_EQ(some.plan->max_model_len, 8000);
  std::vector<RankNumbers> others = of_ranks;
  others[3].max_rows = 7;
  const EpochPlan refused = plan_of_epoch(living({0, 1, 2, 3}, others, {}), rank_at(2, 2, 0));
  EXPECT_EQ(refused.refused, -1) << "all";
  EXPECT_THAT(refused.plan.error().message, HasSubstr("--max-num-batched-tokens): 7 on rank 3 (host b)"));
  others = of_ranks;
  others[1].expert_inputs = 7;
  EXPECT_FALSE(plan_of_epoch(living({0, 1}, others, {}), rank_at(1, 2, 0)).plan);
}

TEST(EpochPlan, IsTakenOverByWhoComesToThoseWhoStandByOne) {
  std::vector<RankNumbers> of_ranks{numbers(281, 7000), numbers(277, 9000), numbers(300, 7000), numbers(500, 9000)};
  const EpochPlan beside = plan_of_epoch(living({0, 2, 3}, of_ranks, {0, 2}), rank_at(2, 2, 3));
  ASSERT_TRUE(beside.plan) << beside.plan.error().message;
  EXPECT_EQ(beside.plan->num_blocks, 300) << "its replica's";
  EXPECT_EQ(beside.plan->max_model_len, 7000);
  std::vector<RankNumbers> others = of_ranks;
  others[1] = others[0];
  const EpochPlan whole = plan_of_epoch(living({0, 1, 2, 3}, others, {0, 1}), rank_at(2, 2, 3));
  ASSERT_TRUE(whole.plan) << whole.plan.error().message;
  EXPECT_EQ(whole.plan->num_blocks, 300) << "the least of a replica that is new";
  // Too little memory, for its replica's blocks or for the group's length; the others go on without it.
  for (int rank = 0; rank < 4; rank++) {
    const EpochPlan refused = plan_of_epoch(living({0, 1, 2, 3}, of_ranks, {0, 2, 3}), rank_at(2, 2, rank));
    EXPECT_EQ(refused.refused, 1);
    EXPECT_EQ(
        refused.plan.error().message,
        "rank 1 (host a) has memory for 277 KV blocks and sequences of 9000 tokens; its group stands by 281 and 7000");
  }
  of_ranks[1] = numbers(500, 6000);
  EXPECT_EQ(plan_of_epoch(living({0, 1, 2, 3}, of_ranks, {0, 2, 3}), rank_at(2, 2, 0)).refused, 1);
  of_ranks[1] = numbers(500, 9000);
  of_ranks[1].identity = 7;
  const EpochPlan other = plan_of_epoch(living({0, 1, 2, 3}, of_ranks, {0, 2, 3}), rank_at(2, 2, 0));
  EXPECT_EQ(other.refused, 1);
  EXPECT_THAT(other.plan.error().message, HasSubstr("files of the model and settings (a hash): 7 on rank 1 (host a)"));
}

TEST(CommonPlan, IsFoundByAskingAllRanks) {
  const auto meshes = make_local_mesh(4).value();
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < 4; rank++) {
    threads.emplace_back([&, rank] {
      const auto common = agree_on_plan(*meshes[static_cast<size_t>(rank)], rank_at(2, 2, rank),
                                        numbers(100 - rank, 6400 + rank), ModelMemory());
      ASSERT_TRUE(common) << common.error().message;
      EXPECT_EQ(common->num_blocks, rank < 2 ? 99 : 97);
      EXPECT_EQ(common->max_model_len, 6400);
    });
  }
}

// Of a model with YaRN, as R1's and as the built-in one's: on every machine, by every compiler.
TEST(CommonPlan, TheArithmeticIsTheSameOnEveryMachine) {
  const auto nano = load_model_config(CACHALOT_SOURCE_DIR "/models/nano");
  const auto r1 = load_model_config(CACHALOT_SOURCE_DIR "/tests/data/golden/r1-bf16");
  ASSERT_TRUE(nano && r1 && r1->yarn);
  EXPECT_EQ(arithmetic_hash(*nano), 887214717548433);
  EXPECT_EQ(arithmetic_hash(*r1), 3311955895559589);
}

TEST(PlanPlacement, IsAsTheFileSaysOrByALoadOrEven) {
  const TestFolder folder;
  const ModelConfig config =
      load_model_config(CACHALOT_SOURCE_DIR "/tests/data/golden/k2-ct-int4").value();  // 24 experts
  const ExpertPlacement::Shape shape = placement_shape(config, 5);
  ParallelOptions parallel = rank_at(5, 1, 3);
  EXPECT_EQ(plan_placement(parallel, config, 1).value()->hash(), even_placement(shape).hash());

  ExpertLoad load = ExpertLoad::uniform(shape.num_layers, shape.num_experts);
  for (std::vector<double>& layer : load.layers) layer[17] = 20;
  const ExpertPlacement by_load = balanced_placement(load, {.num_ranks = 5, .num_redundant = 6}, 1).value();
  std::string text = "{\"layers\": [";
  for (const std::vector<double>& layer : load.layers)
    text += fmt::format("{}[{}]", text.ends_with('[') ? "" : ",", fmt::join(layer, ","));
  parallel.expert_load = folder.path("load.json");
  ASSERT_TRUE(write_file(parallel.expert_load, text + "]}"));
  parallel.eplb.num_redundant_experts = 6;
  const SharedPlacement planned = plan_placement(parallel, config, 1).value();
  EXPECT_EQ(planned->hash(), by_load.hash());
  int num_copies = 0;
  for (int rank = 0; rank < 5; rank++) num_copies += static_cast<int>(std::ranges::count(planned->slots(0, rank), 17));
  EXPECT_GE(num_copies, 3);

  parallel.expert_load.clear();
  parallel.eplb.num_redundant_experts = 0;
  parallel.expert_placement = folder.path("placement.json");
  ASSERT_TRUE(write_file(parallel.expert_placement, by_load.to_json()));
  EXPECT_EQ(plan_placement(parallel, config, 1).value()->hash(), by_load.hash());
}

TEST(PlanPlacement, RefusesWhatIsNotOfThisModelAndLayoutByTheFlag) {
  const TestFolder folder;
  const ModelConfig config = load_model_config(CACHALOT_SOURCE_DIR "/tests/data/golden/k2-ct-int4").value();
  const auto refusal = [&](const ParallelOptions& parallel) {
    const auto planned = plan_placement(parallel, config, 1);
    return planned ? Error{} : planned.error();
  };
  ParallelOptions parallel = rank_at(4, 1, 0);
  parallel.expert_placement = folder.path("placement.json");
  ASSERT_TRUE(write_file(parallel.expert_placement, even_placement(placement_shape(config, 5)).to_json()));
  EXPECT_THAT(refusal(parallel).message,
              AllOf(HasSubstr("--expert-placement"), HasSubstr("on 5 ranks; the model and"), HasSubstr("24 on 4")));
  EXPECT_EQ(refusal(parallel).parameter, "--expert-placement");
  parallel.eplb.num_redundant_experts = 2;
  EXPECT_THAT(refusal(parallel).message, HasSubstr("a placement says all"));
  parallel.expert_placement.clear();
  parallel.enable_expert_parallel = false;
  EXPECT_THAT(refusal(parallel).message, HasSubstr("--eplb-config: experts are placed with --enable-expert-parallel"));
  parallel = rank_at(4, 1, 0);
  parallel.expert_load = folder.path("load.json");
  ASSERT_TRUE(write_file(parallel.expert_load, R"({"layers": [[1, 2]]})"));
  EXPECT_THAT(refusal(parallel).message, AllOf(HasSubstr("--expert-load"), HasSubstr("2 experts")));
}

TEST(PlanPlacement, RefusesToMoveExpertsThatAreNotPlacedAndSaysWhy) {
  const ModelConfig config = load_model_config(CACHALOT_SOURCE_DIR "/tests/data/golden/k2-ct-int4").value();
  ParallelOptions parallel = rank_at(4, 1, 0);
  parallel.enable_expert_parallel = false;
  parallel.eplb.enabled = true;
  const auto planned = plan_placement(parallel, config, 1);
  ASSERT_FALSE(planned);
  EXPECT_THAT(planned.error().message,
              HasSubstr("--enable-eplb: experts are placed with --enable-expert-parallel; else each rank has a part"));
  EXPECT_EQ(planned.error().parameter, "--enable-eplb");
  for (const Survive what : {Survive::kRank, Survive::kServer, Survive::kNode}) {
    const auto survival = survival_of(what, parallel, config, 2);
    ASSERT_FALSE(survival);
    EXPECT_THAT(survival.error().message, HasSubstr("with --enable-expert-parallel"));
    EXPECT_EQ(survival.error().parameter, "--survive");
  }
  EXPECT_EQ(survival_of(Survive::kAuto, parallel, config, 2)->num_spare, 0);
  EXPECT_TRUE(survival_choices(parallel, config).empty());
}

// 24 experts, 8 ranks: 3 each; of 7 ranks 4, of 4 ranks 6.
TEST(Survival, KeepsRoomForTheExpertsOfARankAServerOrANodeAsFarAsTheKvCacheCanSpareIt) {
  const ModelConfig config = load_model_config(CACHALOT_SOURCE_DIR "/tests/data/golden/k2-ct-int4").value();
  const ModelFiles files = ModelFiles::open(CACHALOT_SOURCE_DIR "/tests/data/golden/k2-ct-int4").value();
  const ParallelOptions parallel = rank_at(4, 2, 0);
  EXPECT_EQ(survival_of(Survive::kRank, parallel, config, 4)->num_spare, 1);
  EXPECT_EQ(survival_of(Survive::kServer, parallel, config, 4)->num_spare, 1);
  EXPECT_EQ(survival_of(Survive::kNode, parallel, config, 4)->num_spare, 3);
  EXPECT_THAT(survival_of(Survive::kNode, parallel, config, 8).error().message, HasSubstr("none would be left"));
  EXPECT_EQ(plan_placement(parallel, config, 2, 3).value()->most_slots(), 6);

  EngineOptions options;
  options.max_model_len = 4096;
  const RankMemory without = plan_rank_memory(options, parallel, config, files, {}).value();
  const auto affordable = [&](size_t node_bytes) {
    return affordable_survival(options, parallel, config, without, {node_bytes, "a test"}, 1).what;
  };
  EXPECT_EQ(affordable(size_t{64} << 30), Survive::kServer);
  const size_t slots = bytes_of_slots(without, static_cast<double>(placement_shape(config, 8).num_layers));
  const size_t tight = without.fixed_bytes() + 5 * slots;  // a tenth of what is left is less than the slots take
  EXPECT_EQ(affordable(static_cast<size_t>(static_cast<double>(tight) / options.gpu_memory_utilization)),
            Survive::kNone);
  ParallelOptions by_file = parallel;
  by_file.expert_placement = "placement.json";
  EXPECT_TRUE(survival_choices(by_file, config).empty()) << "a placement says all";
}

// Rows would travel in a form that the other rank does not read.
TEST(CommonPlan, NamesExpertsThatAreQuantizedOtherwiseOnAnotherRank) {
  ModelConfig config = load_model_config(CACHALOT_SOURCE_DIR "/tests/data/golden/k2-ct-int4").value();
  const auto meshes = make_local_mesh(2).value();
  const auto agree = [&](int rank) -> std::string {
    const PlannedWeights weights(config, target_of(config.quantization), "config.json");
    const auto memory = plan_rank_memory({.max_model_len = 64}, rank_at(2, 1, rank), config, weights, {});
    if (!memory) return memory.error().message;
    const auto common =
        agree_on_plan(*meshes[static_cast<size_t>(rank)], rank_at(2, 1, rank), numbers(100, 6400), memory->model);
    return common ? "no error" : common.error().message;
  };
  const auto messages = [&] {
    std::array<std::string, 2> of_ranks;
    {
      const std::jthread other([&] { of_ranks[1] = agree(1); });
      of_ranks[0] = agree(0);
    }
    return of_ranks;
  };
  EXPECT_THAT(messages(), testing::Each("no error"));
  config.quantization.ignore.emplace_back("re:.*layers\\.2\\.mlp\\.experts\\.(1[2-9]|2[0-3])\\.");
  EXPECT_THAT(messages(), testing::Each(AllOf(HasSubstr("model.layers.2.mlp.experts.0: gate_proj and up_proj take int8 "
                                                        "rows, 32 values a scale on rank 0"),
                                              HasSubstr("those of experts.12 rows of floats on rank 1"))));
  // On one rank.
  config.quantization.ignore.back() = "re:.*layers\\.1\\.mlp\\.experts\\.5\\.";
  const PlannedWeights weights(config, target_of(config.quantization), "config.json");
  EXPECT_THAT(
      plan_rank_memory({.max_model_len = 64}, {}, config, weights, {}).error().message,
      HasSubstr("model.layers.1.mlp.experts.0: gate_proj and up_proj take int8 rows, 32 values a scale, those of "
                "experts.5 rows of floats; rows go to all experts"));
}

TEST(MemoryPlan, BytesOfTheCacheTakeThePlaceOfAShareOfTheMemory) {
  RankMemory rank;
  rank.logits_bytes = 1'000'000;
  rank.model.cache_bytes = {60, 40};
  const MemoryInfo node{.total_bytes = 11'000'000};
  const auto plan = [&](int64_t cache_bytes) {
    return plan_memory(
        {.max_model_len = 64, .block_size = 64, .gpu_memory_utilization = 0.1, .kv_cache_memory_bytes = cache_bytes},
        {}, rank, node, 1);
  };
  ASSERT_TRUE(plan(640'000)) << plan(640'000).error().message;
  EXPECT_EQ(plan(640'000)->num_blocks, 100);
  EXPECT_EQ(plan(646'399)->cache_bytes, 640'000U) << "whole blocks";
  EXPECT_EQ(plan(10'000'000)->num_blocks, 1562) << "all of the memory, though its share is a tenth";
  for (const int64_t wrong : {int64_t{1}, int64_t{6'399}, int64_t{10'000'001}, std::numeric_limits<int64_t>::max()}) {
    ASSERT_FALSE(plan(wrong)) << wrong;
    EXPECT_EQ(plan(wrong).error().parameter, "--kv-cache-memory-bytes");
    EXPECT_THAT(plan(wrong).error().message,
                testing::HasSubstr(std::to_string(wrong) + ": one KV block takes 6400 bytes, and 10000000 are there"));
  }
}

}  // namespace

}  // namespace cachalot
