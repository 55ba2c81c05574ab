#pragma once

#include <cstdint>

#include "base/error.h"
#include "comm/group.h"
#include "config/model_config.h"
#include "device/device.h"
#include "kernels/ops.h"
#include "model/inputs.h"
#include "model/model_weights.h"

namespace cachalot {

// Positions whose keys and values are rebuilt from latents at a time, and absorbed rows that attend at a time: they
// bound the memory of the expanded and the absorbed form, and change no bit.
inline constexpr int64_t kContextChunk = 512;
inline constexpr int64_t kAbsorbedChunk = 64;
inline constexpr int64_t kIndexerChunk = 64;  // rows whose positions an indexer chooses at a time

// Every buffer of a step, sized once for the largest one; operations narrow them. Views into one allocation.
struct Workspace {
  static size_t bytes(const ModelConfig& config, const ModelSettings& settings);
  static Result<Workspace> create(const ModelConfig& config, const ModelSettings& settings);

  // A rank's own rows (all rows, without tensor parallelism).
  View<float, 2> residual, delta, normed;  // [max_rows, hidden]
  // All rows of the step.
  View<float, 2> gathered;                // [max_rows, hidden]; with tensor parallelism only, else `normed` serves
  View<float, 2> partial;                 // the same for sums that other ranks have a part of
  View<std::byte, 2> wire_own, wire_all;  // rows of the compute dtype between TP ranks
  View<float, 2> low_rank;                // [max_rows, q_lora_rank + kv_cache_dim + what the indexer projects]
  View<float, 2> low_rank_gathered;
  View<float, 2> q_a_normed;                // [max_rows, q_lora_rank]
  View<float, 3> q;                         // [max_rows, heads, qk_head_dim]
  View<float, 3> attention;                 // [max_rows, heads, v_head_dim]
  View<float, 2> softmax_max, softmax_sum;  // [max_rows, heads]
  View<float, 2> latents;                   // [kContextChunk, kv_lora_rank]
  View<float, 2> keys_values;               // [kContextChunk, heads * (nope + v)]
  View<float, 3> q_latent, latent_sum;      // [kAbsorbedChunk, heads, kv_lora_rank]
  View<float, 3> index_queries;             // [kIndexerChunk, index heads, index dim]
  View<int32_t, 2> chosen_positions;        // [max_rows, index_topk]: of the last layer with an indexer
  View<float, 2> intermediate;              // [max_rows, width of the dense layers or the shared expert]
  struct QuantizedStore {
    View<int8_t, 1> values;
    View<float, 1> scales;
    // Rows of this shape at its start.
    QuantizedRows rows(int64_t num_rows, int64_t features, int group) const;
  };
  QuantizedStore quantized_input;    // of whatever linear comes next
  QuantizedStore quantized_product;  // of a gated linear's result
  View<float, 2> router_logits;      // [max_rows, num_experts]
  View<int32_t, 2> expert_ids;       // [max_rows, top_k]
  View<float, 2> expert_weights;     // [max_rows, top_k]
  View<std::byte, 1> expert_rows;    // max_rows rows of the exchange
  View<float, 2> arrived;      // rows of an exchange's pass, [.., hidden]; experts that want floats under bfloat16
  View<float, 2> logit_rows;   // [max_logit_rows, hidden]
  View<float, 2> logits_part;  // [max_logit_rows, vocab_count]; with tensor parallelism only

 private:
  void carve(Carver& carver, const ModelConfig& config, const ModelSettings& settings);
  Buffer buffer_;
};

// Rows on their way into one or more linears: quantized when the first of them wants int8, once for all that want the
// same.
class InputRows {
 public:
  InputRows(const Ops& ops, const Workspace& workspace, View<const float, 2> values)
      : ops_(ops), workspace_(workspace), values_(values) {}
  // `quantized` rows were made by an operation before.
  InputRows(const Ops& ops, const Workspace& workspace, View<const float, 2> values, const QuantizedRows& quantized)
      : ops_(ops), workspace_(workspace), values_(values), quantized_(quantized) {}

  LinearInput for_group(int group) {
    if (group == 0) return {.values = values_, .quantized = {}};
    if (quantized_.group != group) {
      quantized_ = workspace_.quantized_input.rows(values_.extent(0), values_.extent(1), group);
      ops_.quantize(values_, quantized_);
    }
    return {.values = values_, .quantized = quantized_};
  }
  LinearInput for_linear(const Linear& linear) { return for_group(linear.input_group); }

 private:
  const Ops& ops_;
  const Workspace& workspace_;
  View<const float, 2> values_;
  QuantizedRows quantized_;
};

// out = linear(rows), quantizing as the linear wants.
inline void apply_linear(const Ops& ops, const Workspace& workspace, View<const float, 2> rows, const Linear& linear,
                         View<float, 2> out) {
  InputRows input(ops, workspace, rows);
  ops.linear(input.for_linear(linear), linear.matrix, out);
}

// What a group for this model sums up at a time, at most: GroupOptions::max_reduced_bytes.
int64_t max_reduced_bytes(const ModelConfig& config, const ModelSettings& settings);

// Moves rows between "each rank its own" (between two attentions: sequence parallelism) and "all rows on every rank".
// With one rank both are the same memory and nothing moves.
class TensorParallel {
 public:
  TensorParallel(Group& group, const Ops& ops, const Workspace& workspace, DType compute_dtype)
      : group_(&group), ops_(ops), workspace_(workspace), compute_dtype_(compute_dtype) {}

  void set_group(Group& group) { group_ = &group; }
  int size() const { return group_->size(); }
  RowPartition partition(int64_t num_rows) const { return RowPartition(num_rows, group_->size()); }
  int64_t own_begin(int64_t num_rows) const { return partition(num_rows).begin(group_->rank()); }
  int64_t own_count(int64_t num_rows) const { return partition(num_rows).count(group_->rank()); }

  // All ranks' rows, rounded to the compute dtype, at the start of `store`; with one rank `own` itself.
  Result<View<float, 2>> gather(View<float, 2> own, int64_t num_rows, View<float, 2> store,
                                const CollectiveSite& site) const;
  // Where this rank's part of a sum over ranks goes, before scatter_sum().
  View<float, 2> partial(View<float, 2> own, int64_t num_rows) const {
    return size() == 1 ? own : workspace_.partial.rows(0, num_rows);
  }
  // own = this rank's rows of the sum over ranks. With one rank partial and own are the same memory.
  Status scatter_sum(View<float, 2> partial, View<float, 2> own, const CollectiveSite& site) const;
  Group& group() const { return *group_; }

 private:
  Group* group_;
  const Ops& ops_;
  const Workspace& workspace_;
  DType compute_dtype_;
};

}  // namespace cachalot
