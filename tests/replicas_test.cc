// Random requests to random layouts of replicas, against one rank alone: whole replicas with their schedulers, in step
// with each other, as threads of this process.
#include <gtest/gtest.h>

#include <future>
#include <random>
#include <thread>

#include "base/log.h"
#include "comm/local_mesh_test_util.h"
#include "engine/participate.h"
#include "scheduler/scheduler.h"
#include "serve/replica.h"

namespace cachalot {
namespace {

const std::string kGolden = std::string(CACHALOT_SOURCE_DIR) + "/tests/data/golden/", kModel = kGolden + "r1-awq";
const std::string kModels[] = {"r1-awq", "v32-fp8", "glm52-bf16"};  // dense; sparse; that layers share

struct Answer {
  std::vector<TokenId> tokens;
  std::vector<float> logprobs;
  FinishReason finish = FinishReason::kNone;
  std::string error;
};

// Replicas of a layout, the other ranks of each beside it.
class Replicas {
 public:
  // blocks_of: of each rank, where they differ.
  Replicas(int dp_size, int tp_size, EngineOptions options, const std::vector<int>& blocks_of = {},
           const EplbOptions& eplb = {}) {
    options.threads = 1;
    log::init("warning", "");  // not the memory plan of every rank
    const int num_ranks = dp_size * tp_size;
    meshes_ = make_local_mesh(num_ranks, {.deadline = std::chrono::seconds(60)}).value();
    std::vector<std::future<Result<std::unique_ptr<RankEngine>>>> loading;
    for (int rank = 0; rank < num_ranks; rank++) {
      if (!blocks_of.empty()) options.num_gpu_blocks_override = blocks_of[static_cast<size_t>(rank)];
      const ParallelOptions parallel{.tensor_parallel_size = tp_size,
                                     .tensor_parallel_rank = rank % tp_size,
                                     .data_parallel_size = dp_size,
                                     .data_parallel_rank = rank / tp_size,
                                     .enable_expert_parallel = true,
                                     .eplb = eplb};
      const Placement placement{.parallel = parallel,
                                .mesh = meshes_[static_cast<size_t>(rank)].get(),
                                .num_local_ranks = num_ranks,
                                .threads = {.num_threads = 1, .cores = {}, .spin_microseconds = 0},
                                .isa = detect_isa(),
                                .on_activity = {}};
      loading.push_back(std::async(std::launch::async, [=] { return RankEngine::create(options, placement, {}); }));
    }
    for (auto& loaded : loading) {
      auto engine = loaded.get();
      CHECK(engine, "{}", engine.error().message);
      memory_.push_back((*engine)->memory());
      if ((*engine)->placement().parallel.is_leader()) {
        const MemoryPlan& memory = memory_.back();
        const SchedulerOptions scheduler = make_scheduler_options(options, memory.num_blocks, memory.max_model_len);
        leaders_.push_back(std::make_unique<Replica>(std::move(*engine), scheduler, metrics_));
      } else {
        followers_.emplace_back([engine = std::move(*engine)] {
          const Status followed = follow_leader(*engine, [](RankEngine&) {});
          EXPECT_TRUE(followed) << followed.error().message;
        });
      }
    }
  }
  ~Replicas() {
    // Together: each waits for the others' word.
    std::vector<std::thread> leaving;
    for (auto& leader : leaders_)
      leaving.emplace_back([&] { leader->leave(std::chrono::steady_clock::now() + std::chrono::seconds(30)); });
    for (std::thread& thread : leaving) thread.join();
    for (std::thread& follower : followers_) follower.join();
    leaders_.clear();
  }

  std::future<Answer> ask(size_t replica, const Request& request) {
    auto answer = std::make_shared<Answer>();
    auto promise = std::make_shared<std::promise<Answer>>();
    Request copy;
    copy.id = request.id;
    copy.tokens = request.tokens;
    copy.num_prompt_tokens = request.num_prompt_tokens;
    copy.sampling = request.sampling;
    const Status submitted = leaders_[replica]->submit(std::move(copy), [=](const RequestOutput& output) {
      for (const SampledToken& token : output.tokens) {
        answer->tokens.push_back(token.token);
        answer->logprobs.push_back(token.logprob);
      }
      answer->finish = output.finish;
      answer->error = output.error;
      if (output.finish != FinishReason::kNone) promise->set_value(*answer);
    });
    CHECK(submitted, "{}", submitted.error().message);
    return promise->get_future();
  }
  RankReport report(size_t replica) const { return leaders_[replica]->report(); }
  const MemoryPlan& memory(int rank) const { return memory_[static_cast<size_t>(rank)]; }

 private:
  std::vector<std::unique_ptr<Mesh>> meshes_;
  std::vector<MemoryPlan> memory_;  // of each rank
  Metrics metrics_{{.model_name = "test"}};
  std::vector<std::unique_ptr<Replica>> leaders_;
  std::vector<std::thread> followers_;
};

std::vector<Request> random_requests(std::mt19937& random, int vocab_size) {
  std::vector<Request> requests(1 + random() % 6);
  for (size_t idx = 0; idx < requests.size(); idx++) {
    Request& request = requests[idx];
    request.id = idx + 1;
    request.tokens.resize(1 + random() % 60);
    for (TokenId& token : request.tokens) token = static_cast<TokenId>(random() % static_cast<unsigned>(vocab_size));
    request.num_prompt_tokens = static_cast<int>(request.tokens.size());
    request.sampling.temperature = random() % 2 ? 0.f : 0.8f;
    request.sampling.seed = random();
    request.sampling.max_tokens = 1 + static_cast<int>(random() % 16);
    request.sampling.num_logprobs = 0;
  }
  return requests;
}

class RandomLayouts : public testing::TestWithParam<int> {};

TEST_P(RandomLayouts, AnswerAsOneRankDoes) {
  std::mt19937 random(static_cast<unsigned>(GetParam()) * 7919 + 1);
  const std::pair<int, int> layouts[] = {{2, 1}, {4, 1}, {8, 1}, {1, 2}, {1, 4}, {2, 2}, {4, 2}, {2, 4}};
  for (int schedule = 0; schedule < 10; schedule++) {
    const auto [dp_size, tp_size] = layouts[random() % std::size(layouts)];
    EngineOptions options{.model = kGolden + kModels[schedule % 3]};
    // Sums over tensor-parallel ranks round otherwise, so that bfloat16's tokens may differ.
    options.dtype = tp_size > 1 ? DTypeOption::kFloat32 : DTypeOption::kBFloat16;
    options.max_model_len = 80;
    options.block_size = 8;
    options.num_gpu_blocks_override = 12 + static_cast<int>(random() % 20);  // few, so that sequences are preempted
    options.max_num_batched_tokens = 8 << random() % 4;
    options.max_num_seqs = 1 + static_cast<int>(random() % 6);
    options.num_scheduler_steps = 1 << random() % 4;
    const std::string what = fmt::format("schedule {}: {}, DP {} x TP {}, {} steps a round, {} tokens a step", schedule,
                                         kModels[schedule % 3], dp_size, tp_size, options.num_scheduler_steps,
                                         options.max_num_batched_tokens);
    const std::vector<Request> requests = random_requests(random, 256);

    std::vector<Answer> expected;
    {
      Replicas alone(1, 1, options);
      for (const Request& request : requests) expected.push_back(alone.ask(0, request).get());
    }
    Replicas replicas(dp_size, tp_size, options);
    std::vector<std::future<Answer>> answers;
    for (const Request& request : requests) {
      answers.push_back(replicas.ask(random() % static_cast<unsigned>(dp_size), request));
      if (random() % 3 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(random() % 5));
    }
    for (size_t idx = 0; idx < answers.size(); idx++) {
      const Answer answer = answers[idx].get();
      EXPECT_EQ(answer.error, "") << what;
      EXPECT_EQ(answer.finish, expected[idx].finish) << what;
      EXPECT_EQ(answer.tokens, expected[idx].tokens) << what << ", request " << idx;
      if (tp_size == 1) {
        EXPECT_EQ(answer.logprobs, expected[idx].logprobs) << what << ", request " << idx << ": to the bit";
      }
    }
  }
}

// Experts move all the time: each look at the load is a look at a few steps, and every round may be another
// placement's.
TEST(Replicas, AnswerAsOneRankDoesWhileTheirExpertsMove) {
  std::mt19937 random(17);
  for (const auto& [dp_size, tp_size] : {std::pair{2, 1}, {4, 1}, {1, 2}, {2, 2}, {3, 1}}) {
    const std::string what = fmt::format("DP {} x TP {}", dp_size, tp_size);
    EngineOptions options{.model = kModel};
    options.dtype = tp_size > 1 ? DTypeOption::kFloat32 : DTypeOption::kBFloat16;
    options.max_model_len = 120;
    options.block_size = 8;
    options.num_gpu_blocks_override = 64;
    options.num_scheduler_steps = dp_size;
    std::vector<Request> requests = random_requests(random, 256);
    while (requests.size() < 8) requests.push_back(std::move(random_requests(random, 256).front()));
    for (size_t idx = 0; idx < requests.size(); idx++) {
      requests[idx].id = idx + 1;
      requests[idx].sampling.max_tokens = 40;
    }
    std::vector<Answer> expected;
    {
      Replicas alone(1, 1, options);
      for (const Request& request : requests) expected.push_back(alone.ask(0, request).get());
    }
    const EplbOptions eplb{.enabled = true,
                           .num_redundant_experts = 4,
                           .window_size = 3,
                           .step_interval = 1,
                           .log_balancedness = true,
                           .pace = 1};
    Replicas replicas(dp_size, tp_size, options, {}, eplb);
    // Experts are brought by threads beside the steps, at their own pace.
    for (int turn = 0; turn < 200 && replicas.report(0).placement_switches < 3; turn++) {
      std::vector<std::future<Answer>> answers;
      for (const Request& request : requests)
        answers.push_back(replicas.ask(random() % static_cast<unsigned>(dp_size), request));
      for (size_t idx = 0; idx < answers.size(); idx++) {
        const Answer answer = answers[idx].get();
        EXPECT_EQ(answer.error, "") << what;
        EXPECT_EQ(answer.tokens, expected[idx].tokens) << what << ", request " << idx;
        if (tp_size == 1) {
          EXPECT_EQ(answer.logprobs, expected[idx].logprobs) << what << ", request " << idx << ": to the bit";
        }
      }
    }
    const RankReport report = replicas.report(0);
    EXPECT_GE(report.placement_switches, 3U) << what;
    EXPECT_EQ(report.placement_version, 1 + static_cast<int64_t>(report.placement_switches)) << what;
    EXPECT_EQ(report.failed_moves, 0U) << what;
    EXPECT_GT(report.balancedness_permille, 0U) << what;
  }
}

INSTANTIATE_TEST_SUITE_P(Schedules, RandomLayouts, testing::Range(0, 12));

// Each rank plans by its own memory; a replica's answers would be made of blocks that one of its ranks does not have.
TEST(Replicas, RanksOfUnequalMemoryHaveTheLeastOfTheirReplicaAndAnswerAsOneRankDoes) {
  EngineOptions options{.model = kModel};
  options.dtype = DTypeOption::kFloat32;
  options.max_model_len = 0;
  options.block_size = 8;
  options.num_gpu_blocks_override = 12;
  std::mt19937 random(5);
  std::vector<Request> requests = random_requests(random, 256);
  while (requests.size() < 12) requests.push_back(std::move(random_requests(random, 256).front()));
  for (size_t idx = 0; idx < requests.size(); idx++) requests[idx].id = idx + 1;

  Replicas alone(1, 1, options), replicas(2, 2, options, {20, 12, 14, 40});
  for (int rank = 0; rank < 4; rank++) {
    EXPECT_EQ(replicas.memory(rank).num_blocks, rank < 2 ? 12 : 14) << rank;
    EXPECT_EQ(replicas.memory(rank).max_model_len, 12 * 8) << rank << ": of all ranks";
    EXPECT_EQ(replicas.memory(rank).cache_bytes,
              replicas.memory(rank).rank.block_bytes(8) * static_cast<size_t>(replicas.memory(rank).num_blocks));
  }
  std::vector<std::future<Answer>> answers;
  for (const Request& request : requests) answers.push_back(replicas.ask(request.id % 2, request));
  for (size_t idx = 0; idx < answers.size(); idx++) {
    const Answer answer = answers[idx].get(), expected = alone.ask(0, requests[idx]).get();
    EXPECT_EQ(answer.error, "") << idx;
    EXPECT_EQ(answer.tokens, expected.tokens) << idx;
  }
}

TEST(Replicas, AnIdleReplicaBringsNoRowsAndTakesEveryStep) {
  EngineOptions options{.model = kModel};
  options.num_scheduler_steps = 4;
  options.max_model_len = 80;
  options.num_gpu_blocks_override = 16;
  Replicas replicas(2, 1, options);
  Request request;
  request.id = 1;
  request.tokens = {1, 2, 3, 4, 5};
  request.num_prompt_tokens = 5;
  request.sampling.temperature = 0;
  request.sampling.max_tokens = 13;
  EXPECT_EQ(replicas.ask(0, request).get().tokens.size(), 13U);
  RankReport busy = replicas.report(0), idle = replicas.report(1);
  for (int attempt = 0; attempt < 200 && (busy.steps < 13 || idle.steps < 13); attempt++) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    busy = replicas.report(0), idle = replicas.report(1);
  }
  EXPECT_EQ(busy.steps, 13U);
  EXPECT_EQ(idle.steps, 13U);
  EXPECT_EQ(busy.agreements, 4U) << "one for the prompt, then one for four steps each";
  EXPECT_EQ(idle.agreements, 4U);
  EXPECT_EQ(idle.rows_brought, 0U);
  EXPECT_EQ(idle.rows_sent, 0U);
  EXPECT_GT(idle.rows_received, 0U);
  EXPECT_EQ(idle.rows_received, busy.rows_sent);
}

}  // namespace
}  // namespace cachalot
