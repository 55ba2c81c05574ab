#include "epochs_harness.h"

#include <gtest/gtest.h>

#include <random>

namespace cachalot::test {

ParallelOptions GroupLayout::of_rank(int rank) const {
  return {.tensor_parallel_size = tp_size,
          .tensor_parallel_rank = rank % tp_size,
          .data_parallel_size = dp_size,
          .data_parallel_rank = rank / tp_size,
          .enable_expert_parallel = dp_size > 1,
          .eplb = {.enabled = balances,
                   .num_redundant_experts = num_redundant_experts,
                   .window_size = 8,
                   .step_interval = 8,
                   .pace = 2},
          .survive = survive};
}

EngineOptions GroupLayout::options() const {
  EngineOptions options{.model = std::string(CACHALOT_SOURCE_DIR) + "/tests/data/golden/" + model};
  options.threads = 1;
  options.dtype = DTypeOption::kBFloat16;
  options.max_model_len = 80;
  options.block_size = 8;
  options.num_gpu_blocks_override = 40;
  options.max_num_batched_tokens = 24;
  options.max_num_seqs = 6;
  options.num_scheduler_steps = 3;
  return options;
}

void Answer::add(const RequestOutput& output) {
  for (const SampledToken& token : output.tokens) {
    tokens.push_back(token.token);
    logprobs.push_back(token.logprob);
  }
  for (const SampledToken& token : output.prompt_logprobs) prompt_logprobs.push_back(token.logprob);
  finish = output.finish;
  error = output.error;
}

void expect_same(const Answer& answer, const Answer& expected, const std::string& what) {
  EXPECT_EQ(answer.error, "") << what;
  EXPECT_EQ(answer.finish, expected.finish) << what;
  EXPECT_EQ(answer.tokens, expected.tokens) << what;
  EXPECT_EQ(answer.logprobs, expected.logprobs) << what << ": to the bit";
  EXPECT_EQ(answer.prompt_logprobs, expected.prompt_logprobs) << what << ": to the bit";
}

namespace {

// A mask that depends on all that it has accepted.
class Counting : public TokenConstraint {
 public:
  Status fill_mask(std::span<uint32_t> mask) override {
    for (size_t token = 0; token < mask.size() * 32; token++)
      if ((token + accepted_.size() + static_cast<size_t>(accepted_.empty() ? 0 : accepted_.back())) % 3 == 0)
        mask[token / 32] &= ~(1u << token % 32);
    return {};
  }
  Status accept(TokenId token) override { return accepted_.push_back(token), Status(); }
  void rollback(int num_tokens) override { accepted_.resize(static_cast<size_t>(num_tokens)); }

 private:
  std::vector<TokenId> accepted_;
};

}  // namespace

Request make_request(RequestId id) {
  std::mt19937 random(static_cast<unsigned>(id));
  Request request;
  request.id = id;
  request.tokens.resize(1 + random() % 50);
  for (TokenId& token : request.tokens) token = static_cast<TokenId>(random() % 256);
  request.num_prompt_tokens = static_cast<int>(request.tokens.size());
  request.sampling.temperature = id % 2 ? 0.f : 0.8f;
  request.sampling.seed = id;
  request.sampling.max_tokens = 6 + static_cast<int>(random() % 10);
  request.sampling.num_logprobs = 0;
  request.sampling.num_prompt_logprobs = id % 3 == 0 ? 0 : -1;
  if (id % 4 < 2) request.sampling.presence_penalty = 0.7f, request.sampling.repetition_penalty = 1.2f;
  if (id % 3 == 1) request.constraint = std::make_unique<Counting>();
  return request;
}

}  // namespace cachalot::test
