#include "kernels/cpu/rowwise.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

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

template <const RowCores& kCores>
void quantize_to(const QuantizedRows& out, int64_t row, const float* x) {
  if (!out.empty()) kCores.quantize(x, out.values.extent(1), out.group, out.values.row(row), out.scales.row(row));
}

template <const RowCores& kCores>
void write_row(const float* in, int64_t count, float* out) {
  std::memcpy(out, in, count * sizeof(float));
}
template <const RowCores& kCores>
void write_row(const float* in, int64_t count, bf16* out) {
  kCores.to_bf16(in, count, out);
}
template <const RowCores& kCores>
void read_row(const float* in, int64_t count, float* out) {
  std::memcpy(out, in, count * sizeof(float));
}
template <const RowCores& kCores>
void read_row(const bf16* in, int64_t count, float* out) {
  kCores.from_bf16(in, count, out);
}
template <const RowCores& kCores>
void read_row(const fp16* in, int64_t count, float* out) {
  kCores.from_fp16(in, count, out);
}

float norm_factor(float sum_of_squares, int64_t count, float epsilon) {
  return 1.f / std::sqrt(sum_of_squares / static_cast<float>(count) + epsilon);
}

template <const RowCores& kCores, class T>
void embed_rows(const OpsContext& context, const EmbedArgs& args) {
  const int64_t hidden = args.out.extent(1);
  for_each_row(context, args.ids.extent(0), hidden, [&](int64_t row, int) {
    const int64_t entry = args.ids(row) - args.vocab_begin;
    if (entry < 0 || entry >= args.vocab_count) {
      std::fill_n(args.out.row(row), hidden, 0.f);
    } else {
      read_row<kCores>(static_cast<const T*>(args.table) + entry * hidden, hidden, args.out.row(row));
    }
  });
}

// Masks the choice scores of all groups but the best `topk_groups`.
template <const RowCores& kCores>
void mask_groups(const RouteArgs& args, int64_t num_experts, float* choice) {
  constexpr float kMasked = -std::numeric_limits<float>::infinity();
  const int64_t group_size = num_experts / args.num_groups;
  float group_scores[kMaxExperts];
  bool kept[kMaxExperts] = {};
  for (int group = 0; group < args.num_groups; group++) {
    float first, second;
    kCores.largest_two(choice + group * group_size, group_size, &first, &second);
    group_scores[group] = first + (args.groups == RoutingGroups::kByTopTwo && group_size > 1 ? second : 0.f);
  }
  for (int place = 0; place < args.topk_groups; place++) {
    const int group = kCores.argmax(group_scores, args.num_groups);
    group_scores[group] = kMasked;
    kept[group] = true;
  }
  for (int group = 0; group < args.num_groups; group++) {
    if (!kept[group]) std::fill_n(choice + group * group_size, group_size, kMasked);
  }
}

template <const RowCores& kCores>
void choose(const RouteArgs& args, const float* scores, int64_t num_experts, int64_t top_k, int32_t* ids) {
  alignas(64) float choice[kMaxExperts];
  kCores.choice_scores(scores, args.choice_bias.empty() ? nullptr : args.choice_bias.data(), num_experts, choice);
  if (args.groups != RoutingGroups::kNone) mask_groups<kCores>(args, num_experts, choice);
  for (int64_t slot = 0; slot < top_k; slot++) {
    ids[slot] = kCores.argmax(choice, num_experts);
    choice[ids[slot]] = -std::numeric_limits<float>::infinity();
  }
}

template <const RowCores& kCores>
void route_row(const RouteArgs& args, int64_t row) {
  const int64_t num_experts = args.logits.extent(1), top_k = args.ids.extent(1);
  alignas(64) float scores[kMaxExperts];
  (args.score == RoutingScore::kSigmoid ? kCores.sigmoid : kCores.softmax)(args.logits.row(row), num_experts, scores);
  int32_t* ids = args.ids.row(row);
  if (args.forced_ids.empty()) {
    choose<kCores>(args, scores, num_experts, top_k, ids);
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

template <const RowCores& kCores>
size_t Rowwise<kCores>::scratch_bytes(const OpsLimits& limits, int num_threads) {
  const int64_t features = std::max(limits.max_in_features, limits.max_kv_lora_rank + limits.max_head_dim);
  return static_cast<size_t>(scratch_row_bytes(features) * num_threads);
}

template <const RowCores& kCores>
void Rowwise<kCores>::embed(const OpsContext& context, const EmbedArgs& args) {
  switch (args.dtype) {
    case DType::kF32:
      return embed_rows<kCores, float>(context, args);
    case DType::kBF16:
      return embed_rows<kCores, bf16>(context, args);
    default:
      return embed_rows<kCores, fp16>(context, args);
  }
}

template <const RowCores& kCores>
void Rowwise<kCores>::add_norm(const OpsContext& context, const NormArgs& args) {
  const int64_t features = args.residual.extent(1);
  for_each_row(context, args.residual.extent(0), features, [&](int64_t row, int thread_idx) {
    float* x = args.residual.row(row);
    const float squares = args.delta.empty() ? kCores.sum_of_squares(x, features)
                                             : kCores.add_and_square(x, args.delta.row(row), features);
    float* out = args.out.empty() ? scratch_row(context, features, thread_idx) : args.out.row(row);
    kCores.scale(x, norm_factor(squares, features, args.epsilon), args.weight.data(), features, out);
    quantize_to<kCores>(args.quantized, row, out);
  });
}

template <const RowCores& kCores>
void Rowwise<kCores>::rotate_queries(const OpsContext& context, View<float, 3> q_rope, View<const int32_t, 1> positions,
                                     const RopeTable& rope) {
  const int64_t num_heads = q_rope.extent(1), num_pairs = q_rope.extent(2) / 2;
  for_each_row(context, q_rope.extent(0), num_heads * q_rope.extent(2), [&](int64_t row, int) {
    const float *cos = rope.cos.row(positions(row)), *sin = rope.sin.row(positions(row));
    const View<float, 2> heads = q_rope[row];
    for (int64_t head = 0; head < num_heads; head++)
      kCores.rotate(heads.row(head), cos, sin, num_pairs, heads.row(head));
  });
}

template <const RowCores& kCores>
void Rowwise<kCores>::store_latents(const OpsContext& context, const LatentStoreArgs& args) {
  const int64_t features = args.kv_a.extent(1), kv_lora_rank = args.norm_weight.extent(0);
  visit_compute(args.cache.dtype(), [&]<class T>() {
    const View<T, 2> cache = args.cache.as<T>();
    for_each_row(context, args.kv_a.extent(0), features, [&](int64_t row, int thread_idx) {
      const int32_t position = args.positions(row);
      const float* x = args.kv_a.row(row);
      float* result = scratch_row(context, features, thread_idx);
      const float squares = kCores.sum_of_squares(x, kv_lora_rank);
      kCores.scale(x, norm_factor(squares, kv_lora_rank, args.epsilon), args.norm_weight.data(), kv_lora_rank, result);
      kCores.rotate(x + kv_lora_rank, args.rope.cos.row(position), args.rope.sin.row(position),
                    (features - kv_lora_rank) / 2, result + kv_lora_rank);
      write_row<kCores>(result, features, cache.row(args.slots(row)));
    });
  });
}

template <const RowCores& kCores>
void Rowwise<kCores>::load_latents(const OpsContext& context, const LoadLatentsArgs& args) {
  const bool floats = !args.out.empty();
  const int64_t num_positions = floats ? args.out.extent(0) : args.quantized.values.extent(0);
  const int64_t kv_lora_rank = floats ? args.out.extent(1) : args.quantized.values.extent(1);
  const int64_t block_size = args.context.block_size;
  visit_compute(args.context.cache.dtype(), [&]<class T>() {
    const View<T, 2> cache = args.context.cache.as<T>();
    for_each_row(context, num_positions, kv_lora_rank, [&](int64_t row, int thread_idx) {
      const int64_t position = args.first_position + row;
      const int64_t slot = args.context.blocks[position / block_size] * block_size + position % block_size;
      float* out = floats ? args.out.row(row) : scratch_row(context, kv_lora_rank, thread_idx);
      read_row<kCores>(cache.row(slot), kv_lora_rank, out);
      quantize_to<kCores>(args.quantized, row, out);
    });
  });
}

template <const RowCores& kCores>
void Rowwise<kCores>::route(const OpsContext& context, const RouteArgs& args) {
  // An expert's score costs about as much as five floats of other operations.
  for_each_row(context, args.logits.extent(0), 5 * args.logits.extent(1),
               [&](int64_t row, int) { route_row<kCores>(args, row); });
}

template <const RowCores& kCores>
void Rowwise<kCores>::combine(const OpsContext& context, const CombineArgs& args) {
  const int64_t hidden = args.sum.extent(1), top_k = args.row_ids.extent(1);
  visit_compute(args.expert_rows.dtype(), [&]<class T>() {
    const View<T, 2> expert_rows = args.expert_rows.as<T>();
    for_each_row(context, args.sum.extent(0), hidden * (top_k + 2) / 4, [&](int64_t row, int) {
      const T* rows[kMaxTopK];
      for (int64_t slot = 0; slot < top_k; slot++) rows[slot] = expert_rows.row(args.row_ids(row, slot));
      if constexpr (std::is_same_v<T, bf16>) {
        kCores.add_weighted_bf16(rows, args.weights.row(row), static_cast<int>(top_k), hidden, args.accumulate,
                                 args.sum.row(row));
      } else {
        kCores.add_weighted_f32(rows, args.weights.row(row), static_cast<int>(top_k), hidden, args.accumulate,
                                args.sum.row(row));
      }
    });
  });
}

template <const RowCores& kCores>
void Rowwise<kCores>::gather_rows(const OpsContext& context, View<const float, 2> in, View<const int32_t, 1> row_ids,
                                  View<float, 2> out) {
  for_each_row(context, row_ids.extent(0), in.extent(1),
               [&](int64_t row, int) { read_row<kCores>(in.row(row_ids(row)), in.extent(1), out.row(row)); });
}

template <const RowCores& kCores>
void Rowwise<kCores>::to_compute(const OpsContext& context, View<const float, 2> in, const ComputeView<2>& out) {
  visit_compute(out.dtype(), [&]<class T>() {
    const View<T, 2> rows = out.as<T>();
    for_each_row(context, in.extent(0), in.extent(1),
                 [&](int64_t row, int) { write_row<kCores>(in.row(row), in.extent(1), rows.row(row)); });
  });
}

template <const RowCores& kCores>
void Rowwise<kCores>::from_compute(const OpsContext& context, const ComputeView<2>& in, View<float, 2> out) {
  visit_compute(in.dtype(), [&]<class T>() {
    const View<T, 2> rows = in.as<T>();
    for_each_row(context, rows.extent(0), rows.extent(1),
                 [&](int64_t row, int) { read_row<kCores>(rows.row(row), rows.extent(1), out.row(row)); });
  });
}

template struct Rowwise<avx2::kRowCores>;
template struct Rowwise<avx512::kRowCores>;

}  // namespace cachalot
