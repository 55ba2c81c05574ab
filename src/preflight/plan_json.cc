#include <boost/json.hpp>
#include <cmath>

#include "preflight/plan_text.h"

namespace cachalot {
namespace {

using boost::json::array;
using boost::json::object;
using boost::json::value;

object rank_json(const RankPlan& plan, const NodeLayout& layout) {
  const RankMemory& memory = plan.memory;
  object kinds;
  for (size_t kind = 0; kind < kNumWeightKinds; kind++)
    kinds[weight_kind_name(static_cast<WeightKind>(kind))] = memory.model.weights_by_kind[kind];
  return {{"rank", plan.rank},
          {"node", layout.node_of(plan.rank)},
          {"weight_bytes", memory.model.weight_bytes},
          {"weights", std::move(kinds)},
          {"workspace_bytes", memory.model.workspace_bytes},
          {"scratch_bytes", memory.model.scratch_bytes},
          {"rotary_bytes", memory.model.rope_bytes},
          {"logits_bytes", memory.logits_bytes},
          {"exchange_bytes", memory.model.exchange_bytes},
          {"reduce_bytes", memory.model.reduce_bytes},
          {"shared_memory_bytes", memory.shared_bytes},
          {"fixed_bytes", memory.fixed_bytes()}};
}

value bound(double tokens) {
  return std::isinf(tokens) ? value(nullptr) : value(tokens);
}

object step_json(const StepCost& cost, int num_ranks) {
  array operations;
  for (const OperationTraffic& operation : cost.traffic.operations) {
    operations.push_back(object{{"operation", operation.operation},
                                {"times", operation.times},
                                {"rank_bytes", operation.rank_bytes},
                                {"total_bytes", operation.total_bytes},
                                {"far_bytes", operation.far_bytes},
                                {"node_bytes", operation.node_bytes}});
  }
  return {{"rows_per_replica", cost.rows_per_replica},
          {"rows", cost.rows},
          {"operations", std::move(operations)},
          {"total_bytes", cost.traffic.sum(&OperationTraffic::total_bytes)},
          {"far_bytes", cost.traffic.sum(&OperationTraffic::far_bytes)},
          {"node_bytes", cost.traffic.sum(&OperationTraffic::node_bytes)},
          {"rank_reads_bytes", cost.read_bytes},
          {"arithmetic_operations", cost.operations},
          {"bounds",
           {{"tokens_per_s_per_memory_gb_per_s", bound(cost.tokens_per_memory_gb())},
            {"tokens_per_s_per_link_gb_per_s", bound(cost.tokens_per_link_gb())},
            {"tokens_per_s_per_tera_operation_per_s", bound(cost.tokens_per_tera_operation(num_ranks))}}}};
}

}  // namespace

std::string plan_json(const LayoutPlan& plan, const PlanSubject& subject) {
  array ranks;
  for (const RankPlan& rank : plan.ranks) ranks.push_back(rank_json(rank, plan.layout));
  object json{{"model", subject.model},
              {"weights", subject.weights},
              {"file_bytes", subject.file_bytes},
              {"data_parallel_size", plan.layout.dp_size},
              {"tensor_parallel_size", plan.layout.tp_size},
              {"expert_parallel_size", plan.largest().settings.ep_size},
              {"nodes", plan.layout.num_nodes},
              {"max_model_len", plan.max_model_len},
              {"cache_bytes_per_token", plan.largest().model.cache_bytes_per_token},
              {"device_bytes_for_one_request", plan.device_bytes_for(1)},
              {"device_bytes_for_max_num_seqs", plan.device_bytes_for(plan.options.engine.max_num_seqs)},
              {"ranks", std::move(ranks)},
              {"decode", step_json(plan.decode, plan.layout.num_ranks())},
              {"prefill", step_json(plan.prefill, plan.layout.num_ranks())}};
  if (plan.memory) {
    json["memory"] = {{"node_bytes", plan.memory->node.total_bytes},
                      {"device_bytes", plan.memory->device_bytes},
                      {"usable_bytes", plan.memory->usable_bytes},
                      {"cache_bytes", plan.memory->cache_bytes},
                      {"num_blocks", plan.memory->num_blocks},
                      {"cache_tokens", int64_t{plan.memory->num_blocks} * plan.memory->block_size},
                      {"max_model_len", plan.memory->max_model_len},
                      {"requests", plan.num_requests()}};
  }
  return boost::json::serialize(json) + "\n";
}

}  // namespace cachalot
