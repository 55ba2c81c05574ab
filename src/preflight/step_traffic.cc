#include "preflight/step_traffic.h"

#include <algorithm>
#include <cmath>
#include <functional>
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

double chance_of_any(const ExpertRouting& routing, int begin, int end) {
  const int group_size = routing.num_experts / routing.num_groups, num_wanted = end - begin;
  // chances[g][w]: of so many groups chosen so far, which hold so many of the wanted experts.
  std::vector<std::vector<double>> chances(static_cast<size_t>(routing.topk_groups) + 1,
                                           std::vector<double>(static_cast<size_t>(num_wanted) + 1));
  chances[0][0] = 1;
  for (int group = 0; group < routing.num_groups; group++) {
    const int first = group * group_size;
    const int wanted_here = std::max(std::min(end, first + group_size) - std::max(begin, first), 0);
    const int num_left = routing.num_groups - group;  // this one among them
    for (int chosen = routing.topk_groups; chosen >= 0; chosen--) {
      const double takes = std::min(1.0, static_cast<double>(routing.topk_groups - chosen) / num_left);
      std::vector<double>& here = chances[static_cast<size_t>(chosen)];
      for (int wanted = num_wanted; wanted >= 0; wanted--) {
        const double chance = here[static_cast<size_t>(wanted)];
        if (chance == 0) continue;
        here[static_cast<size_t>(wanted)] = chance * (1 - takes);
        if (takes > 0)
          chances[static_cast<size_t>(chosen) + 1][static_cast<size_t>(wanted + wanted_here)] += chance * takes;
      }
    }
  }
  double none = 0;
  for (int wanted = 0; wanted <= num_wanted; wanted++)
    none += chances.back()[static_cast<size_t>(wanted)] *
            chance_of_none(routing.topk_groups * group_size, wanted, routing.top_k);
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
        exchanges_(settings.ep_size > 1),
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
    if (exchanges_) {
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

  // A rank's row goes once to each rank that holds any of its experts; one result for each expert comes back.
  void exchange(int times) {
    const ExpertRouting routing = routing_of(config_);
    const int num_ranks = layout_.num_ranks(), num_local = config_.num_experts / num_ranks;
    const double row_bytes = static_cast<double>(row_format_.row_bytes()) + config_.num_experts_per_token * 2.0,
                 result_bytes = config_.hidden_size * compute_bytes_,
                 results_per_row = static_cast<double>(config_.num_experts_per_token) / num_ranks;
    Messages dispatch(layout_), combine(layout_);
    for (int holder = 0; holder < num_ranks; holder++) {
      const double chance = chance_of_any(routing, holder * num_local, (holder + 1) * num_local);
      for (int home = 0; home < num_ranks; home++) {
        const auto num_rows = static_cast<double>(partition_.count(home % layout_.tp_size));
        dispatch.add(home, holder, static_cast<double>(DispatchMessage::kHeaderBytes) + num_rows * chance * row_bytes);
        combine.add(holder, home, num_rows * results_per_row * result_bytes);
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
  bool exchanges_;  // experts are spread over all ranks
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
