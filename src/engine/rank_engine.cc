#include "engine/rank_engine.h"

#include <unistd.h>

#include <algorithm>
#include <set>

#include "base/log.h"
#include "comm/group.h"
#include "device/thread_pool.h"
#include "model/feed_forward.h"
#include "weights/model_files.h"

namespace cachalot {
namespace {

Placement alone(const EngineOptions& options, IsaLevel isa, Mesh& mesh) {
  return {.parallel = {},
          .mesh = &mesh,
          .num_local_ranks = 1,
          .threads = plan_threads(allowed_cores(), options.threads),
          .isa = isa,
          .on_activity = {}};
}

}  // namespace

RankEngine::RankEngine(const EngineOptions& options, const Placement& placement, std::unique_ptr<Mesh> own_mesh)
    : options_(options),
      placement_(placement),
      own_mesh_(std::move(own_mesh)),
      device_(std::make_unique<Device>(placement.threads)) {}

Result<std::unique_ptr<RankEngine>> RankEngine::create(const EngineOptions& options, const Placement& placement,
                                                       WeightPacker::Progress progress) {
  std::unique_ptr<RankEngine> engine(new RankEngine(options, placement, nullptr));
  RETURN_IF_ERROR(engine->load(std::move(progress)));
  return engine;
}

Result<std::unique_ptr<RankEngine>> RankEngine::create(const EngineOptions& options, WeightPacker::Progress progress) {
  ASSIGN_OR_RETURN(const IsaLevel isa, choose_isa(options.isa));
  ASSIGN_OR_RETURN(std::unique_ptr<Mesh> mesh, Mesh::create({}, {}));
  const Placement placement = alone(options, isa, *mesh);
  std::unique_ptr<RankEngine> engine(new RankEngine(options, placement, std::move(mesh)));
  RETURN_IF_ERROR(engine->load(std::move(progress)));
  return engine;
}

Status RankEngine::load(WeightPacker::Progress progress) {
  ASSIGN_OR_RETURN(ModelFiles files, ModelFiles::open(options_.model));
  const ModelConfig& config = files.config();
  if (placement_.mesh->rank() == 0)
    for (const std::string& note : files.notes()) log::warn("{}", note);
  const std::set<int> nodes(placement_.nodes.begin(), placement_.nodes.end());
  const int num_nodes = std::max(1, static_cast<int>(nodes.size()));
  const auto plan_with = [&](int num_spare) -> Result<RankMemory> {
    ASSIGN_OR_RETURN(const SharedPlacement experts, plan_placement(placement_.parallel, config, num_nodes, num_spare));
    return plan_rank_memory(options_, placement_.parallel, config, files,
                            {.num_local_ranks = placement_.num_local_ranks,
                             .num_threads = num_threads(),
                             .isa = placement_.isa,
                             .placement = experts});
  };
  ASSIGN_OR_RETURN(RankMemory rank_memory, plan_with(0));
  ASSIGN_OR_RETURN(const Survival survival, choose_survival(config, rank_memory));
  if (survival.num_spare > 0) {
    ASSIGN_OR_RETURN(rank_memory, plan_with(survival.num_spare));
  }
  RETURN_IF_ERROR(plan(config, rank_memory));
  if (const std::string text = moving_text(survival, memory_); !text.empty() && leads()) log::info("{}", text);
  ModelSettings settings = rank_memory.settings;
  settings.max_positions = memory_.max_model_len;

  std::vector<int> living = consecutive(0, placement_.mesh->size());
  if (placement_.loads_alone) living = {placement_.mesh->rank()};
  roles_ = roles_in_epoch(placement_.parallel, living);
  experts_ = settings.placement;
  block_holders_.assign(roles_.serves ? roles_.tensor_group.size() : 0, 0);
  RETURN_IF_ERROR(connect(config, settings, !placement_.loads_alone || settings.ep_size == 1));
  if (exchange_ && settings.ep_size > 1) log::info("{}", exchange_->layout().describe());
  ASSIGN_OR_RETURN(model_, DeepseekModel::load(config, settings, files, *device_, *tensor_group_, exchange_.get(),
                                               std::move(progress)));

  if (!placement_.loads_alone) RETURN_IF_ERROR(allocate_cache());
  max_logit_rows_ = settings.max_logit_rows;
  ASSIGN_OR_RETURN(logits_memory_, Device::allocate(rank_memory.logits_bytes));
  batch_ = std::make_unique<StepBatch>(settings.max_rows, memory_.block_size);
  for (int thread_idx = 0; leads() && thread_idx < num_threads(); thread_idx++)
    samplers_.push_back(std::make_unique<Sampler>(config.vocab_size));
  reserve_lists();
  limits_ = {.max_num_seqs = options_.max_num_seqs,
             .max_rows = options_.max_num_batched_tokens,
             .max_steps = options_.num_scheduler_steps,
             .max_model_len = memory_.max_model_len,
             .block_size = memory_.block_size,
             .num_blocks = memory_.num_blocks,
             .vocab_size = config.vocab_size};
  lockstep_ = std::make_unique<Lockstep>(*placement_.mesh, roles_, limits_);
  if (settings.ep_size > 1 && settings.placement) {
    files_.emplace(std::move(files));
    slots_.emplace(*model_, *settings.placement);
  }
  return start_balancing();
}

Status RankEngine::allocate_cache() {
  ASSIGN_OR_RETURN(cache_memory_, Device::allocate(memory_.cache_bytes));
  cache_ = KvCache(config(), model_->settings().compute_dtype, cache_memory_.data(),
                   int64_t{memory_.num_blocks} * memory_.block_size);
  return {};
}

Status RankEngine::start_balancing() {
  const ParallelOptions& parallel = placement_.parallel;
  const EplbOptions& eplb = parallel.eplb;
  if (!(eplb.enabled || eplb.log_balancedness) || !slots_ || !exchange_) return {};
  if (placement_.mesh->num_living() < placement_.mesh->size()) return {};
  if (placement_.choices.empty()) {
    const auto& shape = exchange_->placement().shape();
    own_choices_.resize(static_cast<size_t>(shape.num_layers) * static_cast<size_t>(shape.num_experts));
    exchange_->count_choices(own_choices_);
  }
  const std::set<int> nodes(placement_.nodes.begin(), placement_.nodes.end());
  ASSIGN_OR_RETURN(
      balancing_,
      Balancing::create({.eplb = eplb,
                         .balance = balance_options(parallel, config(), std::max(1, static_cast<int>(nodes.size()))),
                         .members = consecutive(0, placement_.mesh->size()),
                         .nodes = placement_.nodes,
                         .cores = placement_.threads.cores,
                         .readers = parallel.is_leader() ? getpid() : getppid()},
                        *placement_.mesh, *model_, *slots_, *exchange_, *files_,
                        placement_.choices.empty() ? std::span(own_choices_) : placement_.choices));
  balancing_->count_on_from(balancing_counts_);
  placement_.mesh->clock().forget();
  return {};
}

// The same on all ranks: the most that every one can afford.
Result<Survival> RankEngine::choose_survival(const ModelConfig& config, const RankMemory& without) {
  const ParallelOptions& parallel = placement_.parallel;
  if (parallel.survive != Survive::kAuto) {
    int most_of_node = 1;
    for (const int node : placement_.nodes)
      most_of_node = std::max(most_of_node, static_cast<int>(std::ranges::count(placement_.nodes, node)));
    return survival_of(parallel.survive, parallel, config,
                       placement_.loads_alone     ? placement_.num_local_ranks
                       : placement_.nodes.empty() ? parallel.group_size()
                                                  : most_of_node);
  }
  Mesh& mesh = *placement_.mesh;
  if (survival_choices(parallel, config).empty() || mesh.size() == 1) return Survival{};
  const Survival own =
      affordable_survival(options_, parallel, config, without, memory_info(), placement_.num_local_ranks);
  if (placement_.loads_alone) return own;  // others that come to something else refuse it
  ASSIGN_OR_RETURN(const int64_t num_lost, least_of_all(mesh, own.num_lost));
  for (const Survival& survival : survival_choices(parallel, config))
    if (survival.num_lost == num_lost) return survival;
  return Survival{};
}

Status RankEngine::plan(const ModelConfig& config, const RankMemory& rank_memory) {
  ASSIGN_OR_RETURN(memory_, plan_memory(options_, config, rank_memory, memory_info(), placement_.num_local_ranks));
  arithmetic_ = arithmetic_hash(config);
  Mesh& mesh = *placement_.mesh;
  if (mesh.size() > 1 || placement_.loads_alone) {
    const ModelSettings& settings = rank_memory.settings;
    numbers_ = {.num_blocks = memory_.num_blocks,
                .max_model_len = memory_.max_model_len,
                .block_size = memory_.block_size,
                .cache_bytes_per_token = static_cast<int64_t>(rank_memory.model.cache_bytes_per_token()),
                .num_layers = config.num_layers,
                .vocab_size = config.vocab_size,
                .max_rows = settings.max_rows,
                .max_num_seqs = options_.max_num_seqs,
                .max_steps = options_.num_scheduler_steps,
                .max_logit_rows = settings.max_logit_rows,
                .isa_level = static_cast<int64_t>(placement_.isa),
                .expert_inputs = expert_inputs_hash(rank_memory.model),
                .reduced_bytes = max_reduced_bytes(config, settings),
                .arithmetic = arithmetic_,
                .identity = placement_.identity};
    if (config.num_experts > 0) {
      const ExchangeLayout layout = exchange_layout(config, settings);
      numbers_.expert_rows_per_peer = layout.rows_per_peer;
      numbers_.expert_pairs_per_peer = layout.pairs_per_peer;
      numbers_.expert_row_bytes = layout.shape.row_bytes;
      numbers_.placement_version = settings.placement->version();
      numbers_.placement_hash = settings.placement->hash();
    }
    if (placement_.loads_alone) return {};
    ASSIGN_OR_RETURN(const CommonPlan common, agree_on_plan(mesh, placement_.parallel, numbers_, rank_memory.model));
    mesh.clock().forget();
    hold_plan(common);
  }
  log_memory(config);
  return {};
}

void RankEngine::log_memory(const ModelConfig& config) const {
  log::info("{}", memory_.describe());
  if (memory_.max_model_len_was_cut)
    log::warn("max_model_len is {}: the KV cache holds no more; the model could do {}", memory_.max_model_len,
              config.max_position_embeddings);
}

void RankEngine::hold_plan(const CommonPlan& plan) {
  memory_.cut_to(static_cast<int>(plan.num_blocks), static_cast<int>(plan.max_model_len));
  numbers_.num_blocks = limits_.num_blocks = memory_.num_blocks;
  numbers_.max_model_len = limits_.max_model_len = memory_.max_model_len;
  if (leads()) log::info("all ranks have agreed on {}", plan.text);
}

RankReport RankEngine::report() const {
  const ParallelOptions& parallel = placement_.parallel;
  RankReport report{.rank = parallel.group_rank(),
                    .dp_rank = parallel.data_parallel_rank,
                    .tp_rank = parallel.tensor_parallel_rank,
                    .pid = getpid(),
                    .arithmetic = arithmetic_,
                    .weight_bytes = model_->weight_bytes(),
                    .planned_weight_bytes = memory_.rank.model.weight_bytes,
                    .sequence_parallel_rows = sequence_parallel_rows_,
                    .agreements = lockstep_->num_agreements(),
                    .steps = num_steps_,
                    .epoch = placement_.mesh->epoch(),
                    .epoch_changes = num_epoch_changes_,
                    .nanoseconds_between_epochs = static_cast<uint64_t>(time_between_epochs_.count()),
                    .foreign_messages = lockstep_->num_foreign(),
                    .living_ranks = static_cast<uint64_t>(placement_.mesh->num_living()),
                    .ranks_lost = num_ranks_lost_,
                    .lost_experts_loaded = num_lost_experts_loaded_,
                    .steps_without_rows = num_steps_without_rows_,
                    .nanoseconds_computing = static_cast<uint64_t>(time_computing_.count()),
                    .nanoseconds_exchanging = static_cast<uint64_t>(placement_.mesh->clock().exchanging().count()),
                    .nanoseconds_waiting = static_cast<uint64_t>(placement_.mesh->clock().waiting().count())};
  if (exchange_) {
    const ExpertPlacement& experts = exchange_->placement();
    const int rank = exchange_->rank();
    report.moe_layers = experts.shape().num_layers;
    report.num_experts = experts.shape().num_experts;
    report.expert_slots = experts.num_slots(rank);
    report.experts_held = experts.num_held(rank);
    report.placement_version = experts.version();
    report.placement_hash = experts.hash();
    report.rows_brought = exchange_->counters().rows_brought;
    report.rows_sent = exchange_->counters().rows_sent;
    report.rows_received = exchange_->counters().rows_received;
    report.expert_rows = exchange_->counters().expert_rows;
    report.layer_expert_rows = exchange_->counters().layer_expert_rows;
    if (balancing_) balancing_->add_to(report);
  }
  for (const Mesh::Traffic& traffic : placement_.mesh->traffic()) {
    const bool shm = traffic.transport == "shm";
    (shm ? report.shm_bytes_sent : report.ucx_bytes_sent) += traffic.bytes_sent;
    (shm ? report.shm_bytes_received : report.ucx_bytes_received) += traffic.bytes_received;
  }
  return report;
}

}  // namespace cachalot
