// Batch invariance: a request's numbers have the same bits whatever else runs, however its prompt is cut, from the
// prefix cache or not, and after a preemption in the middle of its answer.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>

#include "base/log.h"
#include "config/model_config.h"
#include "engine_harness.h"
#include "model_harness.h"

namespace cachalot::test {
namespace {

const std::string kFolder = std::string(CACHALOT_SOURCE_DIR) + "/tests/data/golden/";

struct Param {
  std::string folder;
  DTypeOption dtype;
  ActivationDTypeOption activation;
  IsaOption isa;
  // Its test's name says the rest.
  friend void PrintTo(const Param& param, std::ostream* out) { *out << param.folder; }
};

std::string param_name(const testing::TestParamInfo<Param>& info) {
  const Param& param = info.param;
  std::string name = param.folder + (param.dtype == DTypeOption::kFloat32 ? "_float32" : "_bfloat16") +
                     (param.activation == ActivationDTypeOption::kInt8 ? "_int8" : "_auto") +
                     (param.isa == IsaOption::kAvx512 ? "_avx512"
                      : param.isa == IsaOption::kAvx2 ? "_avx2"
                                                      : "_reference");
  std::ranges::replace(name, '-', '_');
  return name;
}

class Invariance : public testing::TestWithParam<Param> {
 protected:
  static constexpr int kTokens = 192, kPromptTokens = 150, kAnswerTokens = 24;  // ids that all models have
  static constexpr RequestId kSubject = 0;

  EngineOptions options() const {
    const Param& param = GetParam();
    return {.model = kFolder + param.folder,
            .dtype = param.dtype,
            .activation_dtype = param.activation,
            .isa = param.isa,
            .max_model_len = 512,
            .threads = 2};
  }
  static std::vector<TokenId> random_tokens(int count, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<TokenId> tokens(static_cast<size_t>(count));
    for (TokenId& token : tokens) token = static_cast<TokenId>(random() % kTokens);
    return tokens;
  }
  static int vocab_size() {
    static std::map<std::string, int> sizes;
    int& size = sizes[GetParam().folder];
    if (size == 0) size = load_model_config(kFolder + GetParam().folder).value().vocab_size;
    return size;
  }
  // Reports the whole vocabulary with every token: the logits, up to their log-sum, to the bit.
  static Request subject() {
    Request request = greedy_request(kSubject, random_tokens(kPromptTokens, 1), kAnswerTokens);
    request.sampling.num_logprobs = vocab_size();
    return request;
  }
  static Request neighbour(RequestId id, int prompt_tokens, int max_tokens) {
    return greedy_request(id, random_tokens(prompt_tokens, static_cast<unsigned>(id)), max_tokens);
  }
  static void expect_same(const Answer& left, const Answer& right) {
    ASSERT_EQ(left.tokens.size(), static_cast<size_t>(kAnswerTokens));
    ASSERT_EQ(right.tokens.size(), left.tokens.size());
    for (size_t idx = 0; idx < left.tokens.size(); idx++) {
      ASSERT_EQ(left.tokens[idx].token, right.tokens[idx].token) << "token " << idx;
      ASSERT_EQ(left.tokens[idx].top.size(), static_cast<size_t>(vocab_size()));
      for (int rank = 0; rank < vocab_size(); rank++) {
        const TokenLogprob &one = left.tokens[idx].top[static_cast<size_t>(rank)],
                           &other = right.tokens[idx].top[static_cast<size_t>(rank)];
        ASSERT_EQ(one.token, other.token) << "token " << idx << ", rank " << rank;
        ASSERT_EQ(std::bit_cast<uint32_t>(one.logprob), std::bit_cast<uint32_t>(other.logprob))
            << "token " << idx << ", rank " << rank;
      }
    }
  }
  // The subject alone, its prompt in one step.
  Answer alone() const {
    EngineRun run(options());
    run.submit(subject());
    run.finish();
    return run.answer(kSubject);
  }
};

TEST_P(Invariance, AmongThirtyTwoOthers) {
  EngineRun run(options());
  for (RequestId id = 1; id <= 16; id++)
    run.submit(neighbour(id, 1 + static_cast<int>(id * 11 % 90), 20 + static_cast<int>(id)));
  run.step();
  run.submit(subject());
  for (RequestId id = 17; id <= 32; id++) run.submit(neighbour(id, 1 + static_cast<int>(id * 7 % 50), 30));
  run.finish();
  expect_same(alone(), run.answer(kSubject));
}

TEST_P(Invariance, PromptInChunks) {
  const Answer whole = alone();
  for (const int chunk : {1, 7, 64}) {
    EngineOptions chunked = options();
    chunked.max_num_batched_tokens = chunk;
    EngineRun run(chunked);
    run.submit(subject());
    run.finish();
    expect_same(whole, run.answer(kSubject));
  }
}

TEST_P(Invariance, PromptFromThePrefixCache) {
  EngineRun run(options());
  run.submit(subject());
  run.finish();
  const Answer first = run.answer(kSubject);
  EXPECT_EQ(first.num_cached_tokens, 0);
  Request again = subject();
  again.id = 1;
  run.submit(std::move(again));
  run.finish();
  EXPECT_EQ(run.answer(1).num_cached_tokens, kPromptTokens / 64 * 64);
  expect_same(first, run.answer(1));
}

TEST_P(Invariance, AfterAPreemptionInTheMiddleOfTheAnswer) {
  EngineOptions tight = options();
  tight.num_gpu_blocks_override = 8;
  tight.scheduling_policy = SchedulingPolicy::kPriority;
  EngineRun run(tight);
  Request request = subject();
  request.priority = 1;
  run.submit(std::move(request));
  while (run.answer(kSubject).tokens.size() < 10) run.step();
  for (RequestId id = 1; id <= 2; id++) run.submit(neighbour(id, 200, 8));
  run.finish();
  EXPECT_GE(run.stats().num_preemptions, 1u);
  expect_same(alone(), run.answer(kSubject));
}

TEST_P(Invariance, SeveralStepsARound) {
  EngineOptions rounds = options();
  rounds.num_scheduler_steps = 8;
  EngineRun run(rounds);
  run.submit(subject());
  for (RequestId id = 1; id <= 3; id++) run.submit(neighbour(id, 20, 5 + static_cast<int>(id)));
  run.finish();
  expect_same(alone(), run.answer(kSubject));
}

TEST_P(Invariance, OnOneThreadOrThree) {
  EngineOptions one = options();
  one.threads = 1;
  EngineRun run(one);
  run.submit(subject());
  run.finish();
  expect_same(alone(), run.answer(kSubject));
  EngineOptions three = options();
  three.threads = 3;
  EngineRun wider(three);
  wider.submit(subject());
  wider.finish();
  expect_same(run.answer(kSubject), wider.answer(kSubject));
}

std::vector<Param> params() {
  std::vector<Param> params;
  for (const IsaOption isa : {IsaOption::kAvx2, IsaOption::kAvx512}) {
    if (isa == IsaOption::kAvx512 && detect_isa() != IsaLevel::kAvx512) continue;
    if (detect_isa() == IsaLevel::kReference) continue;
    params.push_back({"r1-bf16", DTypeOption::kBFloat16, ActivationDTypeOption::kAuto, isa});
    params.push_back({"r1-fp8", DTypeOption::kBFloat16, ActivationDTypeOption::kAuto, isa});
    params.push_back({"r1-fp8", DTypeOption::kBFloat16, ActivationDTypeOption::kInt8, isa});
    params.push_back({"r1-awq", DTypeOption::kBFloat16, ActivationDTypeOption::kAuto, isa});
    params.push_back({"v2lite-bf16", DTypeOption::kFloat32, ActivationDTypeOption::kAuto, isa});
    params.push_back({"v32-fp8", DTypeOption::kBFloat16, ActivationDTypeOption::kAuto, isa});
    params.push_back({"glm5-bf16", DTypeOption::kBFloat16, ActivationDTypeOption::kInt8, isa});
    params.push_back({"glm52-bf16", DTypeOption::kFloat32, ActivationDTypeOption::kAuto, isa});
    params.push_back({"k2-ct-int4", DTypeOption::kBFloat16, ActivationDTypeOption::kAuto, isa});
    params.push_back({"k2-ct-mxfp4", DTypeOption::kBFloat16, ActivationDTypeOption::kAuto, isa});
    params.push_back({"k2-ct-mxfp4", DTypeOption::kFloat32, ActivationDTypeOption::kAuto, isa});
  }
  params.push_back({"r1-awq", DTypeOption::kBFloat16, ActivationDTypeOption::kAuto, IsaOption::kReference});
  return params;
}

// Requests of many lengths, around index_topk and far beyond, on engines that cut, batch, cache and preempt at random,
// against each of them alone.
class SparseSchedules : public testing::TestWithParam<std::string> {
 protected:
  static constexpr int kNumRequests = 24, kNumSchedules = 100;

  static Request request(int idx) {
    std::mt19937 random(static_cast<unsigned>(idx) + 100);
    std::vector<TokenId> prompt(1 + random() % (idx % 3 == 0 ? 20 : 180));
    // Some share their beginning, so that blocks are found in the prefix cache.
    std::mt19937 tokens(idx % 4 == 0 ? 1 : static_cast<unsigned>(idx));
    for (TokenId& token : prompt) token = static_cast<TokenId>(tokens() % 256);
    Request request =
        greedy_request(static_cast<RequestId>(idx), std::move(prompt), 1 + static_cast<int>(random() % 60));
    request.sampling.num_logprobs = 4;
    return request;
  }
  EngineOptions options() const {
    return {.model = kFolder + GetParam(), .max_model_len = 256, .num_gpu_blocks_override = 64, .threads = 1};
  }
};

TEST_P(SparseSchedules, AnswerAsEachRequestAlone) {
  log::init("warning", "");  // not the memory plan of every engine
  std::vector<Answer> alone;
  {
    EngineOptions plain = options();
    plain.enable_prefix_caching = false;
    EngineRun run(plain);
    for (int idx = 0; idx < kNumRequests; idx++) {
      run.submit(request(idx));
      run.finish();
      alone.push_back(run.answer(static_cast<RequestId>(idx)));
    }
  }
  uint64_t num_preemptions = 0, num_cached_tokens = 0;
  for (int schedule = 0; schedule < kNumSchedules; schedule++) {
    std::mt19937 random(static_cast<unsigned>(schedule));
    EngineOptions chosen = options();
    chosen.block_size = 8 << random() % 4;
    chosen.max_num_batched_tokens = 8 << random() % 5;
    chosen.max_num_seqs = 1 + static_cast<int>(random() % 8);
    chosen.num_scheduler_steps = 1 << random() % 4;
    chosen.num_gpu_blocks_override = (256 + static_cast<int>(random() % 192)) / chosen.block_size;
    chosen.threads = schedule % 8 == 0 ? 2 : 1;
    EngineRun run(chosen);
    std::vector<int> requests(kNumRequests);
    std::iota(requests.begin(), requests.end(), 0);
    std::ranges::shuffle(requests, random);
    requests.resize(6 + random() % 10);
    for (const int idx : requests) {
      run.submit(request(idx));
      for (unsigned steps = random() % 4; steps > 0; steps--) run.step();
    }
    run.finish();
    num_preemptions += run.stats().num_preemptions;
    for (const int idx : requests) {
      const Answer &answer = run.answer(static_cast<RequestId>(idx)), &expected = alone[static_cast<size_t>(idx)];
      num_cached_tokens += static_cast<uint64_t>(answer.num_cached_tokens);
      ASSERT_EQ(answer.tokens.size(), expected.tokens.size()) << "schedule " << schedule << ", request " << idx;
      for (size_t token = 0; token < answer.tokens.size(); token++) {
        ASSERT_EQ(answer.tokens[token].token, expected.tokens[token].token)
            << "schedule " << schedule << ", request " << idx << ", token " << token;
        for (size_t rank = 0; rank < 4; rank++)
          ASSERT_EQ(std::bit_cast<uint32_t>(answer.tokens[token].top[rank].logprob),
                    std::bit_cast<uint32_t>(expected.tokens[token].top[rank].logprob))
              << "schedule " << schedule << ", request " << idx << ", token " << token;
      }
    }
  }
  EXPECT_GT(num_preemptions, 10U);
  EXPECT_GT(num_cached_tokens, 100U);
}

INSTANTIATE_TEST_SUITE_P(All, SparseSchedules, testing::Values("v32-fp8", "glm5-bf16", "glm52-bf16"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

INSTANTIATE_TEST_SUITE_P(All, Invariance, testing::ValuesIn(params()), param_name);

}  // namespace
}  // namespace cachalot::test
