#pragma once

#include <cstdint>
#include <vector>

#include "core/step.h"
#include "model/batch.h"

namespace cachalot {

// One sequence's part of one step. Spans are borrowed until the next step.
struct StepSequence {
  std::span<const TokenId> tokens;  // [num_tokens], from first_position on
  int first_position = 0, num_tokens = 0, num_prompt_tokens = 0;
  std::span<const BlockId> blocks;
};

// Lays the sequences of a step out as rows: prompt rows first, generated rows behind them. Reused from step to step
// without allocating.
class StepBatch {
 public:
  StepBatch(int64_t max_rows, int block_size);

  void clear();
  void add(const StepSequence& sequence) { sequences_.push_back(sequence); }
  // Lays out what was added; valid until clear().
  ModelBatch build(uint64_t step);
  int64_t num_rows() const { return static_cast<int64_t>(token_ids_.size()); }  // that were laid out
  // The row of a position of the sequence that was added as `sequence_idx`-th.
  int32_t row_of(size_t sequence_idx, int position) const;

 private:
  void add_row(const StepSequence& sequence, int position);

  int block_size_;
  std::vector<StepSequence> sequences_;
  std::vector<int32_t> token_ids_, positions_;
  std::vector<int64_t> slots_;
  std::vector<PromptSegment> prompts_;
  std::vector<GeneratedRow> generated_;
  struct FirstRows {
    int64_t prompt = 0, generated = 0;
  };
  std::vector<FirstRows> first_rows_;  // of each sequence
};

}  // namespace cachalot
