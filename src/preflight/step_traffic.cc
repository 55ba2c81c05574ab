#include "preflight/step_traffic.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

#include "comm/expert_exchange.h"
#include "comm/group.h"
#include "model/feed_forward.h"
#include "model/sparse_attention.h"

namespace cachalot {

namespace {

// Choosing top_k of `num_open` experts misses all of `num_wanted` of them.
double chance_of_none(int num_open, int num_wanted, int top_k) {
  double chance = 1;
  for (int idx = 0; idx < top_k; idx++)
    chance *= static_cast<double>(std::max(num_open - num_wanted - idx, 0)) / (num_open - idx);
  return chance;
}

}  // namespace

ExpertRouting routing_of(const ModelConfig& config) {
  ExpertRouting routing{.num_experts = config.num_experts, .top_k = config.num_experts_per_token};
  if (config.topk_method != TopkMethod::kGreedy) {
    routing.num_groups = config.num_groups;
    routing.topk_groups = config.topk_groups;
  }
  return routing;
}

double chance_of_any(const ExpertRouting& routing, std::span<const double> shares) {
  const auto group_size = static_cast<size_t>(routing.num_experts / routing.num_groups);
  const auto num_wanted = static_cast<size_t>(
      std::ranges::count_if(shares, [](double share) { return share > 0; }));  // at most, of all groups
  // chances[g][w]: of so many groups chosen so far, in which the rank has so many of the token's possible experts.
  std::vector<std::vector<double>> chances(static_cast<size_t>(routing.topk_groups) + 1,
                                           std::vector<double>(num_wanted + 1));
  chances[0][0] = 1;
  for (int group = 0; group < routing.num_groups; group++) {
    // here[w]: of this group, the rank has so many.
    std::vector<double> here{1};
    for (const double share : shares.subspan(static_cast<size_t>(group) * group_size, group_size)) {
      if (share == 0) continue;
      here.push_back(0);
      for (size_t wanted = here.size() - 1; wanted > 0; wanted--)
        here[wanted] = here[wanted] * (1 - share) + here[wanted - 1] * share;
      here[0] *= 1 - share;
    }
    const int num_left = routing.num_groups - group;  // this one among them
    for (int chosen = routing.topk_groups; chosen >= 0; chosen--) {
      const double takes = std::min(1.0, static_cast<double>(routing.topk_groups - chosen) / num_left);
      std::vector<double>& so_far = chances[static_cast<size_t>(chosen)];
      for (size_t wanted = num_wanted + 1; wanted-- > 0;) {
        const double chance = so_far[wanted];
        if (chance == 0) continue;
        so_far[wanted] = chance * (1 - takes);
        for (size_t more = 0; takes > 0 && more < here.size(); more++)
          if (here[more] > 0) chances[static_cast<size_t>(chosen) + 1][wanted + more] += chance * takes * here[more];
      }
    }
  }
  double none = 0;
  for (size_t wanted = 0; wanted <= num_wanted; wanted++)
    none += chances.back()[wanted] *
            chance_of_none(static_cast<int>(routing.topk_groups * group_size), static_cast<int>(wanted), routing.top_k);
  return 1 - none;
}

double expected_distinct(const ExpertRouting& routing, int num_local, double num_rows) {
  if (routing.num_experts == 0) return 0;
  const double chosen = static_cast<double>(routing.top_k) / routing.num_experts;
  return num_local * (1 - std::pow(1 - chosen, num_rows));
}

namespace {

// Adds up one operation's messages, rank to rank.
class Messages {
 public:
  explicit Messages(const NodeLayout& layout)
      : layout_(layout),
        by_rank_(static_cast<size_t>(layout.num_ranks())),
        out_of_node_(static_cast<size_t>(layout.num_nodes)) {}

  void add(int from, int to, double bytes) {
    if (from == to) return;
    by_rank_[static_cast<size_t>(from)] += bytes;
    if (layout_.node_of(from) != layout_.node_of(to)) out_of_node_[static_cast<size_t>(layout_.node_of(from))] += bytes;
  }

  OperationTraffic summary(std::string operation, int times) const {
    OperationTraffic traffic{.operation = std::move(operation), .times = times};
    traffic.rank_bytes = *std::ranges::max_element(by_rank_);
    traffic.node_bytes = *std::ranges::max_element(out_of_node_);
    for (const double bytes : by_rank_) traffic.total_bytes += bytes;
    for (const double bytes : out_of_node_) traffic.far_bytes += bytes;
    return traffic;
  }

 private:
  const NodeLayout& layout_;
  std::vector<double> by_rank_, out_of_node_;
};

class TrafficSum {
 public:
  TrafficSum(const ModelConfig& config, const ModelSettings& settings, const NodeLayout& layout, int expert_input_group,
             const StepRows& rows)
      : config_(config),
        placement_(settings.ep_size > 1 ? settings.placement.get() : nullptr),
        layout_(layout),
        rows_(rows),
        partition_(rows.rows_per_replica, layout.tp_size),
        compute_bytes_(static_cast<double>(dtype_size(settings.compute_dtype))),
        row_format_{config.hidden_size, expert_input_group, settings.compute_dtype} {}

  StepTraffic take() {
    int num_moe = 0;
    for (int layer = 0; layer < config_.num_layers; layer++) num_moe += config_.is_moe_layer(layer);
    const int num_dense = config_.num_layers - num_moe;
    reduce_scatter("embedding reduce-scatter", 1, config_.hidden_size);
    if (config_.q_lora_rank > 0) {
      const int64_t width = config_.q_lora_rank + config_.kv_cache_dim();
      int num_indexers = 0;
      for (int layer = 0; layer < config_.num_layers; layer++) num_indexers += config_.has_indexer(layer);
      all_gather("low-rank all-gather", config_.num_layers - num_indexers, width);
      all_gather("low-rank all-gather", num_indexers, width + Indexer::projected_width(config_, config_.num_layers));
    } else {
      all_gather("attention all-gather", config_.num_layers, config_.hidden_size);
    }
    reduce_scatter("o_proj reduce-scatter", config_.num_layers, config_.hidden_size);
    all_gather("dense all-gather", num_dense, config_.hidden_size);
    reduce_scatter("dense reduce-scatter", num_dense, config_.hidden_size);
    if (placement_) {
      if (num_moe > 0) exchange(num_moe);
    } else {
      all_gather("experts all-gather", num_moe, config_.hidden_size);
      reduce_scatter("experts reduce-scatter", num_moe, config_.hidden_size);
    }
    all_gather("head all-gather", 1, config_.hidden_size);
    logits();
    return std::move(traffic_);
  }

 private:
  using PairBytes = std::function<double(int from_tp, int to_tp)>;
  // A message from each rank of a replica to each other one.
  void in_replicas(const char* operation, int times, const PairBytes& bytes) {
    Messages messages(layout_);
    for (int dp_rank = 0; dp_rank < layout_.dp_size; dp_rank++) {
      for (int from = 0; from < layout_.tp_size; from++) {
        for (int to = 0; to < layout_.tp_size; to++)
          messages.add(dp_rank * layout_.tp_size + from, dp_rank * layout_.tp_size + to, bytes(from, to));
      }
    }
    add(messages, operation, times);
  }

  void all_gather(const char* operation, int times, int64_t features) {
    in_replicas(operation, times,
                [&](int from, int) { return static_cast<double>(partition_.count(from) * features) * compute_bytes_; });
  }
  void reduce_scatter(const char* operation, int times, int64_t features) {
    in_replicas(operation, times,
                [&](int, int to) { return static_cast<double>(partition_.count(to) * features) * compute_bytes_; });
  }
  // Each rank's slice of the vocabulary to the replica's leader.
  void logits() {
    const RowPartition columns(config_.vocab_size, layout_.tp_size);
    in_replicas("logits gather", 1, [&](int from, int to) {
      return to == 0 ? static_cast<double>(rows_.logit_rows_per_replica * columns.count(from)) * sizeof(float) : 0;
    });
  }

  // A rank, as a home sees it: the chance that a row goes there, and the experts whose rows do.
  struct Holder {
    double chance = 0, num_experts = 0;
  };
  std::vector<Holder> holders_of(const CopyChoice& choice) const {
    const auto num_experts = static_cast<size_t>(config_.num_experts);
    std::vector<std::vector<double>> shares(static_cast<size_t>(layout_.num_ranks()), std::vector<double>(num_experts));
    for (size_t expert = 0; expert < num_experts; expert++) {
      const std::span<const ExpertCopy> copies = choice.copies(0, static_cast<int32_t>(expert));
      for (const ExpertCopy& copy : copies) shares[copy.rank][expert] += 1.0 / static_cast<double>(copies.size());
    }
    std::vector<Holder> holders;
    for (const std::vector<double>& of_rank : shares)
      holders.push_back(
          {chance_of_any(routing_of(config_), of_rank), std::accumulate(of_rank.begin(), of_rank.end(), 0.0)});
    return holders;
  }

  // A rank's row goes once to each rank that computes any of its experts; one result for each expert comes back.
  void exchange(int times) {
    const int num_ranks = layout_.num_ranks();
    const double row_bytes = static_cast<double>(row_format_.row_bytes()) + config_.num_experts_per_token * 2.0,
                 result_bytes = config_.hidden_size * compute_bytes_,
                 results_of_expert = static_cast<double>(config_.num_experts_per_token) / config_.num_experts;
    std::vector<int> nodes;
    int64_t num_copies = 0;
    for (int rank = 0; rank < num_ranks; rank++) {
      nodes.push_back(layout_.node_of(rank));
      num_copies += std::ranges::count_if(placement_->slots(0, rank), [](int32_t held) { return held >= 0; });
    }
    Messages dispatch(layout_), combine(layout_);
    std::vector<Holder> holders;
    for (int home = 0; home < num_ranks; home++) {
      // Homes that have no choice see the same.
      if (home == 0 || num_copies > config_.num_experts) holders = holders_of(CopyChoice(*placement_, home, nodes));
      const auto num_rows = static_cast<double>(partition_.count(home % layout_.tp_size));
      for (int rank = 0; rank < num_ranks; rank++) {
        const auto& [chance, num_experts] = holders[static_cast<size_t>(rank)];
        dispatch.add(home, rank, static_cast<double>(DispatchMessage::kHeaderBytes) + num_rows * chance * row_bytes);
        combine.add(rank, home, num_rows * num_experts * results_of_expert * result_bytes);
      }
    }
    add(dispatch, "expert dispatch", times);
    add(combine, "expert combine", times);
  }

  void add(const Messages& messages, const char* operation, int times) {
    OperationTraffic traffic = messages.summary(operation, times);
    if (times > 0 && traffic.total_bytes > 0) traffic_.operations.push_back(std::move(traffic));
  }

  const ModelConfig& config_;
  const ExpertPlacement* placement_;  // null: experts are not spread
  const NodeLayout& layout_;
  StepRows rows_;
  RowPartition partition_;
  double compute_bytes_;
  ExpertRowFormat row_format_;
  StepTraffic traffic_;
};

}  // namespace

double StepTraffic::sum(double OperationTraffic::* bytes) const {
  double total = 0;
  for (const OperationTraffic& operation : operations) total += operation.times * (operation.*bytes);
  return total;
}

StepTraffic step_traffic(const ModelConfig& config, const ModelSettings& settings, const NodeLayout& layout,
                         int expert_input_group, const StepRows& rows) {
  return TrafficSum(config, settings, layout, expert_input_group, rows).take();
}

}  // namespace cachalot
