#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <set>
#include <vector>

#include "core/request.h"
#include "core/step.h"
#include "scheduler/fake_model_test_util.h"
#include "scheduler/integrity_test_util.h"

namespace cachalot {

// Runs plans as the engine does, and checks each as it goes.
class FakeRank {
 public:
  FakeRank(const SchedulerOptions& options, FakeModel model)
      : options_(options),
        model_(model),
        slots_(static_cast<size_t>(options.cache.num_blocks) * options.cache.block_size) {}

  // Runs at most max_num_steps of the plan's steps.
  StepResult run(const Scheduler& scheduler, const StepPlan& plan, int max_num_steps) {
    check_plan(scheduler, plan);
    StepResult result{.round = plan.round};
    for (const PlannedSequence& sequence : plan.sequences)
      result.sequences.push_back(run(sequence, std::min(plan.num_steps, max_num_steps)));
    return result;
  }
  void lose_cache() { std::ranges::fill(slots_, 0xdead); }

 private:
  SequenceResult run(const PlannedSequence& sequence, int num_steps) {
    SequenceResult result{.id = sequence.id};
    std::vector<TokenId> tokens(sequence.tokens.begin(), sequence.tokens.end());
    const int end = sequence.first_position + sequence.num_tokens;
    uint64_t state = cached_state(sequence, tokens);
    for (int position = sequence.first_position; position < end; position++) {
      state = compute(sequence, tokens, position, state);
      const int next = position + 1;
      if (sequence.sampling->num_prompt_logprobs >= 0 && next < sequence.num_prompt_tokens)
        result.prompt_logprobs.push_back({.token = tokens[next], .logprob = FakeModel::logprob(state, tokens[next])});
    }
    for (int step = 0; sequence.sample && step < num_steps; step++) {
      result.is_deferred = sequence.constraint && !sequence.constraint->is_ready_by({});
      if (result.is_deferred) break;
      if (step > 0) state = compute(sequence, tokens, static_cast<int>(tokens.size()) - 1, state);
      tokens.push_back(model_.next_token(state));
      result.tokens.push_back({.token = tokens.back()});
      const int num_generated = static_cast<int>(tokens.size()) - sequence.num_prompt_tokens;
      result.finish = finish_reason(*sequence.sampling, num_generated, tokens.back());
      if (result.finish != FinishReason::kNone) break;
    }
    return result;
  }

  // The state in the cache before the first position; every earlier slot must hold what its tokens give.
  uint64_t cached_state(const PlannedSequence& sequence, const std::vector<TokenId>& tokens) {
    uint64_t state = FakeModel::kStart;
    for (int position = 0; position < sequence.first_position; position++) {
      state = model_.next_state(state, tokens[position], position < sequence.num_prompt_tokens);
      EXPECT_EQ(slot(sequence, position), state)
          << "request " << sequence.id << ", position " << position << " is not what it computed";
    }
    return state;
  }

  uint64_t compute(const PlannedSequence& sequence, const std::vector<TokenId>& tokens, int position, uint64_t state) {
    return slot(sequence, position) = model_.next_state(state, tokens[position], position < sequence.num_prompt_tokens);
  }

  uint64_t& slot(const PlannedSequence& sequence, int position) {
    const int block_size = options_.cache.block_size;
    return slots_.at(sequence.blocks[position / block_size] * block_size + position % block_size);
  }

  void check_plan(const Scheduler& scheduler, const StepPlan& plan) {
    EXPECT_LE(plan.num_tokens(), options_.max_num_batched_tokens);
    EXPECT_LE(plan.sequences.size(), options_.max_num_seqs);
    EXPECT_GE(plan.num_steps, 1);
    EXPECT_LE(plan.num_steps, options_.num_scheduler_steps);
    std::set<RequestId> ids;
    bool saw_prefill = false;
    for (const PlannedSequence& sequence : plan.sequences) {
      EXPECT_TRUE(ids.insert(sequence.id).second);
      EXPECT_GE(sequence.num_tokens, 1);
      const int end = sequence.first_position + sequence.num_tokens,
                num_known = static_cast<int>(sequence.tokens.size());
      EXPECT_LE(end, num_known);
      EXPECT_EQ(sequence.sample, end == num_known);
      const bool decodes =
          sequence.num_tokens == 1 && sequence.sample && sequence.first_position >= sequence.num_prompt_tokens;
      EXPECT_FALSE(decodes && saw_prefill) << "decodes come first";
      saw_prefill |= !decodes;
      EXPECT_TRUE(decodes || plan.num_steps == 1);

      const int num_remaining = sequence.sampling->max_tokens - (num_known - sequence.num_prompt_tokens);
      const int num_slots = end + std::min(plan.num_steps, num_remaining) - 1;
      EXPECT_LE(num_known + num_remaining, options_.max_model_len);
      const int block_size = options_.cache.block_size;
      EXPECT_GE(sequence.blocks.size() * block_size, num_slots);
      for (int idx = sequence.first_position / block_size; idx <= (num_slots - 1) / block_size; idx++)
        EXPECT_EQ(scheduler.blocks().num_references(sequence.blocks[idx]), 1)
            << "a block is written that others hold, too";
    }
  }

  SchedulerOptions options_;
  FakeModel model_;
  std::vector<uint64_t> slots_;
};

}  // namespace cachalot
