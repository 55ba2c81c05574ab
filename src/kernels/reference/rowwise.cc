#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/operations.h"

namespace cachalot::reference {
void quantize_row(const float* x, int64_t count, int group, int8_t* values, float* scales) {
  for (int64_t begin = 0; begin < count; begin += group) {
    const int64_t end = std::min<int64_t>(begin + group, count);
    float largest = 0;
    for (int64_t i = begin; i < end; i++) largest = std::max(largest, std::fabs(x[i]));
    const bool zero = !(largest >= kSmallestQuantized);
    *scales++ = zero ? 0.f : largest / 127.f;
    const float factor = zero ? 0.f : 127.f / largest;
    for (int64_t i = begin; i < end; i++) values[i] = static_cast<int8_t>(std::nearbyint(x[i] * factor));
  }
}

namespace {

// The rule of sums of cores.h: step(i, sum) gives `sum` with element i added.
template <class Step>
float sum_in_order(int64_t count, Step step) {
  float sums[kPartialSums] = {};
  for (int64_t i = 0; i < count; i++) sums[i % kPartialSums] = step(i, sums[i % kPartialSums]);
  for (int half = kPartialSums / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; i++) sums[i] += sums[i + half];
  }
  return sums[0];
}

template <class T>
void read_row(const T* in, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i++) out[i] = static_cast<float>(in[i]);
}

// 1 / sqrt(mean of squares + epsilon)
float norm_factor(const float* x, int64_t count, float epsilon) {
  const float sum = sum_in_order(count, [&](int64_t i, float sum) { return std::fma(x[i], x[i], sum); });
  return 1.f / std::sqrt(sum / static_cast<float>(count) + epsilon);
}

struct Pair {
  float first, second;
};
Pair rotated(Pair x, float cos, float sin) {
  return {x.first * cos - x.second * sin, x.first * sin + x.second * cos};
}

void embed(const OpsContext&, const EmbedArgs& args) {
  const int64_t hidden = args.out.extent(1);
  for (int64_t row = 0; row < args.ids.extent(0); row++) {
    float* out = args.out.row(row);
    const int64_t entry = args.ids(row) - args.vocab_begin;
    if (entry < 0 || entry >= args.vocab_count) {
      std::fill_n(out, hidden, 0.f);
    } else if (args.dtype == DType::kF32) {
      read_row(static_cast<const float*>(args.table) + entry * hidden, hidden, out);
    } else if (args.dtype == DType::kBF16) {
      read_row(static_cast<const bf16*>(args.table) + entry * hidden, hidden, out);
    } else {
      read_row(static_cast<const fp16*>(args.table) + entry * hidden, hidden, out);
    }
  }
}

void add_norm(const OpsContext& context, const NormArgs& args) {
  const int64_t features = args.residual.extent(1);
  // Where only int8 rows are wanted, the floats go to the scratch.
  float* scratch = reinterpret_cast<float*>(context.scratch.data());
  for (int64_t row = 0; row < args.residual.extent(0); row++) {
    float* x = args.residual.row(row);
    if (!args.delta.empty()) {
      for (int64_t i = 0; i < features; i++) x[i] += args.delta(row, i);
    }
    const float factor = norm_factor(x, features, args.epsilon);
    float* out = args.out.empty() ? scratch : args.out.row(row);
    for (int64_t i = 0; i < features; i++) out[i] = x[i] * factor * args.weight(i);
    const QuantizedRows& quantized = args.quantized;
    if (!quantized.empty())
      quantize_row(out, features, quantized.group, quantized.values.row(row), quantized.scales.row(row));
  }
}

void rotate_queries(const OpsContext&, View<float, 3> q_rope, View<const int32_t, 1> positions, const RopeTable& rope) {
  for (int64_t row = 0; row < q_rope.extent(0); row++) {
    for (int64_t head = 0; head < q_rope.extent(1); head++) {
      for (int64_t i = 0; i < q_rope.extent(2); i += 2) {
        float &first = q_rope(row, head, i), &second = q_rope(row, head, i + 1);
        const Pair result = rotated({first, second}, rope.cos(positions(row), i / 2), rope.sin(positions(row), i / 2));
        first = result.first, second = result.second;
      }
    }
  }
}

void store_latents(const OpsContext&, const LatentStoreArgs& args) {
  const int64_t kv_lora_rank = args.norm_weight.extent(0);
  visit_compute(args.cache.dtype(), [&]<class T>() {
    const View<T, 2> cache = args.cache.as<T>();
    for (int64_t row = 0; row < args.kv_a.extent(0); row++) {
      const float* x = args.kv_a.row(row);
      T* out = cache.row(args.slots(row));
      const float factor = norm_factor(x, kv_lora_rank, args.epsilon);
      for (int64_t i = 0; i < kv_lora_rank; i++) out[i] = static_cast<T>(x[i] * factor * args.norm_weight(i));
      for (int64_t i = kv_lora_rank; i < args.kv_a.extent(1); i += 2) {
        const int64_t angle = (i - kv_lora_rank) / 2;
        const Pair key = rotated({x[i], x[i + 1]}, args.rope.cos(args.positions(row), angle),
                                 args.rope.sin(args.positions(row), angle));
        out[i] = static_cast<T>(key.first), out[i + 1] = static_cast<T>(key.second);
      }
    }
  });
}

void load_latents(const OpsContext& context, const LoadLatentsArgs& args) {
  const QuantizedRows& quantized = args.quantized;
  const bool floats = !args.out.empty();
  const int64_t num_positions = floats ? args.out.extent(0) : quantized.values.extent(0);
  const int64_t kv_lora_rank = floats ? args.out.extent(1) : quantized.values.extent(1);
  float* scratch = reinterpret_cast<float*>(context.scratch.data());
  visit_compute(args.context.cache.dtype(), [&]<class T>() {
    const View<T, 2> cache = args.context.cache.as<T>();
    for (int64_t row = 0; row < num_positions; row++) {
      float* out = floats ? args.out.row(row) : scratch;
      read_row(cache.row(args.context.slot(args.first_position + row)), kv_lora_rank, out);
      if (!quantized.empty())
        quantize_row(out, kv_lora_rank, quantized.group, quantized.values.row(row), quantized.scales.row(row));
    }
  });
}

void combine(const OpsContext&, const CombineArgs& args) {
  visit_compute(args.expert_rows.dtype(), [&]<class T>() {
    const View<T, 2> expert_rows = args.expert_rows.as<T>();
    for (int64_t row = 0; row < args.sum.extent(0); row++) {
      if (!args.accumulate) std::fill_n(args.sum.row(row), args.sum.extent(1), 0.f);
      for (int64_t slot = 0; slot < args.row_ids.extent(1); slot++) {
        const T* expert_row = expert_rows.row(args.row_ids(row, slot));
        const float weight = args.weights(row, slot);
        for (int64_t i = 0; i < args.sum.extent(1); i++) {
          args.sum(row, i) = std::fma(weight, static_cast<float>(expert_row[i]), args.sum(row, i));
        }
      }
    }
  });
}

void gather_rows(const OpsContext&, View<const float, 2> in, View<const int32_t, 1> row_ids, View<float, 2> out) {
  for (int64_t row = 0; row < row_ids.extent(0); row++) std::copy_n(in.row(row_ids(row)), in.extent(1), out.row(row));
}

void to_compute(const OpsContext&, View<const float, 2> in, const ComputeView<2>& out) {
  visit_compute(out.dtype(), [&]<class T>() {
    const View<T, 2> rows = out.as<T>();
    for (int64_t row = 0; row < in.extent(0); row++) {
      for (int64_t i = 0; i < in.extent(1); i++) rows(row, i) = static_cast<T>(in(row, i));
    }
  });
}

void from_compute(const OpsContext&, const ComputeView<2>& in, View<float, 2> out) {
  visit_compute(in.dtype(), [&]<class T>() {
    for (int64_t row = 0; row < in.extent(0); row++) read_row(in.as<T>().row(row), in.extent(1), out.row(row));
  });
}

constexpr float kMasked = -std::numeric_limits<float>::infinity();

void score_row(const RouteArgs& args, const float* logits, int64_t num_experts, float* scores) {
  if (args.score == RoutingScore::kSigmoid) {
    for (int64_t expert = 0; expert < num_experts; expert++) {
      const float small = exp_nonpositive(-std::fabs(logits[expert]));
      scores[expert] = (logits[expert] < 0 ? small : 1.f) / (1.f + small);
    }
    return;
  }
  const float largest = *std::max_element(logits, logits + num_experts);
  const float sum = sum_in_order(num_experts, [&](int64_t expert, float sum) {
    scores[expert] = exp_nonpositive(logits[expert] - largest);
    return sum + scores[expert];
  });
  for (int64_t expert = 0; expert < num_experts; expert++) scores[expert] /= sum;
}

// The indices of the `top` largest of x, largest first, equal ones by index.
void largest(const float* x, int64_t count, int64_t top, int32_t* indices) {
  int32_t order[kMaxExperts];
  std::iota(order, order + count, 0);
  std::partial_sort(order, order + top, order + count,
                    [&](int32_t a, int32_t b) { return x[a] > x[b] || (x[a] == x[b] && a < b); });
  std::copy_n(order, top, indices);
}

// Masks the choice scores of all groups but the best topk_groups.
void mask_groups(const RouteArgs& args, int64_t num_experts, float* choice) {
  const int64_t group_size = num_experts / args.num_groups;
  float group_scores[kMaxExperts];
  for (int group = 0; group < args.num_groups; group++) {
    float members[kMaxExperts];
    std::copy_n(choice + group * group_size, group_size, members);
    std::sort(members, members + group_size, std::greater());
    group_scores[group] = members[0] + (args.groups == RoutingGroups::kByTopTwo && group_size > 1 ? members[1] : 0.f);
  }
  int32_t kept[kMaxExperts];
  largest(group_scores, args.num_groups, args.topk_groups, kept);
  for (int group = 0; group < args.num_groups; group++) {
    if (std::find(kept, kept + args.topk_groups, group) != kept + args.topk_groups) continue;
    std::fill_n(choice + group * group_size, group_size, kMasked);
  }
}

void choose(const RouteArgs& args, const float* scores, int64_t num_experts, int64_t top_k, int32_t* ids) {
  float choice[kMaxExperts];
  for (int64_t expert = 0; expert < num_experts; expert++) {
    choice[expert] = scores[expert] + (args.choice_bias.empty() ? 0.f : args.choice_bias(expert));
    if (!(choice[expert] >= kLowestChoice)) choice[expert] = kLowestChoice;  // a NaN, too
  }
  if (args.groups != RoutingGroups::kNone) mask_groups(args, num_experts, choice);
  largest(choice, num_experts, top_k, ids);
}

void route(const OpsContext&, const RouteArgs& args) {
  const int64_t num_experts = args.logits.extent(1), top_k = args.ids.extent(1);
  for (int64_t row = 0; row < args.logits.extent(0); row++) {
    float scores[kMaxExperts];
    int32_t* ids = args.ids.row(row);
    float* weights = args.weights.row(row);
    score_row(args, args.logits.row(row), num_experts, scores);
    if (args.forced_ids.empty()) {
      choose(args, scores, num_experts, top_k, ids);
    } else {
      std::copy_n(args.forced_ids.row(row), top_k, ids);
    }
    float sum = 0;
    for (int64_t slot = 0; slot < top_k; slot++) sum += weights[slot] = scores[ids[slot]];
    const float divisor = args.normalize ? sum + 1e-20f : 1.f;
    for (int64_t slot = 0; slot < top_k; slot++) weights[slot] = weights[slot] / divisor * args.scaling_factor;
  }
}

}  // namespace

size_t row_scratch_bytes(const OpsLimits& limits) {
  return static_cast<size_t>(std::max(limits.max_in_features, limits.max_kv_lora_rank)) * sizeof(float);
}

void add_row_operations(OpsTable& table) {
  table.embed = embed;
  table.add_norm = add_norm;
  table.rotate_queries = rotate_queries;
  table.store_latents = store_latents;
  table.load_latents = load_latents;
  table.route = route;
  table.combine = combine;
  table.gather_rows = gather_rows;
  table.to_compute = to_compute;
  table.from_compute = from_compute;
}

}  // namespace cachalot::reference
