// How a rank goes from one epoch to the next.
#include <algorithm>

#include "base/log.h"
#include "comm/group.h"
#include "engine/rank_engine.h"

namespace cachalot {
namespace {

// So long a rank loads lost experts before it meets the others, who wait for it there.
constexpr std::chrono::milliseconds kLoadingTurn{500};

}  // namespace

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

}  // namespace cachalot
