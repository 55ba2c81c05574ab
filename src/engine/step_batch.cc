#include "engine/step_batch.h"

#include <algorithm>

#include "base/check.h"

namespace cachalot {
namespace {

int prompt_count(const StepSequence& sequence) {
  return std::clamp(sequence.num_prompt_tokens - sequence.first_position, 0, sequence.num_tokens);
}

}  // namespace

StepBatch::StepBatch(int64_t max_rows, int block_size) : block_size_(block_size) {
  const auto rows = static_cast<size_t>(max_rows);
  sequences_.reserve(rows);
  token_ids_.reserve(rows);
  positions_.reserve(rows);
  slots_.reserve(rows);
  prompts_.reserve(rows);
  generated_.reserve(rows);
  first_rows_.reserve(rows);
}

void StepBatch::clear() {
  sequences_.clear();
  token_ids_.clear();
  positions_.clear();
  slots_.clear();
  prompts_.clear();
  generated_.clear();
  first_rows_.clear();
}

void StepBatch::add_row(const StepSequence& sequence, int position) {
  token_ids_.push_back(sequence.tokens[static_cast<size_t>(position - sequence.first_position)]);
  positions_.push_back(position);
  const BlockId block = sequence.blocks[static_cast<size_t>(position / block_size_)];
  slots_.push_back(int64_t{block} * block_size_ + position % block_size_);
}

ModelBatch StepBatch::build(uint64_t step) {
  for (const StepSequence& sequence : sequences_) {
    const int num_prompt = prompt_count(sequence);
    first_rows_.push_back({.prompt = static_cast<int64_t>(token_ids_.size())});
    if (num_prompt == 0) continue;
    prompts_.push_back({.first_row = static_cast<int64_t>(token_ids_.size()),
                        .num_rows = num_prompt,
                        .first_position = sequence.first_position,
                        .blocks = sequence.blocks});
    for (int idx = 0; idx < num_prompt; idx++) add_row(sequence, sequence.first_position + idx);
  }
  for (size_t idx = 0; idx < sequences_.size(); idx++) {
    const StepSequence& sequence = sequences_[idx];
    first_rows_[idx].generated = static_cast<int64_t>(token_ids_.size());
    for (int position = sequence.first_position + prompt_count(sequence);
         position < sequence.first_position + sequence.num_tokens; position++) {
      add_row(sequence, position);
      generated_.push_back({.position = position, .blocks = sequence.blocks});
    }
  }
  return {.token_ids = View<const int32_t, 1>(token_ids_.data(), token_ids_.size()),
          .positions = View<const int32_t, 1>(positions_.data(), positions_.size()),
          .slots = View<const int64_t, 1>(slots_.data(), slots_.size()),
          .prompts = prompts_,
          .generated = generated_,
          .block_size = block_size_,
          .step = step};
}

int32_t StepBatch::row_of(size_t sequence_idx, int position) const {
  const StepSequence& sequence = sequences_[sequence_idx];
  const int offset = position - sequence.first_position, num_prompt = prompt_count(sequence);
  CHECK(offset >= 0 && offset < sequence.num_tokens);
  const FirstRows& first = first_rows_[sequence_idx];
  return static_cast<int32_t>(offset < num_prompt ? first.prompt + offset : first.generated + offset - num_prompt);
}

}  // namespace cachalot
