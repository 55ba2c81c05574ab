#include "engine/rank_engine.h"

#include <unistd.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "base/log.h"
#include "comm/group.h"
#include "core/request.h"
#include "device/thread_pool.h"
#include "model/feed_forward.h"
#include "weights/model_files.h"

namespace cachalot {
namespace {

// So long a step waits for masks that are not there when its logits are. Most are long before.
constexpr std::chrono::milliseconds kMaskPatience{5};

// So long a rank loads lost experts before it meets the others, who wait for it there.
constexpr std::chrono::milliseconds kLoadingTurn{500};

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

Status RankEngine::connect(const ModelConfig& config, const ModelSettings& settings, bool has_experts) {
  Mesh& mesh = *placement_.mesh;
  ASSIGN_OR_RETURN(tensor_group_, make_group(mesh, {.members = roles_.tensor_group,
                                                    .max_reduced_bytes = max_reduced_bytes(config, settings),
                                                    .max_gathered_rows = settings.max_logit_rows}));
  if (config.num_experts == 0 || !has_experts) return {};
  ASSIGN_OR_RETURN(exchange_,
                   ExpertExchange::create(mesh, consecutive(mesh.rank() - settings.ep_rank, settings.ep_size),
                                          exchange_layout(config, settings),
                                          settings.ep_size > 1 ? std::span(placement_.nodes) : std::span<const int>()));
  // Without expert parallelism all ranks of a replica have all of its rows: one counts them.
  const bool counts = settings.expert_parallel || settings.tp_rank == 0;
  if (counts && !placement_.choices.empty()) exchange_->count_choices(placement_.choices);
  return {};
}

Status RankEngine::enter(Epochs::Next next) {
  const Epoch& epoch = next.epoch;
  const std::vector<int> living = epoch.ranks();
  if (exchange_) {
    exchange_counters_ = exchange_->counters();
    experts_ = exchange_->layout().shape.placement;
  }
  if (balancing_) {
    balancing_counts_ = balancing_->counts();
    balancing_.reset();  // gives up what it was at
  }
  exchange_.reset();  // both have to do with the transports that go
  tensor_group_.reset();
  for (const EpochMember& member : epoch.members)
    if (!member.name.empty()) placement_.mesh->name_rank(member.rank, member.name);
  RETURN_IF_ERROR(placement_.mesh->begin_epoch(epoch.number, living, std::move(next.transports)));
  if (!epoch.nodes.empty()) placement_.nodes = epoch.nodes;
  ASSIGN_OR_RETURN(const Greeted greeted, greet(living));
  AfterLoss experts;
  if (slots_) {
    ASSIGN_OR_RETURN(experts, place_experts(living, greeted.placement_version + 1));
  }
  const bool has_experts = !slots_ || experts.placement;
  roles_ = roles_in_epoch(placement_.parallel, living, has_experts);
  std::vector<uint64_t> holders;
  const EpochRoles with_experts = roles_in_epoch(placement_.parallel, living);
  for (const EpochMember& member : epoch.members)
    if (with_experts.serves && std::ranges::count(with_experts.tensor_group, member.rank) > 0)
      holders.push_back(member.process);
  blocks_lost_ |= std::exchange(block_holders_, holders) != holders;
  const auto is_lost = [&](const EpochMember& before) {
    return std::ranges::none_of(epoch.members, [&](const EpochMember& member) {
      return member.rank == before.rank && member.process == before.process;
    });
  };
  num_ranks_lost_ += static_cast<uint64_t>(std::ranges::count_if(members_, is_lost));
  members_ = epoch.members;
  if (roles_.serves && !has_cache()) {
    hold_plan(greeted.plan);
    log_memory(config());
    RETURN_IF_ERROR(allocate_cache());
  }

  ModelSettings settings = model_->settings();
  if (experts.placement) experts_ = std::make_shared<const ExpertPlacement>(*experts.placement);
  if (slots_) settings.placement = experts_;
  RETURN_IF_ERROR(connect(config(), settings, has_experts));
  if (exchange_) exchange_->count_on_from(exchange_counters_);
  model_->connect(*tensor_group_, exchange_.get());
  lockstep_->begin_epoch(roles_, limits_);
  if (!experts.to_load.empty() && has_experts) RETURN_IF_ERROR(load_lost_experts(living, experts));
  return start_balancing();
}

// Ranks gave up the epoch before at different steps. From here on all count alike, from where the first one was.
Result<RankEngine::Greeted> RankEngine::greet(const std::vector<int>& living) {
  struct Greeting {
    uint64_t num_steps, stands;
    int64_t placement_version;
    RankNumbers numbers;
  };
  Mesh& mesh = *placement_.mesh;
  const CollectiveSite site{.operation = "the beginning of an epoch", .step = mesh.epoch()};
  const Greeting own{num_steps_, has_cache(), experts_ ? experts_->version() : 0, numbers_};
  ASSIGN_OR_RETURN(const std::vector<Greeting> of_ranks, gather_rows<Greeting>(mesh, living, std::span(&own, 1), site));
  Greeted greeted;
  std::vector<RankStanding> standings;
  for (size_t idx = 0; idx < living.size(); idx++) {
    const Greeting& of_rank = of_ranks[idx];
    num_steps_ = std::max(num_steps_, of_rank.num_steps);
    greeted.placement_version = std::max(greeted.placement_version, static_cast<uint32_t>(of_rank.placement_version));
    standings.push_back({living[idx], mesh.rank_name(living[idx]), of_rank.numbers, of_rank.stands != 0});
  }
  EpochPlan plan = plan_of_epoch(standings, placement_.parallel);
  if (plan.plan) {
    greeted.plan = std::move(*plan.plan);
    return greeted;
  }
  if (plan.refused >= 0 && plan.refused != mesh.rank())
    return mesh.fail(make_error(ErrorCode::kUnavailable, "{} is refused: {}", mesh.rank_name(plan.refused),
                                plan.plan.error().message));
  return mesh.fail(plan.plan.error());
}

// Where the experts are from now on follows, the same on all ranks, from what the living hold.
Result<AfterLoss> RankEngine::place_experts(const std::vector<int>& living, uint32_t version) {
  Mesh& mesh = *placement_.mesh;
  const ExpertPlacement& frame = *model_->settings().placement;
  int64_t most = 0;
  for (const int rank : living) most = std::max(most, frame.num_slots(rank));
  std::vector<int32_t> own(slots_->held().begin(), slots_->held().end());
  own.resize(static_cast<size_t>(most), ExpertPlacement::kSpare);
  ASSIGN_OR_RETURN(
      const std::vector<int32_t> of_ranks,
      gather_rows<int32_t>(mesh, living, own, {.operation = "experts that are held", .step = mesh.epoch()}));
  std::vector<ExpertPlacement::Layer> held;
  std::vector<size_t> next(living.size());
  for (size_t idx = 0; idx < living.size(); idx++) next[idx] = idx * own.size();
  for (int layer = 0; layer < frame.shape().num_layers; layer++) {
    ExpertPlacement::Layer& ranks = held.emplace_back(static_cast<size_t>(frame.shape().num_ranks));
    for (size_t idx = 0; idx < living.size(); idx++) {
      const auto begin = of_ranks.begin() + static_cast<std::ptrdiff_t>(next[idx]);
      const size_t num_slots = frame.slots(layer, living[idx]).size();
      ranks[static_cast<size_t>(living[idx])].assign(begin, begin + static_cast<std::ptrdiff_t>(num_slots));
      next[idx] += num_slots;
    }
  }
  auto after = placement_of_held(frame.shape(), version, std::move(held));
  if (!after) return mesh.fail(after.error());
  if (!after->homeless.empty() && mesh.rank() == living.front())
    log::warn("experts: epoch {}: {}", mesh.epoch(), after->text());
  return std::move(*after);
}

// Together: all are through when the last one is, and nobody waits longer for another than for one of its turns.
Status RankEngine::load_lost_experts(const std::vector<int>& living, const AfterLoss& experts) {
  Mesh& mesh = *placement_.mesh;
  const auto begin = std::chrono::steady_clock::now();
  std::vector<LostExpert> own;
  std::ranges::copy_if(experts.to_load, std::back_inserter(own),
                       [&](const LostExpert& lost) { return lost.rank == mesh.rank(); });
  const size_t num_own = own.size();
  // What is given up for others is gone from the start.
  for (const LostExpert& lost : own) slots_->hold(lost.layer, lost.slot, ExpertPlacement::kSpare);
  for (bool all_done = false; !all_done;) {
    const auto end_of_turn = std::chrono::steady_clock::now() + kLoadingTurn;
    while (!own.empty() && std::chrono::steady_clock::now() < end_of_turn) {
      const LostExpert& lost = own.back();
      RETURN_IF_ERROR(mesh.progress());
      if (const Status loaded = slots_->load(*files_, *device_, lost.layer, lost.slot, lost.expert); !loaded)
        return mesh.fail(loaded.error());
      num_lost_experts_loaded_++;
      own.pop_back();
    }
    const auto left = static_cast<int64_t>(own.size());
    ASSIGN_OR_RETURN(const std::vector<int64_t> of_ranks,
                     gather_rows<int64_t>(mesh, living, std::span(&left, 1),
                                          {.operation = "loading of lost experts", .step = mesh.epoch()}));
    all_done = std::ranges::max(of_ranks) == 0;
  }
  log::info("experts: placement {}: {}, {} of them by this rank; all have theirs after {:.3f} s", experts_->version(),
            experts.text(), num_own, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  return {};
}

Status RankEngine::enter_next(Epochs& epochs, Error why) {
  const auto begin = std::chrono::steady_clock::now();
  for (;;) {
    if (placement_.mesh->failure()) placement_.mesh->abandon();  // its connections close: who waits for this rank wakes
    Result<Epochs::Next> next = epochs.next(why);
    const Status entered = next ? enter(std::move(*next)) : Status(std::unexpected(std::move(next.error())));
    if (!entered && !ends_epoch(entered.error())) return entered;
    if (entered) break;
    why = entered.error();
  }
  epochs.entered(experts_ ? experts_->version() : 0, num_steps_);
  const auto pause = std::chrono::steady_clock::now() - begin;
  time_between_epochs_ += pause;
  num_epoch_changes_++;
  log::info("epoch {} has {} of {} ranks{}; this rank paused for {:.3f} s: {}", placement_.mesh->epoch(),
            placement_.mesh->num_living(), placement_.mesh->size(),
            serves() ? "" : ", and this one's replica lacks some", std::chrono::duration<double>(pause).count(),
            why.message);
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

Result<StepResult> RankEngine::run(const StepPlan& plan, int num_steps) {
  CHECK(leads() || !serves());
  CHECK(plan.sequences.empty() || (serves() && num_steps <= plan.num_steps));
  CHECK(std::ssize(plan.sequences) <= options_.max_num_seqs && num_steps <= options_.num_scheduler_steps);
  StepResult result{.round = plan.round, .sequences = std::vector<SequenceResult>(plan.sequences.size())};
  active_.clear();
  start_round(num_steps);
  for (size_t idx = 0; idx < plan.sequences.size(); idx++) {
    const PlannedSequence& planned = plan.sequences[idx];
    result.sequences[idx].id = planned.id;
    const RoundSequence sequence{.first_position = planned.first_position,
                                 .num_tokens = planned.num_tokens,
                                 .num_prompt_tokens = planned.num_prompt_tokens,
                                 .sample = planned.sample,
                                 .prompt_logits = planned.sampling->num_prompt_logprobs >= 0,
                                 .tokens = planned.tokens.subspan(static_cast<size_t>(planned.first_position),
                                                                  static_cast<size_t>(planned.num_tokens)),
                                 .blocks = planned.blocks};
    round_.sequences.push_back(sequence);
    result.sequences[idx].tokens.reserve(planned.sample ? static_cast<size_t>(num_steps) : 0);
    activate(sequence, &planned, &result.sequences[idx]);
  }
  RETURN_IF_ERROR(lockstep_->announce(round_));
  RETURN_IF_ERROR(run_steps(num_steps));
  return result;
}

Status RankEngine::run_for_logits(const RoundSequence& sequence, View<float, 2> logits) {
  start_round(1);
  round_.all_logits = true;
  round_.sequences.push_back(sequence);
  RETURN_IF_ERROR(lockstep_->announce(round_));
  return run_all_logits(sequence, logits);
}

Status RankEngine::dismiss() {
  start_round(0);
  round_.leave = true;
  return lockstep_->announce(round_);
}

Status RankEngine::follow(const Round& round) {
  CHECK(!leads());
  if (round.number != num_steps_)
    return make_error(ErrorCode::kInternal, "the leader's round begins with step {}, this rank is at step {}",
                      round.number, num_steps_);
  if (round.all_logits) return run_all_logits(round.sequences[0], {});
  active_.clear();
  for (const RoundSequence& sequence : round.sequences) activate(sequence, nullptr, nullptr);
  return run_steps(round.num_steps);
}

void RankEngine::reserve_lists() {
  const auto sequences = static_cast<size_t>(options_.max_num_seqs),
             rows = static_cast<size_t>(options_.max_num_batched_tokens);
  active_.reserve(sequences);
  running_.reserve(sequences);
  choices_.reserve(sequences);
  round_.sequences.reserve(sequences);
  wanted_.reserve(std::max(rows, sequences));
  row_ids_.reserve(std::max(rows, sequences));
  if (leads()) sampled_.resize(sequences * static_cast<size_t>(options_.num_scheduler_steps));
}

void RankEngine::start_round(int num_steps) {
  round_.number = num_steps_;
  round_.epoch = placement_.mesh->epoch();
  round_.num_steps = num_steps;
  round_.leave = round_.all_logits = false;
  round_.sequences.clear();
}

void RankEngine::activate(const RoundSequence& now, const PlannedSequence* planned, SequenceResult* result) {
  Active sequence{.now = now, .planned = planned, .result = result, .room = {}};
  const auto max_steps = static_cast<size_t>(options_.num_scheduler_steps);
  if (planned) sequence.room = std::span(sampled_).subspan(active_.size() * max_steps, max_steps);
  active_.push_back(sequence);
}

class RankEngine::ComputeTime {
 public:
  explicit ComputeTime(RankEngine& engine) : engine_(engine), in_calls_(clock().total()) {}
  ~ComputeTime() {
    engine_.time_computing_ += std::chrono::steady_clock::now() - begin_ - (clock().total() - in_calls_);
  }
  ComputeTime(const ComputeTime&) = delete;
  ComputeTime& operator=(const ComputeTime&) = delete;

 private:
  const ExchangeClock& clock() const { return engine_.placement_.mesh->clock(); }

  RankEngine& engine_;
  const std::chrono::nanoseconds in_calls_;
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

void RankEngine::set_trace(StepTrace* trace) {
  trace_ = trace;
  placement_.mesh->clock().set_trace(trace);
}

// Where replicas step together, a replica whose sequences have all ended goes on with zero rows.
Status RankEngine::run_steps(int num_steps) {
  if (balancing_) RETURN_IF_ERROR(balancing_->before_round(num_steps_));
  const ComputeTime time(*this);
  for (int step_idx = 0; step_idx < num_steps; step_idx++) {
    running_.clear();
    for (Active& sequence : active_) {
      if (sequence.finished) continue;
      if (step_idx > 0) {
        prepare_next_step(sequence);
        RETURN_IF_ERROR(check_step(sequence.now, limits_));
      }
      running_.push_back(&sequence);
    }
    if (running_.empty() && !placement_.parallel.spans_replicas()) break;
    if (placement_.on_activity) placement_.on_activity(num_steps_);
    RETURN_IF_ERROR(step(running_, step_idx + 1 == num_steps));
  }
  if (placement_.on_activity) placement_.on_activity(std::nullopt);
  return {};
}

Status RankEngine::step(std::span<Active*> active, bool last) {
  TraceScope span(trace_, "step");
  batch_->clear();
  for (const Active* sequence : active) batch_->add(sequence->now);
  RETURN_IF_ERROR(forward());
  if (span) span.set_rows(batch_->num_rows());
  RETURN_IF_ERROR(report_prompt(active));
  RETURN_IF_ERROR(sample(active));
  return last ? Status() : share_tokens(active);
}

Status RankEngine::forward() {
  ModelBatch batch = batch_->build(num_steps_);
  batch.trace = trace_;
  RETURN_IF_ERROR(model_->forward(batch, cache_));
  num_steps_++;
  if (batch.num_rows() == 0) num_steps_without_rows_++;
  const RowPartition rows(batch.num_rows(), placement_.parallel.tensor_parallel_size);
  sequence_parallel_rows_ +=
      static_cast<uint64_t>(rows.count(placement_.parallel.tensor_parallel_rank) * config().num_layers);
  return {};
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

Status RankEngine::run_all_logits(const RoundSequence& sequence, View<float, 2> all) {
  if (balancing_) RETURN_IF_ERROR(balancing_->before_round(num_steps_));
  const ComputeTime time(*this);
  batch_->clear();
  batch_->add(sequence);
  RETURN_IF_ERROR(forward());
  row_ids_.resize(static_cast<size_t>(sequence.num_tokens));
  std::iota(row_ids_.begin(), row_ids_.end(), 0);
  for (int64_t begin = 0; begin < sequence.num_tokens; begin += max_logit_rows_) {
    const int64_t count = std::min<int64_t>(max_logit_rows_, sequence.num_tokens - begin);
    ASSIGN_OR_RETURN(const auto rows,
                     logits(std::span(row_ids_).subspan(static_cast<size_t>(begin), static_cast<size_t>(count))));
    if (leads()) std::copy_n(rows.data(), rows.size(), all.row(begin));  // host: logits, as for the sampler
  }
  return {};
}

Result<View<float, 2>> RankEngine::logits(std::span<const int32_t> row_ids) {
  const TraceScope span(trace_, "head");
  const View<float, 2> view =
      leads() ? logits_memory_.view<float>(row_ids.size(), config().vocab_size) : View<float, 2>();
  RETURN_IF_ERROR(model_->logits(View<const int32_t, 1>(row_ids.data(), row_ids.size()), view));
  return view;
}

// body(wanted rows, their logits), on the leader, for as many rows at a time as there is memory for.
template <class Body>
Status RankEngine::read_wanted(Body body) {
  const auto at_most = static_cast<size_t>(max_logit_rows_);
  for (size_t begin = 0; begin < wanted_.size(); begin += at_most) {
    const std::span rows = std::span(wanted_).subspan(begin, std::min(wanted_.size() - begin, at_most));
    row_ids_.clear();
    for (const WantedRow& wanted : rows) row_ids_.push_back(wanted.row);
    ASSIGN_OR_RETURN(const auto logits, this->logits(row_ids_));
    if (leads()) body(rows, logits);
  }
  return {};
}

// Logprobs of the prompt's tokens, for the sequences that ask: the row of a token speaks of the next one.
Status RankEngine::report_prompt(std::span<Active*> active) {
  wanted_.clear();
  for (size_t idx = 0; idx < active.size(); idx++) {
    const RoundSequence& now = active[idx]->now;
    if (!now.prompt_logits) continue;
    const int end = std::min(now.first_position + now.num_tokens, now.num_prompt_tokens - 1);
    if (leads() && end > now.first_position)
      active[idx]->result->prompt_logprobs.reserve(static_cast<size_t>(end - now.first_position));
    for (int position = now.first_position; position < end; position++)
      wanted_.push_back({active[idx], batch_->row_of(idx, position), position + 1});
  }
  return read_wanted([&](std::span<const WantedRow> rows, View<float, 2> logits) {
    for (size_t idx = 0; idx < rows.size(); idx++) {
      Active& sequence = *rows[idx].sequence;
      auto described = samplers_[0]->describe(logits[static_cast<int64_t>(idx)],
                                              sequence.planned->tokens[static_cast<size_t>(rows[idx].next_position)],
                                              sequence.planned->sampling->num_prompt_logprobs);
      if (described) {
        sequence.result->prompt_logprobs.push_back(std::move(*described));
      } else {
        take_token(sequence, std::unexpected(described.error()));
      }
    }
  });
}

// Samples for every sequence whose last known token went through the model, rows shared out over the threads.
Status RankEngine::sample(std::span<Active*> active) {
  wanted_.clear();
  for (size_t idx = 0; idx < active.size(); idx++) {
    const RoundSequence& now = active[idx]->now;
    if (now.sample) wanted_.push_back({active[idx], batch_->row_of(idx, now.first_position + now.num_tokens - 1), 0});
  }
  return read_wanted([&](std::span<const WantedRow> rows, View<float, 2> logits) {
    const TraceScope span(trace_, "sampling");
    const auto deadline = std::chrono::steady_clock::now() + kMaskPatience;
    device_->threads().parallel_for(std::ssize(rows), 1, [&](int64_t first, int64_t last, int thread_idx) {
      for (int64_t idx = first; idx < last; idx++) {
        Active& sequence = *rows[static_cast<size_t>(idx)].sequence;
        if (sequence.finished) continue;  // its prompt's logprobs failed
        if (TokenConstraint* mask = sequence.planned->constraint; mask && !mask->is_ready_by(deadline)) {
          sequence.finished = sequence.result->is_deferred = true;
          continue;
        }
        take_token(sequence, samplers_[static_cast<size_t>(thread_idx)]->sample(
                                 {.logits = logits[idx],
                                  .tokens = sequence.planned->tokens,
                                  .newer = sequence.sampled(),
                                  .num_prompt_tokens = sequence.planned->num_prompt_tokens,
                                  .sampling = sequence.planned->sampling,
                                  .constraint = sequence.planned->constraint}));
      }
    });
  });
}

// The leader tells its ranks what was sampled, for the next step of the round.
Status RankEngine::share_tokens(std::span<Active*> active) {
  if (placement_.parallel.tensor_parallel_size == 1 || active.empty()) return {};
  choices_.resize(active.size());
  for (size_t idx = 0; leads() && idx < active.size(); idx++)
    choices_[idx] = {active[idx]->last, active[idx]->finished};
  RETURN_IF_ERROR(tensor_group_->broadcast(std::as_writable_bytes(std::span(choices_)), 0,
                                           {.operation = "sampled tokens", .step = num_steps_}));
  for (size_t idx = 0; idx < active.size(); idx++) {
    if (choices_[idx].token < 0 || choices_[idx].token >= limits_.vocab_size)
      return make_error(ErrorCode::kCorrupt,
                        "the leader sampled token {} for sequence {} of step {}; the vocabulary has {}",
                        choices_[idx].token, idx, num_steps_, limits_.vocab_size);
    active[idx]->last = choices_[idx].token;
    active[idx]->finished = choices_[idx].finished != 0;
  }
  return {};
}

// Records what was sampled, and whether the sequence ends with it.
void RankEngine::take_token(Active& sequence, Result<SampledToken> sampled) {
  SequenceResult& result = *sequence.result;
  if (!sampled) {
    result.finish = FinishReason::kError;
    result.error_code = sampled.error().code;
    result.error = sampled.error().message;
    sequence.finished = true;
    return;
  }
  sequence.last = sampled->token;
  result.tokens.push_back(std::move(*sampled));
  const int num_known = static_cast<int>(sequence.planned->tokens.size()) + sequence.num_sampled;
  const int num_generated = num_known + 1 - sequence.planned->num_prompt_tokens;
  result.finish = finish_reason(*sequence.planned->sampling, num_generated, sequence.last);
  sequence.finished = result.finish != FinishReason::kNone;
}

// The token sampled last is what the sequence brings to the next step of the round.
void RankEngine::prepare_next_step(Active& sequence) {
  if (sequence.planned) sequence.room[static_cast<size_t>(sequence.num_sampled++)] = sequence.last;
  sequence.now.first_position += sequence.now.num_tokens;
  sequence.now.num_tokens = 1;
  sequence.now.prompt_logits = false;
  sequence.now.tokens = std::span(&sequence.last, 1);
}

}  // namespace cachalot
