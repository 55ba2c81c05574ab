#include "preflight/layout_plan.h"

#include <algorithm>
#include <limits>

#include "base/math.h"
#include "engine/placement.h"
#include "preflight/step_traffic.h"
#include "weights/weight_catalog.h"

namespace cachalot {
namespace {

constexpr double kGiga = 1e9, kTera = 1e12;
constexpr int kUsualContext = 4096;

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
// does not use, and the experts that nobody chose.
double read_bytes(const RankMemory& rank, const ModelConfig& config, bool decode, double rows, double cached_tokens) {
  double bytes = static_cast<double>(rank.model.weight_bytes - bytes_of(rank, WeightKind::kEmbedding) -
                                     bytes_of(rank, decode ? WeightKind::kKvB : WeightKind::kKvBAbsorbed));
  if (config.num_experts > 0) {
    const ExpertRouting routing = routing_of(config);
    const int num_local = config.num_experts / rank.settings.ep_size;
    const double unread = 1 - expected_distinct(routing, num_local, rows) / num_local;
    bytes -= unread * static_cast<double>(bytes_of(rank, WeightKind::kExperts));
  }
  return bytes + cached_tokens * static_cast<double>(rank.model.cache_bytes_per_token);
}

StepCost cost_of(const LayoutPlan& plan, bool decode, int64_t rows_per_replica, double cached_tokens,
                 int64_t logit_rows) {
  StepCost cost{.phase = decode ? "decode" : "prefill",
                .rows_per_replica = rows_per_replica,
                .rows = rows_per_replica * plan.layout.dp_size};
  const RankMemory& rank = plan.largest();
  // Experts see the rows of all replicas that step together.
  const int64_t group_rows = plan.options.parallel.spans_replicas() ? cost.rows : rows_per_replica;
  cost.read_bytes = read_bytes(rank, plan.config, decode, static_cast<double>(group_rows), cached_tokens);
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

Result<LayoutPlan> plan_layout(const LayoutPlanOptions& options, const ModelConfig& config,
                               const WeightCatalog& catalog) {
  LayoutPlan plan{.options = options, .config = config};
  ASSIGN_OR_RETURN(plan.layout, make_layout(options));
  plan.max_model_len = options.engine.max_model_len > 0 ? options.engine.max_model_len : config.max_position_embeddings;
  const int num_local = plan.layout.ranks_per_node(), num_threads = std::max(options.engine.threads, 1);
  for (int rank = 0; rank < plan.layout.num_ranks(); rank++) {
    ParallelOptions parallel = options.parallel;
    parallel.data_parallel_rank = rank / plan.layout.tp_size;
    parallel.tensor_parallel_rank = rank % plan.layout.tp_size;
    ASSIGN_OR_RETURN(RankMemory memory, plan_rank_memory(options.engine, parallel, config, catalog,
                                                         {.num_local_ranks = num_local,
                                                          .num_threads = num_threads,
                                                          .isa = highest_isa(options.engine.isa)}));
    plan.ranks.push_back({rank, memory});
  }
  if (options.node_bytes > 0) {
    Result<MemoryPlan> memory =
        plan_memory(options.engine, config, plan.largest(), {options.node_bytes, "--node-memory"}, num_local);
    if (memory) {
      plan.memory = std::move(*memory);
    } else {
      plan.misfit = std::move(memory.error());
    }
  }
  const int context = options.decode_context > 0 ? options.decode_context : std::min(kUsualContext, plan.max_model_len);
  plan.options.decode_context = context;
  plan.decode = cost_of(plan, true, options.decode_batch, static_cast<double>(options.decode_batch) * context,
                        options.decode_batch);
  const int64_t chunk = options.engine.max_num_batched_tokens;
  plan.prefill = cost_of(plan, false, chunk, static_cast<double>(chunk), 1);
  return plan;
}

}  // namespace cachalot
