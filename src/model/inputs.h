#pragma once

#include <cstdint>
#include <span>

#include "base/step_trace.h"
#include "config/options.h"
#include "core/types.h"
#include "device/device.h"
#include "kernels/matrix.h"
#include "placement/expert_placement.h"
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace cachalot {

// How one rank runs the model: numbers, its place in the layout, and the largest step.
struct ModelSettings {
  DType compute_dtype = DType::kBF16;
  IsaLevel isa = IsaLevel::kReference;
  ActivationDTypeOption activation_dtype = ActivationDTypeOption::kAuto;
  int tp_rank = 0, tp_size = 1;
  bool expert_parallel = true;  // else each expert's width is split over the TP ranks
  int ep_rank = 0, ep_size = 1;
  SharedPlacement placement;       // of the experts over ep_size ranks; null: a model without
  int num_move_buffers = 0;        // beside the slots, each for any expert, through which experts move
  int64_t exchange_max_bytes = 0;  // of each buffer between ranks of the expert exchange; 0: no bound
  int64_t max_rows = 0;            // token rows of a step
  int64_t max_logit_rows = 0;      // rows whose logits are wanted at once
  int64_t max_positions = 0;       // length of a sequence

  bool float32() const { return compute_dtype == DType::kF32; }
  MatrixPolicy matrix_policy() const {
    return {.float32 = float32(), .int8_activations = !float32() && activation_dtype == ActivationDTypeOption::kInt8};
  }
};

// Consecutive prompt rows of one sequence: row first_row + i has position first_position + i.
struct PromptSegment {
  int64_t first_row = 0, num_rows = 0;
  int first_position = 0;
  std::span<const BlockId> blocks;  // covers all positions up to the segment's last
};

// A generated row: row num_prompt_rows + its index in ModelBatch::generated.
struct GeneratedRow {
  int position = 0;
  std::span<const BlockId> blocks;
};

// The tokens of one step. Prompt rows come first, then the generated ones; within a sequence, rows are in order of
// position.
struct ModelBatch {
  View<const int32_t, 1> token_ids;  // [num_rows]
  View<const int32_t, 1> positions;  // [num_rows]
  View<const int64_t, 1> slots;      // [num_rows]: where what is kept of a row goes in the cache
  std::span<const PromptSegment> prompts;
  std::span<const GeneratedRow> generated;
  int block_size = 0;
  uint64_t step = 0;           // named in errors
  StepTrace* trace = nullptr;  // where what is done is noted; null: nowhere

  // For tests and comparison: the choice of experts given, or reported. [num_moe_layers, num_rows, top_k], or empty.
  View<const int32_t, 3> forced_expert_ids;
  View<int32_t, 3> chosen_expert_ids;
  // The same of what an indexer chooses, of rows that see more than index_topk positions: [num_layers, num_rows,
  // index_topk], rising. Of all other rows, all that they see is reported, and -1 where that is less.
  View<const int32_t, 3> forced_positions;
  View<int32_t, 3> chosen_positions;

  int64_t num_rows() const { return token_ids.extent(0); }
  int64_t num_prompt_rows() const { return num_rows() - static_cast<int64_t>(generated.size()); }
};

}  // namespace cachalot
