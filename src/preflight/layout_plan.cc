#include "preflight/layout_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <limits>

#include "base/math.h"
#include "base/progress.h"
#include "base/text.h"
#include "comm/membership/member.h"
#include "engine/placement.h"
#include "preflight/step_traffic.h"
#include "scheduler/scheduler.h"
#include "weights/weight_catalog.h"

namespace cachalot {
namespace {

constexpr double kGiga = 1e9, kTera = 1e12;
constexpr int kUsualContext = 4096;
constexpr int kLostAnswers = 32;  // and their lengths, of which is told what their loss costs
constexpr int64_t kLostLengths[] = {4'096, 30'720};

double per_second(double rows, double cost) {
  return cost > 0 ? rows / cost : std::numeric_limits<double>::infinity();
}

Result<NodeLayout> make_layout(const LayoutPlanOptions& options) {
  const ParallelOptions& parallel = options.parallel;
  const NodeLayout layout{
      .dp_size = parallel.data_parallel_size, .tp_size = parallel.tensor_parallel_size, .num_nodes = options.num_nodes};
  if (layout.num_ranks() % layout.num_nodes != 0) {
    return make_parameter_error("--nodes",
                                "{} replicas x {} ranks are {} ranks, which {} nodes (--nodes) cannot share "
                                "out evenly",
                                layout.dp_size, layout.tp_size, layout.num_ranks(), layout.num_nodes);
  }
  return layout;
}

// The products of a token's way through all linears, whoever computes them.
double products_of_a_token(const ModelConfig& config) {
  double products = 0;
  for (const ModelTensor& tensor : model_tensors(config)) {
    if (!tensor.is_linear() || tensor.role == TensorRole::kHead) continue;
    const bool routed = tensor.name.find(".mlp.experts.") != std::string::npos;
    const double share = routed ? static_cast<double>(config.num_experts_per_token) / config.num_experts : 1;
    products += share * static_cast<double>(tensor.rows * tensor.cols);
  }
  return products;
}

size_t bytes_of(const RankMemory& rank, WeightKind kind) {
  return rank.model.weights_by_kind[static_cast<size_t>(kind)];
}

// What a rank reads in a step, each weight once: all but the embedding's other rows, the form of kv_b that the phase
// does not use, spare slots, and the experts that nobody chose: of copies at most so much.
double read_bytes(const RankMemory& rank, const ModelConfig& config, bool decode, double rows, double cache_bytes) {
  double bytes = static_cast<double>(rank.model.weight_bytes - bytes_of(rank, WeightKind::kEmbedding) -
                                     bytes_of(rank, decode ? WeightKind::kKvB : WeightKind::kKvBAbsorbed));
  if (config.num_experts > 0) {
    const ExpertRouting routing = routing_of(config);
    const ExpertPlacement& placement = *rank.settings.placement;
    const auto num_slots = static_cast<double>(placement.num_slots(rank.settings.ep_rank));
    const double held = num_slots > 0 ? static_cast<double>(placement.num_held(rank.settings.ep_rank)) / num_slots : 0;
    bytes -=
        (1 - held * expected_distinct(routing, 1, rows)) * static_cast<double>(bytes_of(rank, WeightKind::kExperts));
  }
  return bytes + cache_bytes;
}

StepCost cost_of(const LayoutPlan& plan, bool decode, int64_t rows_per_replica, double cache_bytes,
                 int64_t logit_rows) {
  StepCost cost{.phase = decode ? "decode" : "prefill",
                .rows_per_replica = rows_per_replica,
                .rows = rows_per_replica * plan.layout.dp_size};
  const RankMemory& rank = plan.largest();
  // Experts see the rows of all replicas that step together.
  const int64_t group_rows = plan.options.parallel.spans_replicas() ? cost.rows : rows_per_replica;
  cost.read_bytes = read_bytes(rank, plan.config, decode, static_cast<double>(group_rows), cache_bytes);
  cost.operations =
      2 * products_of_a_token(plan.config) * static_cast<double>(cost.rows) +
      2.0 * plan.config.vocab_size * plan.config.hidden_size * static_cast<double>(logit_rows) * plan.layout.dp_size;
  cost.traffic = step_traffic(plan.config, rank.settings, plan.layout, rank.model.expert_input_group,
                              {.rows_per_replica = rows_per_replica, .logit_rows_per_replica = logit_rows});
  return cost;
}

}  // namespace

double StepCost::tokens_per_memory_gb() const {
  return per_second(static_cast<double>(rows), read_bytes / kGiga);
}

double StepCost::tokens_per_link_gb() const {
  return per_second(static_cast<double>(rows), traffic.sum(&OperationTraffic::node_bytes) / kGiga);
}

double StepCost::tokens_per_tera_operation(int num_ranks) const {
  return per_second(static_cast<double>(rows), operations / num_ranks / kTera);
}

const RankMemory& LayoutPlan::largest() const {
  return std::ranges::max_element(ranks, {}, [](const RankPlan& rank) { return rank.memory.fixed_bytes(); })->memory;
}

size_t LayoutPlan::device_bytes_for(int num_requests) const {
  const int block_size = options.engine.block_size;
  const int64_t num_blocks = int64_t{num_requests} * ceil_div(max_model_len, block_size);
  const size_t bytes = largest().fixed_bytes() + static_cast<size_t>(num_blocks) * largest().block_bytes(block_size);
  return static_cast<size_t>(static_cast<double>(bytes) / options.engine.gpu_memory_utilization);
}

int64_t LayoutPlan::num_requests() const {
  const int block_size = memory->block_size;
  return memory->num_blocks / ceil_div(memory->max_model_len, block_size);
}

namespace {

Status plan_ranks(LayoutPlan& plan, const WeightCatalog& catalog) {
  const LayoutPlanOptions& options = plan.options;
  ASSIGN_OR_RETURN(plan.placement,
                   plan_placement(options.parallel, plan.config, options.num_nodes, plan.survival.num_spare));
  plan.ranks.clear();
  for (int rank = 0; rank < plan.layout.num_ranks(); rank++) {
    ParallelOptions parallel = options.parallel;
    parallel.data_parallel_rank = rank / plan.layout.tp_size;
    parallel.tensor_parallel_rank = rank % plan.layout.tp_size;
    ASSIGN_OR_RETURN(RankMemory memory, plan_rank_memory(options.engine, parallel, plan.config, catalog,
                                                         {.num_local_ranks = plan.layout.ranks_per_node(),
                                                          .num_threads = std::max(options.engine.threads, 1),
                                                          .isa = highest_isa(options.engine.isa),
                                                          .placement = plan.placement}));
    plan.ranks.push_back({rank, memory});
  }
  return {};
}

}  // namespace

Result<LayoutPlan> plan_layout(const LayoutPlanOptions& options, const ModelConfig& config,
                               const WeightCatalog& catalog) {
  LayoutPlan plan{.options = options, .config = config};
  ASSIGN_OR_RETURN(plan.layout, make_layout(options));
  plan.max_model_len = options.engine.max_model_len > 0 ? options.engine.max_model_len : config.max_position_embeddings;
  const int num_local = plan.layout.ranks_per_node();
  const MemoryInfo node{options.node_bytes, "--node-memory"};
  ASSIGN_OR_RETURN(plan.survival, survival_of(options.parallel.survive, options.parallel, config,
                                              std::min(num_local, options.parallel.group_size())));
  RETURN_IF_ERROR(plan_ranks(plan, catalog));
  if (options.parallel.survive == Survive::kAuto && options.node_bytes > 0) {
    plan.survival = affordable_survival(options.engine, options.parallel, config, plan.largest(), node, num_local);
    if (plan.survival.num_spare > 0) RETURN_IF_ERROR(plan_ranks(plan, catalog));
  }
  if (options.node_bytes > 0) {
    Result<MemoryPlan> memory = plan_memory(options.engine, config, plan.largest(), node, num_local);
    if (memory) {
      plan.memory = std::move(*memory);
    } else {
      plan.misfit = std::move(memory.error());
    }
  }
  const int context = options.decode_context > 0 ? options.decode_context : std::min(kUsualContext, plan.max_model_len);
  plan.options.decode_context = context;
  const RankMemory& rank = plan.largest();
  const auto row_bytes = static_cast<double>(sum_of(cache_bytes_read(config, rank.settings.compute_dtype, context)));
  plan.decode = cost_of(plan, true, options.decode_batch, options.decode_batch * row_bytes, options.decode_batch);
  const int64_t chunk = options.engine.max_num_batched_tokens;
  plan.prefill = cost_of(plan, false, chunk,
                         static_cast<double>(chunk) * static_cast<double>(rank.model.cache_bytes_per_token()), 1);
  return plan;
}

// --- Tables for people and for programs.

namespace {

constexpr size_t kMaxColumns = 4;

// Three digits.
std::string number(double value) {
  return value >= 100 ? fmt::format("{:.0f}", value) : fmt::format("{:.3g}", value);
}

std::string speed(double tokens) {
  return std::isinf(tokens) ? "any number of tokens/s" : fmt::format("at most {} tokens/s", number(tokens));
}

// Ranks that hold the same.
struct Column {
  std::vector<int> ranks;
  const RankMemory* memory = nullptr;

  std::string heading() const { return rank_list(ranks); }
};

std::vector<Column> columns_of(const LayoutPlan& plan) {
  std::vector<Column> columns;
  for (const RankPlan& rank : plan.ranks) {
    const auto same = std::ranges::find_if(columns, [&](const Column& column) {
      return column.memory->model.weights_by_kind == rank.memory.model.weights_by_kind &&
             column.memory->fixed_bytes() == rank.memory.fixed_bytes();
    });
    Column& column = same != columns.end() ? *same : columns.emplace_back(Column{{}, &rank.memory});
    column.ranks.push_back(rank.rank);
  }
  // Too many to stand beside each other: those that hold least and most.
  if (columns.size() > kMaxColumns) {
    const auto [least, most] =
        std::ranges::minmax_element(columns, {}, [](const Column& column) { return column.memory->fixed_bytes(); });
    columns = {*least, *most};
  }
  return columns;
}

std::string memory_table(const LayoutPlan& plan) {
  const std::vector<Column> columns = columns_of(plan);
  std::string text = fmt::format("{:<34}", "Memory of a rank");
  for (const Column& column : columns) text += fmt::format("  {:>16}", column.heading());
  text += "\n";
  const auto row = [&](int level, std::string_view name, auto bytes_of) {
    if (std::ranges::all_of(columns, [&](const Column& column) { return bytes_of(*column.memory) == 0; })) return;
    text += fmt::format("{:<34}", fmt::format("{:{}}{}", "", 2 * level, name));
    for (const Column& column : columns) text += fmt::format("  {:>16}", binary_bytes(bytes_of(*column.memory)));
    text += "\n";
  };
  row(1, "weights", [](const RankMemory& rank) { return rank.model.weight_bytes; });
  for (size_t kind = 0; kind < kNumWeightKinds; kind++)
    row(2, weight_kind_name(static_cast<WeightKind>(kind)),
        [&](const RankMemory& rank) { return rank.model.weights_by_kind[kind]; });
  row(1, "workspace", [](const RankMemory& rank) { return rank.model.workspace_bytes; });
  row(1, "scratch of the kernels", [](const RankMemory& rank) { return rank.model.scratch_bytes; });
  row(1, "rotary tables", [](const RankMemory& rank) { return rank.model.rope_bytes; });
  row(1, "logits", [](const RankMemory& rank) { return rank.logits_bytes; });
  row(1, "buffers of the expert exchange", [](const RankMemory& rank) { return rank.model.exchange_bytes; });
  row(1, "buffers of tensor-parallel sums", [](const RankMemory& rank) { return rank.model.reduce_bytes; });
  row(1, "shared memory inside the node", [](const RankMemory& rank) { return rank.shared_bytes; });
  row(1, "all but the KV cache", [](const RankMemory& rank) { return rank.fixed_bytes(); });
  return text;
}

std::string needs(const LayoutPlan& plan, int num_requests) {
  const size_t device = plan.device_bytes_for(num_requests);
  return fmt::format("  {} of {} tokens: {} of KV cache; a device of {}, a node of {}\n",
                     counted(num_requests, "request"), plan.max_model_len,
                     binary_bytes(static_cast<double>(plan.largest().model.cache_bytes_per_token()) *
                                  plan.max_model_len * num_requests),
                     binary_bytes(device), binary_bytes(static_cast<double>(device) * plan.layout.ranks_per_node()));
}

std::string cache_text(const LayoutPlan& plan) {
  std::string text = fmt::format(
      "KV cache: {}, the same on each rank of a replica. What it takes, of which "
      "--gpu-memory-utilization {} is used:\n",
      cache_bytes_text(plan.largest().model.cache_bytes), plan.options.engine.gpu_memory_utilization);
  text += needs(plan, 1);
  if (plan.options.decode_batch > 1) text += needs(plan, plan.options.decode_batch);
  if (plan.options.engine.max_num_seqs > plan.options.decode_batch)
    text += needs(plan, plan.options.engine.max_num_seqs);
  if (!plan.memory) return text;
  const MemoryPlan& memory = *plan.memory;
  text += fmt::format("Nodes of {}: {} a rank, {} usable, {} of KV cache = {} tokens ({} blocks of {}) in each replica",
                      binary_bytes(memory.node.total_bytes), binary_bytes(memory.device_bytes),
                      binary_bytes(memory.usable_bytes), binary_bytes(memory.cache_bytes),
                      int64_t{memory.num_blocks} * memory.block_size, memory.num_blocks, memory.block_size);
  if (memory.max_model_len_was_cut) text += fmt::format("; requests are cut to {} tokens", memory.max_model_len);
  text += fmt::format("; {} of {} tokens at once\n", counted(plan.num_requests(), "request"), memory.max_model_len);
  return text;
}

// What each --survive would cost the rank that has most, and which of them is planned.
std::string survival_text(const LayoutPlan& plan) {
  const ParallelOptions& parallel = plan.options.parallel;
  if (!parallel.enable_expert_parallel || !plan.placement || plan.placement->shape().num_ranks == 1) return "";
  const RankMemory& rank = plan.largest();
  const auto price = [&](double num_slots) {
    const size_t bytes = bytes_of_slots(rank, num_slots);
    return fmt::format("{} a rank, {} KV blocks{}", binary_bytes(static_cast<double>(bytes)),
                       bytes / rank.block_bytes(plan.options.engine.block_size),
                       plan.memory ? fmt::format(" beside {}", plan.memory->num_blocks) : "");
  };
  std::string text = fmt::format("Ranks that may be lost at once, and spare slots for their experts (--survive {}):\n",
                                 survive_name(parallel.survive));
  int num_told = 0;
  for (const Survive what : {Survive::kNone, Survive::kRank, Survive::kServer, Survive::kNode}) {
    const int ranks_of_node = std::min(plan.layout.ranks_per_node(), parallel.group_size());
    const auto survival = survival_of(what, parallel, plan.config, ranks_of_node);
    if (!survival || (num_told > 0 && survival->num_lost == num_told)) continue;
    num_told = survival->num_lost;
    text += fmt::format("  {:<8} {:>3} of {}{}{}\n", survive_name(what), survival->num_lost, parallel.group_size(),
                        survival->num_spare == 0
                            ? ""
                            : fmt::format(": {} a layer, {}", survival->num_spare,
                                          price(double{1} * survival->num_spare * plan.placement->shape().num_layers)),
                        survival->num_lost == plan.survival.num_lost ? "  <- planned" : "");
  }
  if (parallel.survive == Survive::kAuto && !plan.memory)
    text += "  auto chooses with the nodes' memory (--node-memory)\n";
  if (const int num_buffers = rank.settings.num_move_buffers; num_buffers > 0)
    text +=
        fmt::format("Buffers through which experts move (--enable-eplb): {}, {}\n", num_buffers, price(num_buffers));
  return text;
}

std::string traffic_row(std::string_view name, std::string_view times, const std::string& rank, double all, double far,
                        double node) {
  return fmt::format("  {:<26} {:>6} {:>14} {:>14} {:>14} {:>14}\n", name, times, rank, binary_bytes(all),
                     binary_bytes(far), binary_bytes(node));
}

std::string traffic_table(const StepCost& cost) {
  if (cost.traffic.operations.empty()) return "  nothing moves between ranks\n";
  std::string text = fmt::format("  {:<26} {:>6} {:>14} {:>14} {:>14} {:>14}\n", "bytes moved", "times", "a rank, each",
                                 "all, a step", "between nodes", "out of a node");
  for (const OperationTraffic& operation : cost.traffic.operations) {
    const int times = operation.times;
    text += traffic_row(operation.operation, fmt::to_string(times), binary_bytes(operation.rank_bytes),
                        times * operation.total_bytes, times * operation.far_bytes, times * operation.node_bytes);
  }
  return text + traffic_row("a step", "", "", cost.traffic.sum(&OperationTraffic::total_bytes),
                            cost.traffic.sum(&OperationTraffic::far_bytes),
                            cost.traffic.sum(&OperationTraffic::node_bytes));
}

std::string bounds_text(const LayoutPlan& plan, const StepCost& cost) {
  std::string text = fmt::format(
      "  bounds of all replicas together, each by itself, none of them reached:\n"
      "    memory: a rank reads {}, {} for each GB/s that it reads at\n",
      binary_bytes(cost.read_bytes), speed(cost.tokens_per_memory_gb()));
  if (plan.layout.num_nodes > 1)
    text +=
        fmt::format("    links: a node sends {}, {} for each GB/s of its link\n",
                    binary_bytes(cost.traffic.sum(&OperationTraffic::node_bytes)), speed(cost.tokens_per_link_gb()));
  return text + fmt::format("    arithmetic: {} x 10^9 operations of linears a token, {} for each 10^12/s of a rank\n",
                            number(cost.operations / static_cast<double>(cost.rows) / 1e9),
                            speed(cost.tokens_per_tera_operation(plan.layout.num_ranks())));
}

// Of all heads and layers, two a product, for the rows of an answer's tokens that are computed again: each attends in
// the absorbed form to all before it, or to as many as an indexer chooses.
double attention_operations(const ModelConfig& config, int64_t num_tokens) {
  const int64_t most = config.indexer ? std::min<int64_t>(config.indexer->topk, num_tokens) : num_tokens;
  const double num_seen =
      static_cast<double>(most) * static_cast<double>(most) / 2 + static_cast<double>(most * (num_tokens - most));
  return 2.0 * config.num_layers * config.num_heads * (config.kv_lora_rank + config.kv_cache_dim()) * num_seen;
}

// What it costs the others when a replica is lost, and they go on with what it was answering.
std::string takeover_text(const LayoutPlan& plan) {
  const int num_others = std::max(plan.layout.dp_size - 1, 1);
  const int budget = plan.options.engine.max_num_batched_tokens;
  const int share = plan.layout.dp_size > 1 ? std::max(budget / SchedulerOptions::kResumedShare, 1) : budget;
  const double operations_of_a_token = plan.prefill.operations / static_cast<double>(plan.prefill.rows);
  std::string text =
      fmt::format("\nAfter the loss of a replica {} of its answers, {}:\n", kLostAnswers,
                  plan.layout.dp_size > 1
                      ? fmt::format("computed again by {} beside their own, {} tokens in each step",
                                    num_others > 1 ? fmt::format("the {} others", num_others) : "the other", share)
                      : fmt::format("computed again when it is back, {} tokens in each step", share));
  for (const int64_t length : kLostLengths) {
    if (length > plan.max_model_len) continue;
    const int64_t num_tokens = kLostAnswers * length;
    const double linears = static_cast<double>(num_tokens) * operations_of_a_token,
                 attention = kLostAnswers * attention_operations(plan.config, length);
    const int num_ranks = plan.layout.dp_size > 1 ? num_others * plan.layout.tp_size : plan.layout.tp_size;
    text += fmt::format(
        "  of {} tokens: {} tokens in {} steps; {} x 10^12 operations of linears and {} of attention a "
        "rank\n",
        length, num_tokens, ceil_div(num_tokens, int64_t{share} * num_others), number(linears / num_ranks / kTera),
        number(attention / num_ranks / kTera));
  }
  return text;
}

// Where not each expert stands in one place, and as many on each rank.
std::string slots_text(const ExpertPlacement& placement) {
  const auto& [num_layers, num_experts, num_ranks] = placement.shape();
  int64_t num_slots = 0, least = INT64_MAX;
  for (int rank = 0; rank < num_ranks; rank++) {
    num_slots += placement.num_slots(rank);
    for (int layer = 0; layer < num_layers; layer++) least = std::min(least, std::ssize(placement.slots(layer, rank)));
  }
  if (num_layers == 0 || (num_slots == int64_t{num_layers} * num_experts && least == placement.most_slots())) return "";
  const auto of_rank =
      least == placement.most_slots() ? fmt::to_string(least) : fmt::format("{} to {}", least, placement.most_slots());
  return fmt::format(" in {} slots of a layer, {} a rank", num_slots / num_layers, of_rank);
}

}  // namespace

std::string plan_text(const LayoutPlan& plan, const PlanSubject& subject) {
  const NodeLayout& layout = plan.layout;
  const EngineOptions& engine = plan.options.engine;
  const int ep_size = plan.largest().settings.ep_size;
  std::string text = fmt::format("{}: {}, {} of files; computed in {}\n", subject.model, subject.weights,
                                 binary_bytes(static_cast<double>(subject.file_bytes)),
                                 dtype_name(plan.largest().settings.compute_dtype));
  text += fmt::format("layout: {} x {} = {} (data x tensor parallel), {} of {} each; ", layout.dp_size, layout.tp_size,
                      counted(layout.num_ranks(), "rank"), counted(layout.num_nodes, "node"), layout.ranks_per_node());
  text += plan.config.num_experts == 0 ? "no experts"
          : ep_size > 1
              ? fmt::format("{} experts over {} ranks{}", plan.config.num_experts, ep_size, slots_text(*plan.placement))
          : layout.tp_size > 1 ? "each expert's width over a replica's ranks"
                               : "all experts on each rank";
  text += fmt::format("; {} tokens a step, {} a sequence\n\n", engine.max_num_batched_tokens, plan.max_model_len);
  text += memory_table(plan) + "\n" + cache_text(plan) + survival_text(plan);
  text += fmt::format("\nA decode step: {} sequences of {} tokens in each replica, {} tokens\n",
                      plan.options.decode_batch, plan.options.decode_context, plan.decode.rows);
  text += traffic_table(plan.decode) + bounds_text(plan, plan.decode);
  text += fmt::format("\nA prefill step: {} tokens of a new prompt in each replica, {} tokens\n",
                      plan.prefill.rows_per_replica, plan.prefill.rows);
  return text + traffic_table(plan.prefill) + bounds_text(plan, plan.prefill) + takeover_text(plan);
}

namespace {

using boost::json::array;
using boost::json::object;
using boost::json::value;

object rank_json(const RankPlan& plan, const NodeLayout& layout, const ExpertPlacement* placement) {
  const RankMemory& memory = plan.memory;
  object kinds;
  for (size_t kind = 0; kind < kNumWeightKinds; kind++)
    kinds[weight_kind_name(static_cast<WeightKind>(kind))] = memory.model.weights_by_kind[kind];
  const auto ep_rank = memory.settings.ep_rank;
  return {{"rank", plan.rank},
          {"node", layout.node_of(plan.rank)},
          {"expert_slots", placement ? placement->num_slots(ep_rank) : 0},
          {"experts", placement ? placement->text_of(ep_rank) : "no experts"},
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
  return {{"rows_per_replica", cost.rows_per_replica},
          {"rows", cost.rows},
          {"operations", boost::json::value_from(cost.traffic.operations)},
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
  for (const RankPlan& rank : plan.ranks) ranks.push_back(rank_json(rank, plan.layout, plan.placement.get()));
  object json{{"model", subject.model},
              {"weights", subject.weights},
              {"file_bytes", subject.file_bytes},
              {"data_parallel_size", plan.layout.dp_size},
              {"tensor_parallel_size", plan.layout.tp_size},
              {"expert_parallel_size", plan.largest().settings.ep_size},
              {"nodes", plan.layout.num_nodes},
              {"max_model_len", plan.max_model_len},
              {"cache_bytes_per_token", plan.largest().model.cache_bytes_per_token()},
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
  json["survive"] = {{"ranks", plan.survival.num_lost}, {"spare_slots_of_a_layer", plan.survival.num_spare}};
  json["move_buffers"] = plan.largest().settings.num_move_buffers;
  if (plan.placement) json["placement"] = boost::json::parse(plan.placement->to_json());
  return boost::json::serialize(json) + "\n";
}

}  // namespace cachalot
