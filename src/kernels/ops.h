#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/types.h"
#include "device/device.h"
#include "kernels/matrix.h"
#include "tensor/view.h"

// The operations below the model. Activations inside a rank are fp32; what is kept or leaves the rank (KV
// cache, rows for experts, expert results, partial sums) has the compute dtype and is a ComputeView.
//
// Batch invariance holds for every operation: a row of the result is computed by the same operations in the same order
// whatever other rows there are, and however many threads. No operation allocates; each may use the scratch of its
// context. Shapes are checked once, by class Ops; the functions behind it trust them.
namespace cachalot {

// ---- arguments ------------------------------------------------------------------------------------------------------

inline constexpr int kSmallestGroup = 32;

// Rows as int8: value = quantized * scale, symmetric, scale = max|x| / 127 over each `group` consecutive inputs of a
// row (32 or 64; the last group may be short). Zero rows have scale 0; a group with a number that is infinite or NaN
// has such a scale, so that what is computed of it shows that.
struct QuantizedRows {
  View<int8_t, 2> values;  // [num_rows, features]
  View<float, 2> scales;   // [num_rows, ceil(features / group)]
  int group = 0;           // 0: not quantized
  bool empty() const { return group == 0; }
};

// Input rows of linears: floats, int8, or both. Integer matrices (kI8, kI4) with int8 rows of their group are computed
// in integers: acc = fma(float(sum over the block of (q - zero) * a), weight_scale * activation_scale, acc), blocks in
// order. All other pairs are computed in fp32 (cores.h): from the floats, or where there are none, from the int8 rows
// expanded to value * scale.
struct LinearInput {
  View<const float, 2> values;  // [num_rows, in_features]; may be empty if quantized is not
  QuantizedRows quantized;
  int64_t num_rows() const { return quantized.empty() ? values.extent(0) : quantized.values.extent(0); }
  int64_t num_features() const { return quantized.empty() ? values.extent(1) : quantized.values.extent(1); }
};

struct NormArgs {
  View<float, 2> residual;      // [num_rows, features]; `delta` is added to it first, in place
  View<const float, 2> delta;   // like residual, or empty
  View<const float, 1> weight;  // [features]
  float epsilon = 0;
  View<float, 2> out;       // [num_rows, features], may be empty if only `quantized` is wanted
  QuantizedRows quantized;  // of the result, or empty
};

struct RopeTable {
  View<const float, 2> cos, sin;  // [max_position, rope_dim / 2], YaRN's factor included
};

enum class RopePairs : uint8_t {
  kNeighbours,  // (2i, 2i + 1)
  kHalves,      // (i, i + rope_dim / 2)
};

struct LatentStoreArgs {
  View<const float, 2> kv_a;         // [num_rows, kv_lora_rank + rope_dim], straight from kv_a_proj
  View<const float, 1> norm_weight;  // [kv_lora_rank]
  float epsilon = 0;
  RopeTable rope;
  View<const int32_t, 1> positions;  // [num_rows]
  View<const int64_t, 1> slots;      // [num_rows] into the cache
  ComputeView<2> cache;              // [num_slots, kv_lora_rank + rope_dim]: normalized latent, rotated key
};

// The keys of a sparse attention's indexer: a layer norm, then the first rope_dim numbers rotated.
struct IndexKeyStoreArgs {
  View<const float, 2> keys;                    // [num_rows, dim]
  View<const float, 1> norm_weight, norm_bias;  // [dim]
  float epsilon = 0;
  RopeTable rope;
  RopePairs pairs = RopePairs::kHalves;
  View<const int32_t, 1> positions;  // [num_rows]
  View<const int64_t, 1> slots;      // [num_rows] into the cache
  ComputeView<2> cache;              // [num_slots, dim]
};

// The context of one sequence in the cache.
struct CachedContext {
  ComputeView<2> cache;  // [num_slots, kv_lora_rank + rope_dim]; an indexer's keys: [num_slots, dim]
  std::span<const BlockId> blocks;
  int block_size = 0;
  int64_t slot(int64_t position) const {
    return int64_t{blocks[static_cast<size_t>(position / block_size)]} * block_size + position % block_size;
  }
};

struct LoadLatentsArgs {
  CachedContext context;
  int first_position = 0;
  View<float, 2> out;  // [num_positions, kv_lora_rank], may be empty if only `quantized` is wanted
  QuantizedRows quantized;
};

// Causal attention of prompt rows in the expanded form, over one chunk of the context; a call per chunk, in order. Row
// i has position first_row_position + i and sees positions up to its own. Chunks begin at multiples of kAttentionTile;
// the softmax runs online over tiles of kAttentionTile positions in order, so chunking changes no bit.
struct ExpandedAttentionArgs {
  View<const float, 3> q;   // [num_rows, num_heads, nope_dim + rope_dim], rotated
  View<const float, 3> kv;  // [chunk_positions, num_heads, nope_dim + v_dim], from kv_b_proj of the chunk's latents
  CachedContext context;    // for the rotated keys
  int nope_dim = 0, rope_dim = 0;
  int first_row_position = 0, first_chunk_position = 0;
  float softmax_scale = 0;
  bool first_chunk = false, last_chunk = false;  // set the state up; divide it out
  View<float, 3> out;               // [num_rows, num_heads, v_dim]: the unnormalized sum until the last chunk
  View<float, 2> row_max, row_sum;  // [num_rows, num_heads] state between chunks
};
inline constexpr int kAttentionTile = 64;

// Attention in the absorbed form: every head reads the latents themselves.
struct AbsorbedRow {
  CachedContext context;
  int position = 0;
  // The positions that it attends to, rising; none: 0..position. They take the places 0, 1, 2, ... that all positions
  // have otherwise, so that a choice of all gives the same bits.
  View<const int32_t, 1> chosen = {};
  int64_t num_places() const { return chosen.empty() ? position + 1 : chosen.extent(0); }
};
struct AbsorbedAttentionArgs {
  View<const float, 3> q_latent;  // [num_rows, num_heads, kv_lora_rank]
  View<const float, 3> q_rope;    // [num_rows, num_heads, rope_dim], rotated
  std::span<const AbsorbedRow> rows;
  float softmax_scale = 0;
  View<float, 3> out;  // [num_rows, num_heads, kv_lora_rank]
};

// Which positions a row of sparse attention attends to, by its indexer: score = sum over the heads of weight * relu(q .
// key), and of all positions up to its own the best `topk`; of equal ones (relu makes many zeros; -0 is 0) the lower.
struct ScoredRow {
  CachedContext context;  // of the indexer's keys
  int position = 0;
};
struct ChoosePositionsArgs {
  View<const float, 3> q;             // [num_rows, num_heads, dim], rotated
  View<const float, 2> head_weights;  // [num_rows, num_heads]
  float weight_scale = 1;             // of all of them
  std::span<const ScoredRow> rows;
  View<int32_t, 2> chosen;  // [num_rows, topk], rising; a row with fewer positions leaves its end as it is
};

inline constexpr int kMaxExperts = 1024, kMaxTopK = 64;  // of one layer; of one row

enum class RoutingScore : uint8_t { kSoftmax, kSigmoid };
enum class RoutingGroups : uint8_t { kNone, kByMaximum, kByTopTwo };
struct RouteArgs {
  View<const float, 2> logits;       // [num_rows, num_experts]
  View<const float, 1> choice_bias;  // [num_experts], added for the choice only; may be empty
  RoutingScore score = RoutingScore::kSigmoid;
  RoutingGroups groups = RoutingGroups::kNone;
  int num_groups = 1, topk_groups = 1;
  bool normalize = false;
  float scaling_factor = 1;
  View<const int32_t, 2> forced_ids;  // [num_rows, top_k] or empty: the choice is given, weights follow from the scores
  View<int32_t, 2> ids;               // [num_rows, top_k], by falling choice score, ties to the lower id
  View<float, 2> weights;             // [num_rows, top_k]
};

// The experts of one rank on the rows that came to it. Pair p is one (row, expert): row pair_rows[p], sorted by expert;
// expert e has pairs [offsets[e], offsets[e+1]). out[out_rows[p]] = down(silu(gate(x)) * up(x)), rounded to the compute
// dtype once. With int8 rows the product is quantized again (same group rule, by `down`'s block_inputs) before `down`.
struct ExpertsArgs {
  LinearInput rows;
  View<const int32_t, 1> pair_rows;       // [num_pairs]
  View<const int32_t, 1> out_rows;        // [num_pairs], each another one
  std::span<const int32_t> offsets;       // [num_local_experts + 1]
  std::span<const PackedMatrix> gate_up;  // [num_local_experts]
  std::span<const PackedMatrix> down;
  int64_t width = 0;   // moe_intermediate_size (of this rank)
  ComputeView<2> out;  // [at least num_pairs, hidden]
};

struct CombineArgs {
  ComputeView<2> expert_rows;      // [num_pairs, hidden], in whatever order the experts gave them
  View<const int32_t, 2> row_ids;  // [num_rows, top_k]: the expert row of each slot
  View<const float, 2> weights;    // [num_rows, top_k]
  View<float, 2> sum;              // [num_rows, hidden]: sum += weights . expert_rows, in fp32, in slot order
  bool accumulate = true;          // false: as if the sum was zero before
};

struct EmbedArgs {
  View<const int32_t, 1> ids;                // [num_rows]
  const void* table = nullptr;               // [vocab_size, hidden] as the file holds it
  DType dtype = DType::kBF16;                // F32, BF16 or F16
  int64_t vocab_begin = 0, vocab_count = 0;  // the table's slice of the vocabulary; ids outside give zero rows
  View<float, 2> out;                        // [num_rows, hidden]
};

// ---- the operations
// ------------------------------------------------------------------------------------------------------

// The largest sizes that operations will be called with; scratch follows from it.
struct OpsLimits {
  int64_t max_rows = 0;         // rows of any operation
  int64_t max_pairs = 0;        // (row, expert) pairs
  int64_t max_in_features = 0;  // of any linear
  int64_t max_width = 0;        // output of a gated linear, experts' and dense
  int64_t max_heads = 0, max_head_dim = 0, max_kv_lora_rank = 0, max_positions = 0;
  int64_t max_index_heads = 0, max_index_dim = 0;  // of an indexer; 0: there is none
};

struct LevelCores;  // the inner loops of an instruction level (cores.h)

struct OpsContext {
  ThreadPool* threads = nullptr;
  std::span<std::byte> scratch;  // 64-byte aligned
  const LevelCores* cores = nullptr;
};

size_t ops_scratch_bytes(IsaLevel isa, const OpsLimits& limits, int num_threads);

// The operations of a level, with shape checks at every entry. Driven by one thread.
class Ops {
 public:
  // The error: scratch that cannot be had.
  static Result<Ops> create(IsaLevel isa, Device& device, const OpsLimits& limits);

  IsaLevel isa() const { return isa_; }
  size_t scratch_bytes() const { return scratch_.size(); }

  void embed(const EmbedArgs& args) const;
  void add_norm(const NormArgs& args) const;
  void quantize(View<const float, 2> rows, const QuantizedRows& out) const;
  // out [num_rows, out_features] = input . matrix^T
  void linear(const LinearInput& input, const PackedMatrix& matrix, View<float, 2> out) const;
  // out [num_rows, width] = silu(gate) * up; `out` may be empty if only `quantized` is wanted
  void gated_linear(const LinearInput& input, const PackedMatrix& gate_up, View<float, 2> out,
                    const QuantizedRows& quantized) const;
  // out[r][h] [num_rows, num_heads, out] = matrices[h] . x[r][h]; always in fp32
  void per_head_linear(View<const float, 3> x, std::span<const PackedMatrix> matrices, View<float, 3> out) const;
  // Rotates q_rope [num_rows, num_heads, rope_dim] in place.
  void rotate_queries(View<float, 3> q_rope, View<const int32_t, 1> positions, const RopeTable& rope,
                      RopePairs pairs = RopePairs::kNeighbours) const;
  void store_latents(const LatentStoreArgs& args) const;
  void store_index_keys(const IndexKeyStoreArgs& args) const;
  void load_latents(const LoadLatentsArgs& args) const;
  void attend_expanded(const ExpandedAttentionArgs& args) const;
  void attend_absorbed(const AbsorbedAttentionArgs& args) const;
  void choose_positions(const ChoosePositionsArgs& args) const;
  void route(const RouteArgs& args) const;
  void experts(const ExpertsArgs& args) const;
  void combine(const CombineArgs& args) const;
  void gather_rows(View<const float, 2> in, View<const int32_t, 1> row_ids, View<float, 2> out) const;
  void to_compute(View<const float, 2> in, const ComputeView<2>& out) const;
  void from_compute(const ComputeView<2>& in, View<float, 2> out) const;

 private:
  Ops(IsaLevel isa, Device& device, const OpsLimits& limits, Buffer scratch);
  OpsContext context() const { return {threads_, {scratch_.data(), scratch_.size()}, cores_}; }

  IsaLevel isa_;
  const LevelCores* cores_;
  ThreadPool* threads_;
  OpsLimits limits_;
  Buffer scratch_;
};

}  // namespace cachalot
