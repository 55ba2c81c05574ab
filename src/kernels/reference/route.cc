#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/exp.h"
#include "kernels/reference/rowwise.h"

namespace cachalot::reference {
namespace {

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

}  // namespace

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

}  // namespace cachalot::reference
