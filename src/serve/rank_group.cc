#include "serve/rank_group.h"

#include <fmt/format.h>

#include <algorithm>
#include <stop_token>
#include <thread>

#include "base/file.h"
#include "base/log.h"
#include "base/stop_signals.h"
#include "config/version.h"
#include "device/core_share.h"
#include "engine/memory_plan.h"
#include "engine/participate.h"
#include "serve/group_settings.h"
#include "weights/model_files.h"

namespace cachalot {
namespace {

std::string label_of(const ParallelOptions& parallel) {
  return fmt::format("replica {}, tp {}", parallel.data_parallel_rank, parallel.tensor_parallel_rank);
}

Result<std::string> read_secret(const ParallelOptions& parallel, const RankBoard* board, bool private_group) {
  if (!parallel.group_secret_file.empty()) return read_file(parallel.group_secret_file);
  return private_group && board ? board->secret() : std::string();
}

// Ranks of one node share its memory, and those on the same cores share these in the order of their numbers.
void take_share_of_node(const std::vector<Member>& members, int rank, int num_threads, Placement& placement) {
  const Member& own = members[static_cast<size_t>(rank)];
  placement.num_local_ranks = static_cast<int>(std::ranges::count(members, own.node, &Member::node));
  const CoreSharers sharers = core_sharers(members, rank);
  placement.threads = share_threads(numa_domains(own.cores), sharers.place, sharers.count, num_threads);
}

}  // namespace

Result<std::unique_ptr<RankGroup>> RankGroup::join(const RankGroupOptions& options) {
  std::unique_ptr<RankGroup> group(new RankGroup());
  group->placement_.parallel = options.parallel;
  if (options.load_lines) group->load_lines_.emplace();
  if (options.parallel.group_size() > 1) log::set_who(fmt::format("rank {}", options.parallel.group_rank()));
  if (options.parallel.rank_board_fd >= 0) {
    ASSIGN_OR_RETURN(group->board_, RankBoard::attach(options.parallel.rank_board_fd));
  } else {
    RETURN_IF_ERROR(group->start_children(options));
  }
  RETURN_IF_ERROR(group->form_world(options));
  group->on_stop_.emplace(options.stop, [raw = group.get()] {
    const std::string why = fmt::format("{} came before it served", signal_name(received_stop_signal()));
    log::warn("this rank ends: {}", why);
    raw->world_->membership().give_up(why);
  });
  return group;
}

RankGroup::~RankGroup() {
  // The ranks of a broken group end within moments; one that is stopped never does.
  if (processes_ && world_ && world_->membership().first_lost()) processes_->set_grace(std::chrono::milliseconds(500));
}

Status RankGroup::start_children(const RankGroupOptions& options) {
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
    ASSIGN_OR_RETURN(board_, RankBoard::create(parallel.group_size()));
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

Status RankGroup::form_world(const RankGroupOptions& options) {
  const ParallelOptions& parallel = placement_.parallel;
  ASSIGN_OR_RETURN(const IsaLevel isa, choose_isa(options.engine.isa));
  // A child that ends while all are being waited for ends the waiting.
  std::stop_source stop;
  std::string ended;
  if (processes_) {
    processes_->watch([&](int child, const std::string& how) {
      ended = fmt::format("a rank that this process started (pid {}) {}", processes_->pid(child), how);
      stop.request_stop();
    });
  }
  const std::stop_callback on_stop(options.stop, [&] { stop.request_stop(); });
  WorldOptions world{.join = {.rank = parallel.group_rank(), .size = parallel.group_size()}};
  if (parallel.group_size() > 1) {
    ASSIGN_OR_RETURN(const ModelFiles files, ModelFiles::open(options.engine.model));
    ASSIGN_OR_RETURN(world.join.model_fingerprint, files.fingerprint());
    const bool private_group = options.starts == Starts::kGroup || !parallel.spans_replicas();
    ASSIGN_OR_RETURN(world.join.secret, read_secret(parallel, board_.get(), private_group));
  }
  world.join.host = parallel.data_parallel_address;
  world.join.port = parallel.data_parallel_rpc_port;
  world.join.program_version = kVersion;
  world.join.settings = group_settings(options.engine, parallel);
  world.join.label = label_of(parallel);
  world.join.isa_level = static_cast<int>(isa);
  world.join.isa_name = isa_name(isa);
  world.join.join_timeout = std::chrono::seconds(parallel.start_timeout_seconds);
  world.join.failure_timeout = failure_timeout_ = std::chrono::milliseconds(parallel.failure_timeout_ms);
  world.join.stop = stop.get_token();
  world.transports = parallel.transports == "shm"   ? TransportChoice::kShm
                     : parallel.transports == "ucx" ? TransportChoice::kUcx
                                                    : TransportChoice::kAuto;
  world.network_interface = parallel.network_interface;
  world.ucx_environment = parallel.ucx_environment;
  Result<std::unique_ptr<World>> formed = World::form(std::move(world));
  if (processes_) processes_->stop_watching();
  if (!formed)
    return ended.empty() ? Status(std::unexpected(formed.error()))
                         : make_error(ErrorCode::kUnavailable, "{}; its own message says why", ended);
  world_ = std::move(*formed);

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
  world_->membership().set_percent(percent);
  if (load_lines_ && load_lines_->due(percent))
    log::info("{}", load_line({.rank = placement_.parallel.group_rank(), .percent = percent}));
}

Error RankGroup::give_up(const Error& error) {
  Membership& membership = world_->membership();
  // A transport may see a broken connection before the membership knows why.
  const auto deadline = std::chrono::steady_clock::now() + 2 * failure_timeout_;
  while (error.code == ErrorCode::kUnavailable && !membership.first_lost() &&
         std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  if (membership.first_lost()) return {ErrorCode::kUnavailable, "this rank ends: its group has lost a rank", {}};
  membership.give_up(error.message);
  return error;
}

Status RankGroup::wait_until_all_ready() {
  const Status ready = world_->membership().wait_until_all_ready();
  on_stop_.reset();
  return ready;
}

void RankGroup::publish(const RankReport& report) {
  if (board_) board_->write(placement_.parallel.group_rank(), report);
}

std::vector<RankReport> RankGroup::reports() const {
  std::vector<RankReport> reports;
  for (int slot = 0; board_ && slot < board_->num_slots(); slot++) {
    if (const auto report = board_->read(slot)) reports.push_back(*report);
  }
  return reports;
}

namespace {

Status take_part(const EngineOptions& options, RankGroup& group, std::optional<std::chrono::milliseconds> patience) {
  ASSIGN_OR_RETURN(const auto engine,
                   RankEngine::create(options, group.placement(), [&](size_t num_done, size_t num_total) {
                     group.set_loaded(num_done, num_total);
                   }));
  group.publish(engine->report());
  RETURN_IF_ERROR(group.wait_until_all_ready());
  std::optional<StopSignals> signals;
  if (patience) signals.emplace(patience);
  const RoundObserver publish = [&](RankEngine& rank) { group.publish(rank.report()); };
  RETURN_IF_ERROR(group.parallel().is_leader() ? take_part_idle(*engine, publish) : follow_leader(*engine, publish));
  group.publish(engine->report());
  return {};
}

}  // namespace

Status run_started_rank(const RankGroupOptions& options) {
  ASSIGN_OR_RETURN(const auto group, RankGroup::join(options));
  if (const Status status = take_part(options.engine, *group, options.patience); !status)
    return std::unexpected(group->give_up(status.error()));
  group->leave();
  return {};
}

}  // namespace cachalot
