#include "serve/rank_group.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "base/file.h"
#include "base/log.h"
#include "base/math.h"
#include "base/stop_signals.h"
#include "comm/membership/member.h"
#include "config/version.h"
#include "device/device.h"
#include "device/thread_pool.h"
#include "engine/memory_plan.h"
#include "engine/participate.h"
#include "serve/rank_reports.h"
#include "weights/model_files.h"

namespace cachalot {

std::vector<std::pair<std::string, std::string>> group_settings(const EngineOptions& engine,
                                                                const ParallelOptions& parallel) {
  const auto dtype = [](DTypeOption option) { return option == DTypeOption::kFloat32 ? "float32" : "bfloat16"; };
  const auto activation = [](ActivationDTypeOption option) {
    return option == ActivationDTypeOption::kInt8 ? "int8" : option == ActivationDTypeOption::kBf16 ? "bf16" : "auto";
  };
  const auto text = [](auto value) { return fmt::format("{}", value); };
  return {{"--tensor-parallel-size", text(parallel.tensor_parallel_size)},
          {"--data-parallel-size", text(parallel.data_parallel_size)},
          {"--enable-expert-parallel", parallel.enable_expert_parallel ? "on" : "off"},
          {"--enable-eplb", parallel.eplb.enabled ? "on" : "off"},
          {"--eplb-config",
           fmt::format("num_redundant_experts {}, window_size {}, step_interval {}, log_balancedness "
                       "{} every {}",
                       parallel.eplb.num_redundant_experts, parallel.eplb.window_size, parallel.eplb.step_interval,
                       parallel.eplb.log_balancedness ? "on" : "off", parallel.eplb.log_balancedness_interval)},
          {"--survive", std::string(survive_name(parallel.survive))},
          {"--exchange-max-bytes", text(parallel.exchange_max_bytes)},
          {"--failure-timeout-ms", text(parallel.failure_timeout_ms)},
          {"--dtype", dtype(engine.dtype)},
          {"--activation-dtype", activation(engine.activation_dtype)},
          {"--max-model-len", text(engine.max_model_len)},
          {"--max-num-batched-tokens", text(engine.max_num_batched_tokens)},
          {"--max-num-seqs", text(engine.max_num_seqs)},
          {"--block-size", text(engine.block_size)},
          {"--num-scheduler-steps", text(engine.num_scheduler_steps)}};
}

namespace {

constexpr std::chrono::milliseconds kReadyGrace{300};

std::string label_of(const ParallelOptions& parallel) {
  return fmt::format("replica {}, tp {}", parallel.data_parallel_rank, parallel.tensor_parallel_rank);
}

Result<std::string> read_secret(const ParallelOptions& parallel, const RankBoard* board, bool private_group) {
  if (!parallel.group_secret_file.empty()) return read_file(parallel.group_secret_file, kMostHandwrittenBytes);
  return private_group && board ? board->secret() : std::string();
}

// Ranks of one node share its memory, and those on the same cores share these in the order of their numbers.
void take_share_of_node(const std::vector<Member>& members, int rank, int num_threads, Placement& placement) {
  const Member& own = members[rank];
  placement.num_local_ranks = static_cast<int>(std::ranges::count(members, own.node, &Member::node));
  placement.nodes.clear();
  for (const Member& member : members)
    placement.nodes.push_back(
        static_cast<int>(std::ranges::find(members, member.node, &Member::node) - members.begin()));
  const CoreSharers sharers = core_sharers(members, rank);
  placement.threads = share_threads(numa_domains(own.cores), sharers.place, sharers.count, num_threads);
}

}  // namespace

RankGroup::RankGroup(const RankGroupOptions& options) : options_(options) {
  placement_.parallel = options.parallel;
}

Result<std::unique_ptr<RankGroup>> RankGroup::start(const RankGroupOptions& options) {
  std::unique_ptr<RankGroup> group(new RankGroup(options));
  if (options.parallel.group_size() > 1) log::set_who(fmt::format("rank {}", options.parallel.group_rank()));
  // A model that cannot be read is complained about where it is opened.
  if (const auto config = load_model_config(options.engine.model)) group->experts_ = placement_shape(*config, 1);
  if (options.parallel.rank_board_fd >= 0) {
    ASSIGN_OR_RETURN(group->board_, RankBoard::attach(options.parallel.rank_board_fd));
    if (options.parallel.group_rank() >= group->board_->num_slots())
      return make_parameter_error("--rank-board", "--rank-board has {} slots; there is none for rank {}",
                                  group->board_->num_slots(), options.parallel.group_rank());
  } else if (!options.parallel.has_agent()) {
    RETURN_IF_ERROR(group->start_children());
  }
  if (!group->board_) group->own_choices_.resize(group->num_choices());
  group->placement_.choices =
      group->board_ ? group->board_->counts(options.parallel.group_rank()) : std::span(group->own_choices_);
  return group;
}

Status RankGroup::form() {
  set_phase(RankPhase::kForming);
  RETURN_IF_ERROR(placement_.parallel.has_agent() ? take_seat() : form_world());
  set_phase(RankPhase::kLoading);
  on_stop_.emplace(options_.stop, [this] {
    // Signals often come to all processes at once. One whose leader serves already, or is about to, leaves the end to
    // it.
    if (options_.patience && is_ready_within(kReadyGrace)) return;
    const std::string why = fmt::format("{} came before it served", signal_name(received_stop_signal()));
    log::warn("this rank ends: {}", why);
    end_early(why);
  });
  return {};
}

void RankGroup::end_early(const std::string& why) {
  if (world_) world_->membership().give_up(why);
  if (!seat_) return;
  seat_->epochs().cancel();
  seat_->mesh().fail({ErrorCode::kCancelled, why, {}});
}

Result<std::unique_ptr<RankGroup>> RankGroup::join(const RankGroupOptions& options) {
  ASSIGN_OR_RETURN(auto group, start(options));
  RETURN_IF_ERROR(group->form());
  return group;
}

RankGroup::~RankGroup() {
  // The ranks of a broken group end within moments; one that is stopped never does.
  if (processes_ && world_ && world_->membership().first_lost()) processes_->set_grace(std::chrono::milliseconds(500));
}

Status RankGroup::start_children() {
  const RankGroupOptions& options = options_;
  ParallelOptions& parallel = placement_.parallel;
  const int first_dp = options.starts == Starts::kGroup && parallel.spans_replicas() ? 0 : parallel.data_parallel_rank;
  const int last_dp =
      options.starts == Starts::kGroup && parallel.spans_replicas() ? parallel.data_parallel_size - 1 : first_dp;
  const bool own_group = options.starts == Starts::kGroup || !parallel.spans_replicas();
  if (own_group && parallel.group_size() > 1) {
    parallel.data_parallel_address = "127.0.0.1";
    ASSIGN_OR_RETURN(KeptPort port, KeptPort::keep());
    parallel.data_parallel_rpc_port = port.port();
    meeting_port_.emplace(std::move(port));
  }
  if (parallel.group_size() > 1) {
    ASSIGN_OR_RETURN(board_, RankBoard::create(parallel.group_size(), num_choices()));
  }
  std::vector<std::vector<std::string>> command_lines;
  for (int dp_rank = first_dp; dp_rank <= last_dp; dp_rank++) {
    for (int tp_rank = 0; tp_rank < parallel.tensor_parallel_size; tp_rank++) {
      if (dp_rank == parallel.data_parallel_rank && tp_rank == parallel.tensor_parallel_rank) continue;
      std::vector<std::string> command_line = options.command_line;
      for (std::string argument :
           {fmt::format("--tensor-parallel-rank={}", tp_rank), fmt::format("--data-parallel-rank={}", dp_rank),
            fmt::format("--data-parallel-address={}", parallel.data_parallel_address),
            fmt::format("--data-parallel-rpc-port={}", parallel.data_parallel_rpc_port),
            fmt::format("--rank-board={}", board_->fd())})
        command_line.push_back(std::move(argument));
      command_lines.push_back(std::move(command_line));
      child_ranks_.push_back((parallel.spans_replicas() ? dp_rank * parallel.tensor_parallel_size : 0) + tp_rank);
    }
  }
  if (command_lines.empty()) return {};
  // What no rank can do (a layout that does not divide, a folder without a model) is said once, before there are
  // others.
  ASSIGN_OR_RETURN(const ModelFiles files, ModelFiles::open(options.engine.model));
  RETURN_IF_ERROR(plan_rank_memory(options.engine, parallel, files.config(), files, RankResources{}));
  ASSIGN_OR_RETURN(processes_, RankProcesses::start(command_lines));
  return {};
}

Result<WorldOptions> RankGroup::world_options(IsaLevel isa) const {
  const RankGroupOptions& options = options_;
  const ParallelOptions& parallel = placement_.parallel;
  WorldOptions world{.join = {.rank = parallel.group_rank(), .size = parallel.group_size()}};
  if (parallel.group_size() > 1 || parallel.has_agent()) {
    ASSIGN_OR_RETURN(const ModelFiles files, ModelFiles::open(options.engine.model));
    ASSIGN_OR_RETURN(world.join.model_fingerprint, files.fingerprint());
  }
  world.join.host = parallel.data_parallel_address;
  world.join.port = parallel.data_parallel_rpc_port;
  world.join.program_version = kVersion;
  world.join.settings = group_settings(options.engine, parallel);
  world.join.label = label_of(parallel);
  world.join.isa_level = static_cast<int>(isa);
  world.join.isa_name = isa_name(isa);
  world.join.join_timeout = std::chrono::seconds(parallel.start_timeout_seconds);
  world.join.failure_timeout = std::chrono::milliseconds(parallel.failure_timeout_ms);
  world.transports = parallel.transports == "shm"   ? TransportChoice::kShm
                     : parallel.transports == "ucx" ? TransportChoice::kUcx
                                                    : TransportChoice::kAuto;
  world.network_interface = parallel.network_interface;
  world.ucx_environment = parallel.ucx_environment;
  return world;
}

// The rank loads alone; whom it meets, and when, its agent says.
Status RankGroup::take_seat() {
  const ParallelOptions& parallel = placement_.parallel;
  ASSIGN_OR_RETURN(placement_.isa, choose_isa(options_.engine.isa));
  ASSIGN_OR_RETURN(WorldOptions world, world_options(placement_.isa));
  portable::BitHash identity;
  const auto add = [&](std::string_view text) {
    for (const char letter : text) identity.add(static_cast<uint64_t>(letter));
  };
  add(kVersion);
  add(world.join.model_fingerprint);
  for (const auto& [flag, value] : world.join.settings) add(flag + "=" + value + " ");
  placement_.identity = static_cast<int64_t>(identity.value() >> 11);
  ASSIGN_OR_RETURN(const NodeId node, this_node());
  const Member own{.rank = parallel.group_rank(),
                   .label = world.join.label,
                   .host = this_host(),
                   .pid = getpid(),
                   .node = node,
                   .cores = allowed_cores()};
  ASSIGN_OR_RETURN(seat_, AgentSeat::take(parallel, std::move(world), own));
  placement_.mesh = &seat_->mesh();
  placement_.loads_alone = true;
  placement_.num_local_ranks = parallel.local_ranks();
  const int place = parallel.local_rank >= 0 ? parallel.local_rank : parallel.tensor_parallel_rank;
  placement_.threads = share_threads(numa_domains(own.cores), place, parallel.local_ranks(), options_.engine.threads);
  return {};
}

Status RankGroup::form_world() {
  const RankGroupOptions& options = options_;
  const ParallelOptions& parallel = placement_.parallel;
  ASSIGN_OR_RETURN(const IsaLevel isa, choose_isa(options.engine.isa));
  ASSIGN_OR_RETURN(WorldOptions world, world_options(isa));
  failure_timeout_ = world.join.failure_timeout;
  const bool private_group = options.starts == Starts::kGroup || !parallel.spans_replicas();
  if (parallel.group_size() > 1) {
    ASSIGN_OR_RETURN(world.join.secret, read_secret(parallel, board_.get(), private_group));
  }
  // A child that ends while all are being waited for ends the waiting. What is watched by borrows what stands here:
  // from here on there is no way out but behind stop_watching().
  std::stop_source stop;
  std::string ended;
  ErrorCode ended_code = ErrorCode::kUnavailable;
  int ended_rank = -1;
  if (processes_) {
    processes_->watch([&](int child, const EndReport& end) {
      ended_rank = child_ranks_[child];
      ended = fmt::format("rank {} (pid {}) {}", ended_rank, processes_->pid(child), end.text());
      ended_code = end.error ? end.error->code : ErrorCode::kUnavailable;
      stop.request_stop();
    });
  }
  const std::stop_callback on_stop(options.stop, [&] { stop.request_stop(); });
  world.join.stop = stop.get_token();
  Result<std::unique_ptr<World>> formed = World::form(std::move(world));
  if (processes_) processes_->stop_watching();
  if (!formed) {
    const Error error = ended.empty() ? formed.error() : Error{ended_code, std::move(ended), {}};
    set_failure(error, ended_rank);
    return std::unexpected(error);
  }
  world_ = std::move(*formed);
  epoch_ = world_->membership().epoch();

  placement_.mesh = &world_->mesh();
  const int level = world_->membership().isa_level();  // another rank's word
  if (level < static_cast<int>(IsaLevel::kReference) || level > static_cast<int>(isa))
    return make_error(ErrorCode::kCorrupt, "the group has agreed on an unknown instruction level, {}", level);
  placement_.isa = static_cast<IsaLevel>(level);
  take_share_of_node(members(), parallel.group_rank(), options.engine.threads, placement_);
  placement_.on_activity = [this, last = uint64_t{0}](std::optional<uint64_t> step) mutable {
    last = step.value_or(last);
    world_->membership().set_activity(step ? Phase::kStep : Phase::kIdle, last);
  };
  return {};
}

void RankGroup::set_loaded(size_t num_done, size_t num_total) {
  const int percent = static_cast<int>(num_done * 100 / std::max<size_t>(num_total, 1));
  if (world_) world_->membership().set_percent(percent);
  const std::lock_guard lock(own_mutex_);
  if (own_.percent == static_cast<uint64_t>(percent)) return;
  own_.percent = static_cast<uint64_t>(percent);
  if (board_) board_->write(placement_.parallel.group_rank(), own_);
}

// How a rank that this process started has ended, and what it said of it.
std::string RankGroup::death_of(const LostRank& lost) {
  const auto child = std::ranges::find(child_ranks_, lost.rank);
  if (child == child_ranks_.end() || !processes_) return {};
  const auto end = processes_->how_it_ended(static_cast<int>(child - child_ranks_.begin()));
  return end ? fmt::format(" (it {})", end->text()) : std::string();
}

Error RankGroup::give_up(const Error& error) {
  if (!world_) {
    set_failure(error, -1);
    return error;
  }
  Membership& membership = world_->membership();
  // A transport may see a broken connection before the membership knows why.
  const auto deadline = std::chrono::steady_clock::now() + 2 * failure_timeout_;
  while (error.code == ErrorCode::kUnavailable && !membership.first_lost() &&
         std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  if (const std::optional<LostRank> lost = membership.first_lost()) {
    const Error told{
        ErrorCode::kUnavailable,
        fmt::format("this rank ends: its group has lost a rank, {}: {}{}", lost->name, lost->cause, death_of(*lost)),
        {}};
    set_failure(told, lost->rank);
    return told;
  }
  set_failure(error, placement_.parallel.group_rank());
  membership.give_up(error.message);
  return error;
}

Status RankGroup::meet(RankEngine& engine) {
  if (seat_) {
    seat_->epochs().attach(seat_->mesh(), &engine.lockstep());
    set_phase(RankPhase::kForming);
  }
  const Status ready =
      seat_ ? enter_first_epoch(engine, seat_->epochs(), [this](RankEngine& of) { publish(of.report()); })
            : world_->membership().wait_until_all_ready();
  if (ready) set_phase(RankPhase::kReady);
  on_stop_.reset();
  return ready;
}

bool RankGroup::is_ready_within(std::chrono::milliseconds patience) {
  std::unique_lock lock(own_mutex_);
  return phase_changed_.wait_for(lock, patience, [this] { return own_.phase == RankPhase::kReady; });
}

void RankGroup::set_phase(RankPhase phase) {
  const std::lock_guard lock(own_mutex_);
  own_.phase = phase;
  phase_changed_.notify_all();
  if (phase == RankPhase::kReady) own_.percent = 100;
  if (board_) board_->write(placement_.parallel.group_rank(), own_);
}

void RankGroup::set_failure(const Error& error, int rank) {
  const std::lock_guard lock(own_mutex_);
  if (failure_) return;
  failure_ = {.code = error.code, .rank = rank};
  own_.set_failed(error.code);
  if (board_) board_->write(placement_.parallel.group_rank(), own_);
}

void RankGroup::publish(const RankReport& report) {
  const std::lock_guard lock(own_mutex_);
  own_.report = report;
  own_.has_report = 1;
  if (board_) board_->write(placement_.parallel.group_rank(), own_);
}

std::vector<RankReport> RankGroup::reports(const RankReport& own) const {
  std::vector<RankReport> reports;
  for (int slot = 0; board_ && slot < board_->num_slots(); slot++) {
    const auto state = slot == placement_.parallel.group_rank() ? std::nullopt : board_->read(slot);
    if (slot == placement_.parallel.group_rank()) reports.push_back(own);
    if (state && state->has_report != 0) reports.push_back(state->report);
  }
  if (reports.empty()) reports.push_back(own);
  return reports;
}

std::string RankGroup::expert_load() const {
  std::vector<uint64_t> sum(num_choices());
  const auto add = [&](std::span<uint64_t> counts) {
    for (size_t idx = 0; idx < std::min(sum.size(), counts.size()); idx++)
      sum[idx] += std::atomic_ref<uint64_t>(counts[idx]).load(std::memory_order_relaxed);
  };
  for (int slot = 0; board_ && slot < board_->num_slots(); slot++) add(board_->counts(slot));
  if (!board_) add(placement_.choices);
  return expert_load_json(sum, experts_);
}

RankPhase RankGroup::phase() const {
  const std::lock_guard lock(own_mutex_);
  return own_.phase;
}

std::optional<StateFailure> RankGroup::failure() const {
  const std::lock_guard lock(own_mutex_);
  return failure_;
}

std::vector<StateOfRank> RankGroup::states() const {
  const ParallelOptions& parallel = placement_.parallel;
  std::vector<StateOfRank> states;
  for (int tp_rank = 0; tp_rank < parallel.tensor_parallel_size; tp_rank++) {
    const int rank = parallel.group_rank() - parallel.tensor_parallel_rank + tp_rank;
    const bool is_own = tp_rank == parallel.tensor_parallel_rank;
    RankState state;
    if (is_own) {
      const std::lock_guard lock(own_mutex_);
      state = own_;
    } else if (board_) {
      state = board_->read(rank).value_or(RankState{});
    }
    const auto child = std::ranges::find(child_ranks_, rank);
    StateOfRank& of =
        states.emplace_back(StateOfRank{.rank = rank,
                                        .phase = std::min(state.phase, RankPhase::kFailed),
                                        .percent = static_cast<int>(std::min<uint64_t>(state.percent, 100)),
                                        .host = this_host(),
                                        .pid = is_own ? getpid()
                                               : child != child_ranks_.end() && processes_
                                                   ? processes_->pid(static_cast<int>(child - child_ranks_.begin()))
                                                   : static_cast<pid_t>(state.report.pid)});
    if (of.phase == RankPhase::kFailed) of.failure = {.code = state.failure()};
    if (state.has_report != 0) {
      of.report = state.report;
      of.resident_bytes = resident_bytes(of.pid);
    }
  }
  return states;
}

namespace {

Status take_part(const EngineOptions& options, RankGroup& group, std::optional<std::chrono::milliseconds> patience) {
  ASSIGN_OR_RETURN(const auto engine,
                   RankEngine::create(options, group.placement(), [&](size_t num_done, size_t num_total) {
                     group.set_loaded(num_done, num_total);
                   }));
  group.publish(engine->report());
  RETURN_IF_ERROR(group.meet(*engine));
  std::optional<StopSignals> signals;
  if (patience) signals.emplace(patience);
  const RoundObserver publish = [&](RankEngine& rank) { group.publish(rank.report()); };
  RETURN_IF_ERROR(group.parallel().is_leader() ? take_part_idle(*engine, publish)
                                               : follow_leader(*engine, publish, group.epochs()));
  group.publish(engine->report());
  return {};
}

}  // namespace

Status run_started_rank(const RankGroupOptions& options) {
  ASSIGN_OR_RETURN(const auto group, RankGroup::start(options));
  if (const Status formed = group->form(); !formed) return std::unexpected(group->give_up(formed.error()));
  if (const Status status = take_part(options.engine, *group, options.patience); !status)
    return std::unexpected(group->give_up(status.error()));
  group->leave();
  return {};
}

}  // namespace cachalot
