#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/math.h"
#include "core/step.h"
#include "core/types.h"
#include "model/inputs.h"

namespace cachalot {

// What every rank of a replica must know of a sequence in a round. Spans are borrowed.
struct RoundSequence {
  int first_position = 0;
  int num_tokens = 0;               // of the first step; every later one has the token that was sampled before
  int num_prompt_tokens = 0;        // of the sequence: positions before this have the role prompt
  bool sample = false;              // the last token's logits are wanted
  bool prompt_logits = false;       // and those of each prompt token whose successor is known
  std::span<const TokenId> tokens;  // [num_tokens]
  std::span<const BlockId> blocks;
};

// Lays the sequences of a step out as rows: prompt rows first, generated rows behind them. Reused from step to step
// without allocating.
class StepBatch {
 public:
  StepBatch(int64_t max_rows, int block_size);

  void clear();
  void add(const RoundSequence& sequence) { sequences_.push_back(sequence); }
  // Lays out what was added; valid until clear().
  ModelBatch build(uint64_t step);
  int64_t num_rows() const { return static_cast<int64_t>(token_ids_.size()); }  // that were laid out
  // The row of a position of the sequence that was added as `sequence_idx`-th.
  int32_t row_of(size_t sequence_idx, int position) const;

 private:
  void add_row(const RoundSequence& sequence, int position);

  int block_size_;
  std::vector<RoundSequence> sequences_;
  std::vector<int32_t> token_ids_, positions_;
  std::vector<int64_t> slots_;
  std::vector<PromptSegment> prompts_;
  std::vector<GeneratedRow> generated_;
  struct FirstRows {
    int64_t prompt = 0, generated = 0;
  };
  std::vector<FirstRows> first_rows_;  // of each sequence
};

// What the leader of a replica (its tp_rank 0) tells the replica's other ranks at the start of a round.
struct Round {
  uint64_t number = 0;
  uint32_t epoch = 1;  // of the group
  int num_steps = 0;
  bool leave = false;       // the last round: no steps, the rank ends
  bool all_logits = false;  // the logits of every row are wanted, nothing is sampled
  std::vector<RoundSequence> sequences;
};

// What a round may ask of a rank: what it has memory and tables for. The same on all ranks of a replica.
struct RoundLimits {
  int max_num_seqs = 0, max_rows = 0, max_steps = 1;
  int max_model_len = 0;
  int block_size = 0, num_blocks = 0;
  int vocab_size = 0;

  int blocks_per_sequence() const { return ceil_div(max_model_len, block_size); }
  size_t max_round_bytes() const;  // of the largest round
};

// A round's bytes, all little-endian:
//
//   u32 magic and version, u32 num_sequences, u64 number, i32 num_steps, u32 flags (1: leave, 2: all_logits),
//   u32 epoch, u32 0
//   for each sequence: i32 first_position, i32 num_tokens, i32 num_prompt_tokens, i32 num_blocks,
//                      u32 flags (1: sample, 2: prompt_logits), i32 tokens[num_tokens], i32 blocks[num_blocks]
void encode_round(const Round& round, std::vector<std::byte>& bytes);
// The round's spans point into `bytes`, whose start is aligned to 8. kCorrupt: not a round, or cut off.
Status decode_round(std::span<const std::byte> bytes, Round& round);
// That nothing in a leader's round lies outside of what this rank has: token and block ids, positions, counts. The
// error names the sequence, the number and the limit.
Status check_round(const Round& round, const RoundLimits& limits);
// Of one sequence's next step: that its positions are within its blocks and max_model_len. A round's later steps go
// beyond what check_round() has seen.
Status check_step(const RoundSequence& sequence, const RoundLimits& limits);

}  // namespace cachalot
