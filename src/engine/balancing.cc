#include "engine/balancing.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/log.h"
#include "base/text.h"

namespace cachalot {
namespace {

double milliseconds(std::chrono::steady_clock::duration time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

// Of the busiest rank over the mean, each layer waiting for its own.
double busiest_over_mean(const ExpertPlacement& placement, const ExpertLoad& load) {
  const std::vector<double> busiest = busiest_rows(placement, load);
  double all = 0;
  for (const std::vector<double>& layer : load.layers) all += std::accumulate(layer.begin(), layer.end(), 0.0);
  return all > 0 ? std::accumulate(busiest.begin(), busiest.end(), 0.0) * placement.shape().num_ranks / all : 1;
}

}  // namespace

Balancing::Balancing(const Options& options, Mesh& mesh, DeepseekModel& model, ExpertSlots& slots,
                     ExpertExchange& exchange, const WeightCatalog& files, std::span<const uint64_t> counts)
    : options_(options),
      mesh_(mesh),
      model_(model),
      exchange_(exchange),
      neighbours_(model.weights(), options.readers),
      mover_(slots, exchange, files, neighbours_, options.cores),
      council_(options.eplb,
               static_cast<int>(std::ranges::find(options.members, mesh.rank()) - options.members.begin()),
               exchange.layout().shape.placement),
      window_(counts, options.eplb.window_size),
      next_log_(static_cast<uint64_t>(options.eplb.log_balancedness_interval)),
      rows_before_(exchange.counters().layer_expert_rows.size()) {}

Result<std::unique_ptr<Balancing>> Balancing::create(const Options& options, Mesh& mesh, DeepseekModel& model,
                                                     ExpertSlots& slots, ExpertExchange& exchange,
                                                     const WeightCatalog& files, std::span<const uint64_t> counts) {
  std::unique_ptr<Balancing> balancing(new Balancing(options, mesh, model, slots, exchange, files, counts));
  ASSIGN_OR_RETURN(const std::vector<Neighbours::Word> told,
                   balancing->exchange_words(balancing->neighbours_.word(), {.operation = "ranks of a node"}));
  std::vector<Neighbours::Word> words(static_cast<size_t>(mesh.size()));  // of others: nothing
  for (size_t idx = 0; idx < told.size(); idx++) words[static_cast<size_t>(options.members[idx])] = told[idx];
  balancing->neighbours_.meet(words, options.nodes, mesh.rank());
  return balancing;
}

template <class Word>
Result<std::vector<Word>> Balancing::exchange_words(const Word& own, const CollectiveSite& site) {
  std::vector<Word> words(options_.members.size());
  std::vector<SendOp> sends;
  std::vector<ReceiveOp> receives;
  for (size_t idx = 0; idx < words.size(); idx++) {
    const int peer = options_.members[idx];
    if (peer == mesh_.rank()) {
      words[idx] = own;
      continue;
    }
    sends.push_back({.peer = peer, .data = std::as_bytes(std::span(&own, 1))});
    receives.push_back({.peer = peer, .buffer = std::as_writable_bytes(std::span(&words[idx], 1))});
  }
  RETURN_IF_ERROR(run(sends, receives, site));
  return words;
}

// On the first member, those of all, one behind the other; elsewhere nothing.
template <class Number>
Result<std::vector<Number>> Balancing::gather(std::span<const Number> own, const CollectiveSite& site) {
  std::vector<Number> all;
  std::vector<SendOp> sends;
  std::vector<ReceiveOp> receives;
  if (is_first()) {
    all.resize(own.size() * options_.members.size());
    std::ranges::copy(own, all.begin());
    for (size_t idx = 1; idx < options_.members.size(); idx++)
      receives.push_back({.peer = options_.members[idx],
                          .buffer = std::as_writable_bytes(std::span(all).subspan(own.size() * idx, own.size()))});
  } else {
    sends.push_back({.peer = options_.members.front(), .data = std::as_bytes(own)});
  }
  RETURN_IF_ERROR(run(sends, receives, site));
  return all;
}

Status Balancing::broadcast(std::span<std::byte> bytes, const CollectiveSite& site) {
  std::vector<SendOp> sends;
  std::vector<ReceiveOp> receives;
  if (is_first()) {
    for (const int peer : std::span(options_.members).subspan(1)) sends.push_back({.peer = peer, .data = bytes});
  } else {
    receives.push_back({.peer = options_.members.front(), .buffer = bytes});
  }
  return run(sends, receives, site);
}

Status Balancing::run(std::span<SendOp> sends, std::span<ReceiveOp> receives, const CollectiveSite& site) {
  for (ReceiveOp& receive : receives) mesh_.start(receive);
  for (SendOp& send : sends) mesh_.start(send);
  RETURN_IF_ERROR(mesh_.wait(sends, receives, site));
  for (const ReceiveOp& receive : receives)
    if (receive.size != receive.buffer.size())
      return mesh_.fail(make_error(ErrorCode::kCorrupt, "{}: {} sent {} bytes instead of {}", site.text(),
                                   mesh_.rank_name(receive.peer), receive.size, receive.buffer.size()));
  return {};
}

Status Balancing::before_round(uint64_t step) {
  window_.note(step);
  if (options_.eplb.enabled && council_.is_due(step)) RETURN_IF_ERROR(meet(step));
  if (options_.eplb.log_balancedness && step >= next_log_) RETURN_IF_ERROR(log_balancedness(step));
  return {};
}

Status Balancing::meet(uint64_t step) {
  const auto begin = Clock::now();
  take_plan();
  if (copies_ && mover_.progress() != ExpertMover::Progress::kGoesOn)
    council_.end_copying(mover_.progress() == ExpertMover::Progress::kDone);
  const CollectiveSite site{.operation = "council on the experts' placement", .step = step};
  const ExchangeClock::Call call(mesh_.clock(), site);
  ASSIGN_OR_RETURN(const std::vector<CouncilWord> words, exchange_words(council_.word(step), site));
  const auto verdict = council_.hear(words);
  if (!verdict) return mesh_.fail(verdict.error());
  switch (*verdict) {
    case CouncilVerdict::kGoOn:
      return {};
    case CouncilVerdict::kCount:
      return send_counts(step);
    case CouncilVerdict::kCopy:
      return take_offer(step);
    case CouncilVerdict::kSwitch:
      switch_over(step, begin);
      return {};
    case CouncilVerdict::kDrop:
      give_up_moves();
      return {};
  }
  return {};
}

Status Balancing::send_counts(uint64_t step) {
  const std::vector<uint32_t> own = window_.counts();
  ASSIGN_OR_RETURN(const std::vector<uint32_t> all,
                   gather<uint32_t>(own, {.operation = "counts of experts' rows", .step = step}));
  if (!is_first()) return {};
  const auto& shape = council_.now()->shape();
  ExpertLoad load = ExpertLoad::uniform(shape.num_layers, shape.num_experts);
  for (int layer = 0; layer < shape.num_layers; layer++) {
    for (int expert = 0; expert < shape.num_experts; expert++) {
      double& rows = load.layers[static_cast<size_t>(layer)][static_cast<size_t>(expert)] = 0;
      for (size_t idx = static_cast<size_t>(layer * shape.num_experts + expert); idx < all.size(); idx += own.size())
        rows += all[idx];
    }
  }
  const int num_buffers = static_cast<int>(model_.weights().move_buffers.size());
  planning_ = std::async(std::launch::async, [now = council_.now(), load = std::move(load), balance = options_.balance,
                                              num_buffers] { return plan(*now, load, balance, num_buffers); });
  return {};
}

Balancing::Plan Balancing::plan(const ExpertPlacement& now, ExpertLoad load, const BalanceOptions& balance,
                                int num_buffers) {
  Plan plan{.busiest = busiest_over_mean(now, load)};
  plan.then = plan.busiest;
  const auto target = rebalanced_placement(now, load, balance);
  CHECK(target, "{}", target.error().message);
  const ExpertPlacement* reached = &now;
  while (auto stage = next_stage(*reached, *target, load, num_buffers)) {
    plan.stages.push_back(std::make_shared<const ExpertPlacement>(std::move(*stage)));
    reached = plan.stages.back().get();
  }
  plan.then = busiest_over_mean(*reached, load);
  plan.load = std::move(load);
  return plan;
}

// The first member's, when it is there.
void Balancing::take_plan() {
  if (!planning_.valid() || planning_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return;
  Plan plan = planning_.get();
  balancedness_ = 1 / plan.busiest;
  if (!plan.stages.empty())
    log::info(
        "experts: the busiest rank had {:.2f} times the mean rows in the last {} steps; {} experts move, in "
        "{}, to {:.2f}",
        plan.busiest, options_.eplb.window_size, num_moves(*council_.now(), *plan.stages.back()),
        counted(std::ssize(plan.stages), "part"), plan.then);
  council_.plan(std::move(plan.stages));
}

Status Balancing::take_offer(uint64_t step) {
  const CollectiveSite site{.operation = "the experts' next placement", .step = step};
  const ExpertPlacement& now = *council_.now();
  SharedPlacement next = is_first() ? council_.offer() : nullptr;
  std::vector<int32_t> experts(now.experts().size());
  if (next) std::ranges::copy(next->experts(), experts.begin());
  RETURN_IF_ERROR(broadcast(std::as_writable_bytes(std::span(experts)), site));
  if (!next) {
    auto taken = with_experts(now, experts);
    if (!taken) return mesh_.fail(taken.error());
    next = std::make_shared<const ExpertPlacement>(std::move(*taken));
  }
  if (const Status begun = council_.begin(next); !begun) return mesh_.fail(begun.error());
  copying_since_ = Clock::now();
  copying_since_step_ = step;
  mover_.start(std::move(next));
  copies_ = true;
  return {};
}

void Balancing::switch_over(uint64_t step, Clock::time_point begin) {
  const SharedPlacement before = exchange_.layout().shape.placement;
  const ExpertMover::Counts counts = mover_.apply();
  copies_ = false;
  counts_.switches++;
  counts_.moved += static_cast<uint64_t>(counts.from_ranks + counts.from_files);
  if (!is_first()) return;
  log::info(
      "experts: placement {} holds from step {} on: {} experts moved ({} to this rank, {} of them from the files, "
      "{:.1f} MiB), which took {:.1f} s beside {} steps; the switch itself {:.2f} ms",
      council_.now()->version(), step, num_moves(*before, *council_.now()), counts.from_ranks + counts.from_files,
      counts.from_files, static_cast<double>(counts.bytes) / (1 << 20), milliseconds(begin - copying_since_) / 1e3,
      step - copying_since_step_, milliseconds(Clock::now() - begin));
}

void Balancing::give_up_moves() {
  counts_.failed++;
  if (mover_.progress() == ExpertMover::Progress::kFailed)
    log::warn("experts: they stay where they are (placement {}) for the next {} steps: {}", council_.now()->version(),
              options_.eplb.step_interval, mover_.error().message);
  else if (is_first())
    log::warn("experts: they stay where they are (placement {}) for the next {} steps: {} could not bring all of its",
              council_.now()->version(), options_.eplb.step_interval,
              mesh_.rank_name(options_.members[static_cast<size_t>(council_.first_failed())]));
  mover_.drop();
  copies_ = false;
}

// Each layer of a step waits for the rank with most rows in it.
Status Balancing::log_balancedness(uint64_t step) {
  const auto steps = static_cast<uint64_t>(options_.eplb.log_balancedness_interval) + step - next_log_;
  next_log_ = step + static_cast<uint64_t>(options_.eplb.log_balancedness_interval);
  std::vector<uint64_t> rows(rows_before_.size());
  for (size_t layer = 0; layer < rows.size(); layer++) {
    const uint64_t now = exchange_.counters().layer_expert_rows[layer];
    rows[layer] = now - std::exchange(rows_before_[layer], now);
  }
  ASSIGN_OR_RETURN(const std::vector<uint64_t> all,
                   gather<uint64_t>(rows, {.operation = "rows of all ranks' experts", .step = step}));
  double busiest = 0, sum = 0;
  for (size_t layer = 0; layer < rows.size(); layer++) {
    uint64_t most = 0;
    for (size_t idx = layer; idx < all.size(); idx += rows.size()) {
      most = std::max(most, all[idx]);
      sum += static_cast<double>(all[idx]);
    }
    busiest += static_cast<double>(most);
  }
  if (!is_first() || busiest == 0) return {};
  balancedness_ = sum / static_cast<double>(options_.members.size()) / busiest;
  log::info(
      "experts: balancedness {:.3f} (mean rows of all ranks over the busiest rank's) of {} steps, by placement {}",
      balancedness_, steps, council_.now()->version());
  return {};
}

void Balancing::add_to(RankReport& report) const {
  report.placement_switches = counts_.switches;
  report.experts_moved = counts_.moved;
  report.failed_moves = counts_.failed;
  report.balancedness_permille = static_cast<uint64_t>(balancedness_ * 1000 + 0.5);
}

}  // namespace cachalot
