#include "kernels/ops.h"

#include <algorithm>
#include <iterator>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/math.h"
#include "kernels/operations.h"

namespace cachalot {
namespace {

// An extent by its name in the operation's comment, e.g. {"num_rows", 12}.
struct Dim {
  std::string_view symbol;
  int64_t value = 0;
};

// The checks at an operation's entry. A broken one aborts with operation, argument, symbol and both values.
class ShapeCheck {
 public:
  explicit ShapeCheck(std::string_view operation) : operation_(operation) {}

  void equal(std::string_view what, Dim expected, int64_t actual) const {
    CHECK(actual == expected.value, "{}: {} of {} is {}, should be {}", operation_, expected.symbol, what, actual,
          expected.value);
  }
  void at_most(std::string_view what, Dim limit, int64_t actual) const {
    CHECK(actual <= limit.value, "{}: {} is {}, {} is {}", operation_, what, actual, limit.symbol, limit.value);
  }
  void at_least(std::string_view what, Dim limit, int64_t actual) const {
    CHECK(actual >= limit.value, "{}: {} is {}, {} is {}", operation_, what, actual, limit.symbol, limit.value);
  }
  void multiple(std::string_view what, Dim unit, int64_t actual) const {
    CHECK(unit.value > 0 && actual % unit.value == 0, "{}: {} is {}, no multiple of {} {}", operation_, what, actual,
          unit.symbol, unit.value);
  }
  void require(bool condition, std::string_view what) const { CHECK(condition, "{}: {}", operation_, what); }

  // Every extent of a View or ComputeView.
  template <class Window, class... Dims>
  void shape(std::string_view name, const Window& window, Dims... dims) const {
    int dim = 0;
    (equal(name, dims, window.extent(dim++)), ...);
  }
  template <class Window, class... Dims>
  void shape_or_empty(std::string_view name, const Window& window, Dims... dims) const {
    if (!window.empty()) shape(name, window, dims...);
  }

 private:
  std::string_view operation_;
};

constexpr int64_t kPair = 2;  // rotated numbers come in pairs

void check_quantized(const ShapeCheck& check, const QuantizedRows& rows, Dim num_rows, Dim features) {
  if (rows.empty()) return;
  check.require(rows.group == 32 || rows.group == 64, "groups of quantized rows are 32 or 64 inputs");
  check.shape("quantized values", rows.values, num_rows, features);
  check.shape("quantized scales", rows.scales, num_rows, Dim{"num_groups", ceil_div(features.value, rows.group)});
}

// Values or int8 rows, or both alike.
void check_input(const ShapeCheck& check, const LinearInput& input, Dim num_rows, Dim in_features) {
  if (num_rows.value == 0) return;
  check.equal("input", in_features, input.num_features());
  check.shape_or_empty("input values", input.values, num_rows, in_features);
  check_quantized(check, input.quantized, num_rows, in_features);
}

void check_result(const ShapeCheck& check, View<const float, 2> out, const QuantizedRows& quantized, Dim num_rows,
                  Dim features) {
  check.shape_or_empty("out", out, num_rows, features);
  check_quantized(check, quantized, num_rows, features);
  check.require(!out.empty() || !quantized.empty() || num_rows.value == 0, "neither floats nor int8 rows are wanted");
}

void check_matrix(const ShapeCheck& check, std::string_view name, const PackedMatrix& matrix, Dim out_features,
                  Dim in_features) {
  check.equal(name, out_features, matrix.shape.out_features);
  check.equal(name, in_features, matrix.shape.in_features);
}

Dim gate_up_outputs(int64_t width) {
  return {"out_features (2 x whole strips of width)", 2 * round_up(width, kStrip)};
}

void check_rope(const ShapeCheck& check, const RopeTable& rope, Dim rope_dim) {
  check.multiple("rope_dim", {"a pair's", kPair}, rope_dim.value);
  check.equal("cos", {"rope_dim / 2", rope_dim.value / kPair}, rope.cos.extent(1));
  check.shape("sin", rope.sin, Dim{"max_position", rope.cos.extent(0)}, Dim{"rope_dim / 2", rope_dim.value / kPair});
}

// The sequence's blocks hold `num_positions`, and the cache at least `features` numbers a slot.
void check_context(const ShapeCheck& check, const CachedContext& context, int64_t num_positions, Dim features) {
  check.at_least("the cache's width", features, context.cache.extent(1));
  check.at_least("block_size", {"the smallest", 1}, context.block_size);
  check.at_most("the last position + 1",
                {"the capacity of the sequence's blocks", std::ssize(context.blocks) * context.block_size},
                num_positions);
}

}  // namespace

const LevelCores& level_cores(IsaLevel isa) {
  static constexpr const LevelCores* kLevels[] = {&reference::kCores, &avx2::kCores, &avx512::kCores};
  return *kLevels[static_cast<size_t>(isa)];
}

// The families use the scratch one after another, so it is as large as the largest need.
size_t ops_scratch_bytes(IsaLevel isa, const OpsLimits& limits, int num_threads) {
  return std::max({row_scratch_bytes(limits, num_threads),
                   linear_scratch_bytes(*level_cores(isa).linear, limits, num_threads),
                   attention_scratch_bytes(limits, num_threads)});
}

Result<Ops> Ops::create(IsaLevel isa, Device& device, const OpsLimits& limits) {
  ASSIGN_OR_RETURN(Buffer scratch, device.allocate(ops_scratch_bytes(isa, limits, device.threads().num_threads())));
  return Ops(isa, device, limits, std::move(scratch));
}

Ops::Ops(IsaLevel isa, Device& device, const OpsLimits& limits, Buffer scratch)
    : isa_(isa),
      cores_(&level_cores(isa)),
      threads_(&device.threads()),
      limits_(limits),
      scratch_(std::move(scratch)) {}

void Ops::embed(const EmbedArgs& args) const {
  const ShapeCheck check("embed");
  check.equal("out", {"num_rows", args.ids.extent(0)}, args.out.extent(0));
  CHECK(args.dtype == DType::kF32 || args.dtype == DType::kBF16 || args.dtype == DType::kF16, "embed: no table of {}",
        dtype_name(args.dtype));
  cachalot::embed(context(), args);
}

void Ops::add_norm(const NormArgs& args) const {
  const ShapeCheck check("add_norm");
  const Dim num_rows{"num_rows", args.residual.extent(0)}, features{"features", args.residual.extent(1)};
  check.at_most("features", {"max_in_features", limits_.max_in_features}, features.value);
  check.shape_or_empty("delta", args.delta, num_rows, features);
  check.shape("weight", args.weight, features);
  check_result(check, args.out, args.quantized, num_rows, features);
  cachalot::add_norm(context(), args);
}

void Ops::quantize(View<const float, 2> rows, const QuantizedRows& out) const {
  CHECK(!out.empty(), "quantize: nowhere to put the result");
  check_quantized(ShapeCheck("quantize"), out, {"num_rows", rows.extent(0)}, {"features", rows.extent(1)});
  cachalot::quantize(context(), rows, out);
}

void Ops::linear(const LinearInput& input, const PackedMatrix& matrix, View<float, 2> out) const {
  const ShapeCheck check("linear");
  const Dim num_rows{"num_rows", input.num_rows()};
  check.at_most("num_rows", {"max_rows", limits_.max_rows}, num_rows.value);
  check.at_most("in_features", {"max_in_features", limits_.max_in_features}, matrix.shape.in_features);
  check_input(check, input, num_rows, {"in_features", matrix.shape.in_features});
  check.shape("out", out, num_rows, Dim{"out_features", matrix.shape.out_features});
  cachalot::linear(context(), input, matrix, out);
}

void Ops::gated_linear(const LinearInput& input, const PackedMatrix& gate_up, View<float, 2> out,
                       const QuantizedRows& quantized) const {
  const ShapeCheck check("gated_linear");
  const Dim num_rows{"num_rows", input.num_rows()}, in_features{"in_features", gate_up.shape.in_features};
  const Dim width{"width", out.empty() ? quantized.values.extent(1) : out.extent(1)};
  check.at_most("num_rows", {"max_rows", limits_.max_rows}, num_rows.value);
  check.at_most("in_features", {"max_in_features", limits_.max_in_features}, in_features.value);
  check.at_most("width", {"max_width", limits_.max_width}, width.value);
  check_input(check, input, num_rows, in_features);
  if (num_rows.value > 0) check_matrix(check, "gate_up", gate_up, gate_up_outputs(width.value), in_features);
  check_result(check, out, quantized, num_rows, width);
  cachalot::gated_linear(context(), input, gate_up, out, quantized);
}

void Ops::per_head_linear(View<const float, 3> x, std::span<const PackedMatrix> matrices, View<float, 3> out) const {
  const ShapeCheck check("per_head_linear");
  check.at_most("num_rows", {"max_rows", limits_.max_rows}, x.extent(0));
  check.at_most("num_heads", {"max_heads", limits_.max_heads}, x.extent(1));
  check.equal("matrices", {"num_heads", x.extent(1)}, std::ssize(matrices));
  check.equal("out", {"num_rows", x.extent(0)}, out.extent(0));
  check.equal("out", {"num_heads", x.extent(1)}, out.extent(1));
  for (const PackedMatrix& matrix : matrices) {
    check_matrix(check, "a head's matrix", matrix, {"out_features", out.extent(2)}, {"in_features", x.extent(2)});
  }
  cachalot::per_head_linear(context(), x, matrices, out);
}

void Ops::rotate_queries(View<float, 3> q_rope, View<const int32_t, 1> positions, const RopeTable& rope) const {
  const ShapeCheck check("rotate_queries");
  check.equal("positions", {"num_rows", q_rope.extent(0)}, positions.extent(0));
  check_rope(check, rope, {"rope_dim", q_rope.extent(2)});
  cachalot::rotate_queries(context(), q_rope, positions, rope);
}

void Ops::store_latents(const LatentStoreArgs& args) const {
  const ShapeCheck check("store_latents");
  const Dim num_rows{"num_rows", args.kv_a.extent(0)}, kv_lora_rank{"kv_lora_rank", args.norm_weight.extent(0)};
  check.at_most("kv_lora_rank + rope_dim",
                {"max_kv_lora_rank + max_head_dim", limits_.max_kv_lora_rank + limits_.max_head_dim},
                args.kv_a.extent(1));
  check.equal("the cache", {"kv_lora_rank + rope_dim", args.kv_a.extent(1)}, args.cache.extent(1));
  check.shape("positions", args.positions, num_rows);
  check.shape("slots", args.slots, num_rows);
  check_rope(check, args.rope, {"rope_dim", args.kv_a.extent(1) - kv_lora_rank.value});
  cachalot::store_latents(context(), args);
}

void Ops::load_latents(const LoadLatentsArgs& args) const {
  const ShapeCheck check("load_latents");
  const bool floats = !args.out.empty();
  const Dim num_positions{"num_positions", floats ? args.out.extent(0) : args.quantized.values.extent(0)};
  const Dim kv_lora_rank{"kv_lora_rank", floats ? args.out.extent(1) : args.quantized.values.extent(1)};
  check.at_most("kv_lora_rank", {"max_kv_lora_rank", limits_.max_kv_lora_rank}, kv_lora_rank.value);
  check_result(check, args.out, args.quantized, num_positions, kv_lora_rank);
  check_context(check, args.context, args.first_position + num_positions.value, kv_lora_rank);
  cachalot::load_latents(context(), args);
}

void Ops::attend_expanded(const ExpandedAttentionArgs& args) const {
  const ShapeCheck check("attend_expanded");
  const Dim num_rows{"num_rows", args.q.extent(0)}, num_heads{"num_heads", args.q.extent(1)};
  const Dim v_dim{"v_dim", args.out.extent(2)}, chunk_positions{"chunk_positions", args.kv.extent(0)};
  check.at_most("num_rows", {"max_rows", limits_.max_rows}, num_rows.value);
  check.at_most("num_heads", {"max_heads", limits_.max_heads}, num_heads.value);
  check.at_most("nope_dim + rope_dim", {"max_head_dim", limits_.max_head_dim}, args.q.extent(2));
  check.at_most("v_dim", {"max_head_dim", limits_.max_head_dim}, v_dim.value);
  check.equal("q", {"nope_dim + rope_dim", args.nope_dim + args.rope_dim}, args.q.extent(2));
  check.shape("kv", args.kv, chunk_positions, num_heads, Dim{"nope_dim + v_dim", args.nope_dim + v_dim.value});
  check.shape("out", args.out, num_rows, num_heads, v_dim);
  check.shape("row_max", args.row_max, num_rows, num_heads);
  check.shape("row_sum", args.row_sum, num_rows, num_heads);
  check.multiple("first_chunk_position", {"kAttentionTile", kAttentionTile}, args.first_chunk_position);
  check_context(check, args.context, args.first_chunk_position + chunk_positions.value, {"rope_dim", args.rope_dim});
  cachalot::attend_expanded(context(), args);
}

void Ops::attend_absorbed(const AbsorbedAttentionArgs& args) const {
  const ShapeCheck check("attend_absorbed");
  const Dim num_rows{"num_rows", args.q_latent.extent(0)}, num_heads{"num_heads", args.q_latent.extent(1)};
  const Dim kv_lora_rank{"kv_lora_rank", args.q_latent.extent(2)}, rope_dim{"rope_dim", args.q_rope.extent(2)};
  check.at_most("num_rows", {"max_rows", limits_.max_rows}, num_rows.value);
  check.at_most("num_heads", {"max_heads", limits_.max_heads}, num_heads.value);
  check.at_most("kv_lora_rank", {"max_kv_lora_rank", limits_.max_kv_lora_rank}, kv_lora_rank.value);
  check.shape("q_rope", args.q_rope, num_rows, num_heads, rope_dim);
  check.shape("out", args.out, num_rows, num_heads, kv_lora_rank);
  check.equal("rows", num_rows, std::ssize(args.rows));
  for (const AbsorbedRow& row : args.rows) {
    check.at_most("a row's position", {"max_positions - 1", limits_.max_positions - 1}, row.position);
    check.equal("the cache", {"kv_lora_rank + rope_dim", kv_lora_rank.value + rope_dim.value},
                row.context.cache.extent(1));
    check_context(check, row.context, row.position + 1, kv_lora_rank);
  }
  cachalot::attend_absorbed(context(), args);
}

void Ops::route(const RouteArgs& args) const {
  const ShapeCheck check("route");
  const Dim num_rows{"num_rows", args.logits.extent(0)}, num_experts{"num_experts", args.logits.extent(1)};
  const Dim top_k{"top_k", args.ids.extent(1)};
  check.at_most("num_experts", {"the most", kMaxExperts}, num_experts.value);
  check.shape_or_empty("choice_bias", args.choice_bias, num_experts);
  check.shape_or_empty("forced_ids", args.forced_ids, num_rows, top_k);
  check.shape("ids", args.ids, num_rows, top_k);
  check.shape("weights", args.weights, num_rows, top_k);
  int64_t candidates = num_experts.value;
  if (args.groups != RoutingGroups::kNone) {
    check.at_most("num_groups", {"the most", kMaxExperts}, args.num_groups);
    check.at_most("topk_groups", {"num_groups", args.num_groups}, args.topk_groups);
    check.multiple("num_experts", {"num_groups", args.num_groups}, num_experts.value);
    candidates = num_experts.value / args.num_groups * args.topk_groups;
  }
  check.at_most("top_k", {"the number of experts to choose from", candidates}, top_k.value);
  cachalot::route(context(), args);
}

void Ops::experts(const ExpertsArgs& args) const {
  const ShapeCheck check("experts");
  const Dim num_experts{"num_local_experts", std::ssize(args.gate_up)},
      num_pairs{"num_pairs", args.pair_rows.extent(0)};
  const Dim num_rows{"num_rows", args.rows.num_rows()}, hidden{"hidden", args.out.extent(1)},
      width{"width", args.width};
  check.at_most("num_rows", {"max_rows", limits_.max_rows}, num_rows.value);
  check.at_most("num_pairs", {"max_pairs", limits_.max_pairs}, num_pairs.value);
  check.at_most("width", {"max_width", limits_.max_width}, width.value);
  check.at_most("hidden", {"max_in_features", limits_.max_in_features}, hidden.value);
  check_input(check, args.rows, num_rows, hidden);
  check.equal("down", num_experts, std::ssize(args.down));
  check.equal("offsets", {"num_local_experts + 1", num_experts.value + 1}, std::ssize(args.offsets));
  check.equal("the last offset", num_pairs, args.offsets.back());
  check.shape("out_rows", args.out_rows, num_pairs);
  check.at_least("the number of rows of out", num_pairs, args.out.extent(0));
  for (int64_t expert = 0; expert < num_experts.value; expert++) {
    check_matrix(check, "an expert's gate_up", args.gate_up[expert], gate_up_outputs(width.value), hidden);
    check_matrix(check, "an expert's down", args.down[expert], hidden, width);
  }
  cachalot::experts(context(), args);
}

void Ops::combine(const CombineArgs& args) const {
  const ShapeCheck check("combine");
  const Dim num_rows{"num_rows", args.sum.extent(0)}, top_k{"top_k", args.row_ids.extent(1)};
  check.at_most("top_k", {"the most", kMaxTopK}, top_k.value);
  check.shape("row_ids", args.row_ids, num_rows, top_k);
  check.shape("weights", args.weights, num_rows, top_k);
  check.equal("expert_rows", {"hidden", args.sum.extent(1)}, args.expert_rows.extent(1));
  cachalot::combine(context(), args);
}

void Ops::gather_rows(View<const float, 2> in, View<const int32_t, 1> row_ids, View<float, 2> out) const {
  ShapeCheck("gather_rows").shape("out", out, Dim{"num_rows", row_ids.extent(0)}, Dim{"features", in.extent(1)});
  cachalot::gather_rows(context(), in, row_ids, out);
}

void Ops::to_compute(View<const float, 2> in, const ComputeView<2>& out) const {
  ShapeCheck("to_compute").shape("out", out, Dim{"num_rows", in.extent(0)}, Dim{"features", in.extent(1)});
  cachalot::to_compute(context(), in, out);
}

void Ops::from_compute(const ComputeView<2>& in, View<float, 2> out) const {
  ShapeCheck("from_compute").shape("out", out, Dim{"num_rows", in.extent(0)}, Dim{"features", in.extent(1)});
  cachalot::from_compute(context(), in, out);
}

}  // namespace cachalot
