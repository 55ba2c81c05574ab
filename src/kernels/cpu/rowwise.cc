#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "kernels/shape_check.h"

namespace cachalot {
namespace {

// A chunk of work that one thread takes: some microseconds, a wake-up being one or two.
constexpr int64_t kChunkElements = 16384;

// body(row, thread_idx) for every row; `row_elements` is what one row costs.
template <class Body>
void for_each_row(const OpsContext& context, int64_t num_rows, int64_t row_elements, Body body) {
  const int64_t grain = std::max<int64_t>(1, kChunkElements / std::max<int64_t>(1, row_elements));
  context.threads->parallel_for(num_rows, grain, [&](int64_t begin, int64_t end, int thread_idx) {
    for (int64_t row = begin; row < end; row++) body(row, thread_idx);
  });
}

// Bytes between the threads' scratch rows: whole cache lines.
int64_t scratch_row_bytes(int64_t features) {
  return (features * static_cast<int64_t>(sizeof(float)) + 63) / 64 * 64;
}

float* scratch_row(const OpsContext& context, int64_t features, int thread_idx) {
  return reinterpret_cast<float*>(context.scratch.data() + thread_idx * scratch_row_bytes(features));
}

void quantize_to(const RowCores& cores, const QuantizedRows& out, int64_t row, const float* x) {
  if (!out.empty()) cores.quantize(x, out.values.extent(1), out.group, out.values.row(row), out.scales.row(row));
}

void write_row(const RowCores&, const float* in, int64_t count, float* out) {
  std::memcpy(out, in, count * sizeof(float));
}
void write_row(const RowCores& cores, const float* in, int64_t count, bf16* out) {
  cores.to_bf16(in, count, out);
}
void read_row(const RowCores&, const float* in, int64_t count, float* out) {
  std::memcpy(out, in, count * sizeof(float));
}
void read_row(const RowCores& cores, const bf16* in, int64_t count, float* out) {
  cores.from_bf16(in, count, out);
}
void read_row(const RowCores& cores, const fp16* in, int64_t count, float* out) {
  cores.from_fp16(in, count, out);
}

float norm_factor(float sum_of_squares, int64_t count, float epsilon) {
  return 1.f / std::sqrt(sum_of_squares / static_cast<float>(count) + epsilon);
}

auto rotation(const RowCores& cores, RopePairs pairs) {
  return pairs == RopePairs::kHalves ? cores.rotate_halves : cores.rotate;
}

template <class T>
void embed_rows(const OpsContext& context, const EmbedArgs& args) {
  const RowCores& cores = *context.cores->rows;
  const int64_t hidden = args.out.extent(1);
  for_each_row(context, args.ids.extent(0), hidden, [&](int64_t row, int) {
    const int64_t entry = args.ids(row) - args.vocab_begin;
    if (entry < 0 || entry >= args.vocab_count) {
      std::fill_n(args.out.row(row), hidden, 0.f);
    } else {
      read_row(cores, static_cast<const T*>(args.table) + entry * hidden, hidden, args.out.row(row));
    }
  });
}

// Masks the choice scores of all groups but the best `topk_groups`.
void mask_groups(const RowCores& cores, const RouteArgs& args, int64_t num_experts, float* choice) {
  constexpr float kMasked = -std::numeric_limits<float>::infinity();
  const int64_t group_size = num_experts / args.num_groups;
  float group_scores[kMaxExperts];
  bool kept[kMaxExperts] = {};
  for (int group = 0; group < args.num_groups; group++) {
    float first, second;
    cores.largest_two(choice + group * group_size, group_size, &first, &second);
    group_scores[group] = first + (args.groups == RoutingGroups::kByTopTwo && group_size > 1 ? second : 0.f);
  }
  for (int place = 0; place < args.topk_groups; place++) {
    const int group = cores.argmax(group_scores, args.num_groups);
    group_scores[group] = kMasked;
    kept[group] = true;
  }
  for (int group = 0; group < args.num_groups; group++) {
    if (!kept[group]) std::fill_n(choice + group * group_size, group_size, kMasked);
  }
}

void choose(const RowCores& cores, const RouteArgs& args, const float* scores, int64_t num_experts, int64_t top_k,
            int32_t* ids) {
  alignas(64) float choice[kMaxExperts];
  cores.choice_scores(scores, args.choice_bias.empty() ? nullptr : args.choice_bias.data(), num_experts, choice);
  if (args.groups != RoutingGroups::kNone) mask_groups(cores, args, num_experts, choice);
  for (int64_t slot = 0; slot < top_k; slot++) {
    ids[slot] = cores.argmax(choice, num_experts);
    choice[ids[slot]] = -std::numeric_limits<float>::infinity();
  }
}

void route_row(const RowCores& cores, const RouteArgs& args, int64_t row) {
  const int64_t num_experts = args.logits.extent(1), top_k = args.ids.extent(1);
  alignas(64) float scores[kMaxExperts];
  (args.score == RoutingScore::kSigmoid ? cores.sigmoid : cores.softmax)(args.logits.row(row), num_experts, scores);
  int32_t* ids = args.ids.row(row);
  if (args.forced_ids.empty()) {
    choose(cores, args, scores, num_experts, top_k, ids);
  } else {
    std::copy_n(args.forced_ids.row(row), top_k, ids);
  }
  float* weights = args.weights.row(row);
  float sum = 0;
  for (int64_t slot = 0; slot < top_k; slot++) sum += weights[slot] = scores[ids[slot]];
  const float divisor = args.normalize ? sum + 1e-20f : 1.f;
  for (int64_t slot = 0; slot < top_k; slot++) weights[slot] = weights[slot] / divisor * args.scaling_factor;
}

}  // namespace

size_t row_scratch_bytes(const OpsLimits& limits, int num_threads) {
  const int64_t features =
      std::max({limits.max_in_features, limits.max_kv_lora_rank + limits.max_head_dim, limits.max_index_dim});
  return static_cast<size_t>(scratch_row_bytes(features) * num_threads);
}

void Ops::embed(const EmbedArgs& args) const {
  const ShapeCheck check("embed");
  check.equal("out", {"num_rows", args.ids.extent(0)}, args.out.extent(0));
  CHECK(args.dtype == DType::kF32 || args.dtype == DType::kBF16 || args.dtype == DType::kF16, "embed: no table of {}",
        dtype_name(args.dtype));
  switch (args.dtype) {
    case DType::kF32:
      return embed_rows<float>(context(), args);
    case DType::kBF16:
      return embed_rows<bf16>(context(), args);
    default:
      return embed_rows<fp16>(context(), args);
  }
}

void Ops::add_norm(const NormArgs& args) const {
  const ShapeCheck check("add_norm");
  const Dim num_rows{"num_rows", args.residual.extent(0)}, features{"features", args.residual.extent(1)};
  check.at_most("features", {"max_in_features", limits_.max_in_features}, features.value);
  check.shape_or_empty("delta", args.delta, num_rows, features);
  check.shape("weight", args.weight, features);
  check_result(check, args.out, args.quantized, num_rows, features);
  const RowCores& cores = *cores_->rows;
  const int64_t count = features.value;
  for_each_row(context(), num_rows.value, count, [&](int64_t row, int thread_idx) {
    float* x = args.residual.row(row);
    const float squares =
        args.delta.empty() ? cores.sum_of_squares(x, count) : cores.add_and_square(x, args.delta.row(row), count);
    float* out = args.out.empty() ? scratch_row(context(), count, thread_idx) : args.out.row(row);
    cores.scale(x, norm_factor(squares, count, args.epsilon), args.weight.data(), count, out);
    quantize_to(cores, args.quantized, row, out);
  });
}

void Ops::rotate_queries(View<float, 3> q_rope, View<const int32_t, 1> positions, const RopeTable& rope,
                         RopePairs pairs) const {
  const ShapeCheck check("rotate_queries");
  check.equal("positions", {"num_rows", q_rope.extent(0)}, positions.extent(0));
  check_rope(check, rope, {"rope_dim", q_rope.extent(2)});
  const auto rotate = rotation(*cores_->rows, pairs);
  const int64_t num_heads = q_rope.extent(1), num_pairs = q_rope.extent(2) / 2;
  for_each_row(context(), q_rope.extent(0), num_heads * q_rope.extent(2), [&](int64_t row, int) {
    const float *cos = rope.cos.row(positions(row)), *sin = rope.sin.row(positions(row));
    const View<float, 2> heads = q_rope[row];
    for (int64_t head = 0; head < num_heads; head++) rotate(heads.row(head), cos, sin, num_pairs, heads.row(head));
  });
}

void Ops::store_latents(const LatentStoreArgs& args) const {
  const ShapeCheck check("store_latents");
  const int64_t features = args.kv_a.extent(1), kv_lora_rank = args.norm_weight.extent(0);
  const Dim num_rows{"num_rows", args.kv_a.extent(0)};
  check.at_most("kv_lora_rank + rope_dim",
                {"max_kv_lora_rank + max_head_dim", limits_.max_kv_lora_rank + limits_.max_head_dim}, features);
  check.equal("the cache", {"kv_lora_rank + rope_dim", features}, args.cache.extent(1));
  check.shape("positions", args.positions, num_rows);
  check.shape("slots", args.slots, num_rows);
  check_rope(check, args.rope, {"rope_dim", features - kv_lora_rank});
  const RowCores& cores = *cores_->rows;
  visit_compute(args.cache.dtype(), [&]<class T>() {
    const View<T, 2> cache = args.cache.as<T>();
    for_each_row(context(), num_rows.value, features, [&](int64_t row, int thread_idx) {
      const int32_t position = args.positions(row);
      const float* x = args.kv_a.row(row);
      float* result = scratch_row(context(), features, thread_idx);
      const float squares = cores.sum_of_squares(x, kv_lora_rank);
      cores.scale(x, norm_factor(squares, kv_lora_rank, args.epsilon), args.norm_weight.data(), kv_lora_rank, result);
      cores.rotate(x + kv_lora_rank, args.rope.cos.row(position), args.rope.sin.row(position),
                   (features - kv_lora_rank) / 2, result + kv_lora_rank);
      write_row(cores, result, features, cache.row(args.slots(row)));
    });
  });
}

void Ops::store_index_keys(const IndexKeyStoreArgs& args) const {
  const ShapeCheck check("store_index_keys");
  const Dim num_rows{"num_rows", args.keys.extent(0)}, dim{"dim", args.keys.extent(1)};
  const int64_t count = dim.value, num_pairs = args.rope.cos.extent(1);
  check.at_most("dim", {"max_index_dim", limits_.max_index_dim}, count);
  check.at_most("rope_dim", dim, 2 * num_pairs);
  check.shape("norm_weight", args.norm_weight, dim);
  check.shape("norm_bias", args.norm_bias, dim);
  check.equal("the cache", dim, args.cache.extent(1));
  check.shape("positions", args.positions, num_rows);
  check.shape("slots", args.slots, num_rows);
  check_rope(check, args.rope, {"rope_dim", 2 * num_pairs});
  const RowCores& cores = *cores_->rows;
  const auto rotate = rotation(cores, args.pairs);
  visit_compute(args.cache.dtype(), [&]<class T>() {
    const View<T, 2> cache = args.cache.as<T>();
    for_each_row(context(), num_rows.value, count, [&](int64_t row, int thread_idx) {
      const float* x = args.keys.row(row);
      float* result = scratch_row(context(), count, thread_idx);
      double sum = 0;  // some hundred numbers: a plain loop does
      for (int64_t i = 0; i < count; i++) sum += static_cast<double>(x[i]);
      const auto mean = static_cast<float>(sum / static_cast<double>(count));
      for (int64_t i = 0; i < count; i++) result[i] = x[i] - mean;
      const float factor = norm_factor(cores.sum_of_squares(result, count), count, args.epsilon);
      cores.scale(result, factor, args.norm_weight.data(), count, result);
      for (int64_t i = 0; i < count; i++) result[i] += args.norm_bias(i);
      const int32_t position = args.positions(row);
      rotate(result, args.rope.cos.row(position), args.rope.sin.row(position), num_pairs, result);
      write_row(cores, result, count, cache.row(args.slots(row)));
    });
  });
}

void Ops::load_latents(const LoadLatentsArgs& args) const {
  const ShapeCheck check("load_latents");
  const bool floats = !args.out.empty();
  const Dim num_positions{"num_positions", floats ? args.out.extent(0) : args.quantized.values.extent(0)};
  const Dim kv_lora_rank{"kv_lora_rank", floats ? args.out.extent(1) : args.quantized.values.extent(1)};
  check.at_most("kv_lora_rank", {"max_kv_lora_rank", limits_.max_kv_lora_rank}, kv_lora_rank.value);
  check_result(check, args.out, args.quantized, num_positions, kv_lora_rank);
  check_context(check, args.context, args.first_position + num_positions.value, kv_lora_rank);
  const RowCores& cores = *cores_->rows;
  const int64_t count = kv_lora_rank.value;
  visit_compute(args.context.cache.dtype(), [&]<class T>() {
    const View<T, 2> cache = args.context.cache.as<T>();
    for_each_row(context(), num_positions.value, count, [&](int64_t row, int thread_idx) {
      float* out = floats ? args.out.row(row) : scratch_row(context(), count, thread_idx);
      read_row(cores, cache.row(args.context.slot(args.first_position + row)), count, out);
      quantize_to(cores, args.quantized, row, out);
    });
  });
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
  const RowCores& cores = *cores_->rows;
  // An expert's score costs about as much as five floats of other operations.
  for_each_row(context(), num_rows.value, 5 * num_experts.value,
               [&](int64_t row, int) { route_row(cores, args, row); });
}

void Ops::combine(const CombineArgs& args) const {
  const ShapeCheck check("combine");
  const int64_t hidden = args.sum.extent(1), top_k = args.row_ids.extent(1);
  const Dim num_rows{"num_rows", args.sum.extent(0)};
  check.at_most("top_k", {"the most", kMaxTopK}, top_k);
  check.shape("row_ids", args.row_ids, num_rows, Dim{"top_k", top_k});
  check.shape("weights", args.weights, num_rows, Dim{"top_k", top_k});
  check.equal("expert_rows", {"hidden", hidden}, args.expert_rows.extent(1));
  const RowCores& cores = *cores_->rows;
  visit_compute(args.expert_rows.dtype(), [&]<class T>() {
    const View<T, 2> expert_rows = args.expert_rows.as<T>();
    for_each_row(context(), num_rows.value, hidden * (top_k + 2) / 4, [&](int64_t row, int) {
      const T* rows[kMaxTopK];
      for (int64_t slot = 0; slot < top_k; slot++) rows[slot] = expert_rows.row(args.row_ids(row, slot));
      if constexpr (std::is_same_v<T, bf16>) {
        cores.add_weighted_bf16(rows, args.weights.row(row), static_cast<int>(top_k), hidden, args.accumulate,
                                args.sum.row(row));
      } else {
        cores.add_weighted_f32(rows, args.weights.row(row), static_cast<int>(top_k), hidden, args.accumulate,
                               args.sum.row(row));
      }
    });
  });
}

void Ops::gather_rows(View<const float, 2> in, View<const int32_t, 1> row_ids, View<float, 2> out) const {
  ShapeCheck("gather_rows").shape("out", out, Dim{"num_rows", row_ids.extent(0)}, Dim{"features", in.extent(1)});
  const RowCores& cores = *cores_->rows;
  for_each_row(context(), row_ids.extent(0), in.extent(1),
               [&](int64_t row, int) { read_row(cores, in.row(row_ids(row)), in.extent(1), out.row(row)); });
}

void Ops::to_compute(View<const float, 2> in, const ComputeView<2>& out) const {
  ShapeCheck("to_compute").shape("out", out, Dim{"num_rows", in.extent(0)}, Dim{"features", in.extent(1)});
  const RowCores& cores = *cores_->rows;
  visit_compute(out.dtype(), [&]<class T>() {
    const View<T, 2> rows = out.as<T>();
    for_each_row(context(), in.extent(0), in.extent(1),
                 [&](int64_t row, int) { write_row(cores, in.row(row), in.extent(1), rows.row(row)); });
  });
}

void Ops::from_compute(const ComputeView<2>& in, View<float, 2> out) const {
  ShapeCheck("from_compute").shape("out", out, Dim{"num_rows", in.extent(0)}, Dim{"features", in.extent(1)});
  const RowCores& cores = *cores_->rows;
  visit_compute(in.dtype(), [&]<class T>() {
    const View<T, 2> rows = in.as<T>();
    for_each_row(context(), rows.extent(0), rows.extent(1),
                 [&](int64_t row, int) { read_row(cores, rows.row(row), rows.extent(1), out.row(row)); });
  });
}

}  // namespace cachalot
