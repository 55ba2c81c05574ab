#include "cluster/supervisor.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <ctime>
#include <filesystem>
#include <iterator>

#include "base/file.h"
#include "base/log.h"
#include "http/tls.h"

namespace cachalot {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kConnectTimeout{5}, kIdleTimeout{5};  // of questions for the state
constexpr milliseconds kTurn{50};
// What a server takes to end beyond the time that it has to drain.
constexpr seconds kEndMargin{10};
// What one takes that has not served, or was killed.
constexpr milliseconds kUnservedEnd{700};

}  // namespace

Result<std::unique_ptr<Supervisor>> Supervisor::create(SupervisorOptions options, Observer on_change) {
  std::unique_ptr<Supervisor> supervisor(new Supervisor(std::move(options), std::move(on_change)));
  RETURN_IF_ERROR(supervisor->add_processes());
  supervisor->add_groups();
  supervisor->publish();
  return supervisor;
}

Supervisor::Supervisor(SupervisorOptions options, Observer on_change)
    : options_(std::move(options)),
      on_change_(std::move(on_change)),
      client_(threads_, {.connect_timeout = kConnectTimeout,
                         .idle_timeout = kIdleTimeout,
                         .tls = http::TlsContext::of_trusting_client()}) {
  const ClusterFile& cluster = options_.cluster;
  agent_states_ = std::filesystem::path(options_.state_path).parent_path() / "agents" /
                  fmt::format("{}-{}", cluster.name, getpid());
  state_ = {.name = cluster.name,
            .file = cluster.path.empty() ? "" : std::filesystem::absolute(cluster.path).string(),
            .model = cluster.served_model_names.empty() ? cluster.model : cluster.served_model_names[0],
            .started = time(nullptr),
            .data_parallel_size = cluster.data_parallel_size,
            .tensor_parallel_size = cluster.tensor_parallel_size,
            .enable_expert_parallel = cluster.enable_expert_parallel,
            .drain_seconds = cluster.drain_seconds};
}

Status Supervisor::add_process(const ProcessPlan& plan) {
  ASSIGN_OR_RETURN(auto process, WatchedProcess::create(plan, client_));
  processes_.push_back(std::move(process));
  return {};
}

Status Supervisor::add_processes() {
  const ClusterFile& cluster = options_.cluster;
  const std::filesystem::path logs = std::filesystem::path(cluster.folder) / cluster.logs;
  std::error_code failed;
  std::filesystem::create_directories(logs, failed);
  if (failed) return make_error(ErrorCode::kIo, "logs: {} cannot be made: {}", logs.string(), failed.message());
  // Of this run: a group that began before, maybe with other servers, is not gone on with.
  const std::string state_name =
      cluster.launcher == Launcher::kLocal ? agent_states_.string() : agent_states_.filename().string();
  for (const PlacedReplica& replica : options_.replicas) {
    const ClusterNode& node = cluster.nodes[static_cast<size_t>(replica.node)];
    Words words = serve_arguments(cluster, replica);
    std::ranges::copy(agent_arguments(cluster, options_.replicas, replica, state_name), std::back_inserter(words));
    RETURN_IF_ERROR(add_process({.label = replica.label(),
                                 .node = node.address,
                                 .url = server_url(cluster, replica),
                                 .log = logs / fmt::format("replica{}.log", replica.dp_rank),
                                 .words = launch_words(cluster, node, options_.program, words, true),
                                 .folder = cluster.launcher == Launcher::kLocal ? node.folder : cluster.folder,
                                 .num_ranks = cluster.tensor_parallel_size}));
  }
  if (!cluster.router.enabled) return {};
  Words router_words = router_arguments(cluster, options_.replicas);
  std::ranges::copy(witness_arguments(cluster, options_.replicas, agent_states_.string()),
                    std::back_inserter(router_words));
  return add_process({.label = "router",
                      .node = "this machine",
                      .url = router_url(cluster),
                      .log = logs / "router.log",
                      .words = leased_here(options_.program, router_words, true),
                      .folder = cluster.folder});
}

void Supervisor::add_groups() {
  std::vector<std::vector<WatchedProcess*>> groups;
  for (const auto& process : processes_) {
    const bool is_router = process->plan().num_ranks == 0;
    const bool is_apart = !options_.cluster.spans_replicas() || options_.cluster.heals();
    if (groups.empty() || is_apart || is_router) groups.emplace_back();
    groups.back().push_back(process.get());
  }
  for (std::vector<WatchedProcess*>& members : groups) {
    GroupMachine machine(members.size(), options_.cluster.restart, Clock::now());
    groups_.push_back({.members = std::move(members), .machine = std::move(machine)});
  }
}

Status Supervisor::run() {
  Status status;
  while (num_signals_ == 0 && status) {
    for (Group& group : groups_) {
      if (status) status = act(group);
    }
    publish();
    if (status) status = check_groups();
    if (status) wait_and_update();
  }
  drain();
  std::error_code ignored;
  std::filesystem::remove_all(agent_states_, ignored);
  return status;
}

void Supervisor::wait_and_update() {
  std::vector<pollfd> polled{{.fd = signals_.fd(), .events = POLLIN, .revents = 0}};
  for (const auto& process : processes_) polled.push_back({.fd = process->pidfd(), .events = POLLIN, .revents = 0});
  poll(polled.data(), polled.size(), static_cast<int>(kTurn.count()));
  while (signals_.wait_for(milliseconds(0)) != 0) num_signals_++;
  for (const auto& process : processes_) process->update();
}

Status Supervisor::act(Group& group) {
  const Clock::time_point now = Clock::now();
  const GroupState before = group.machine.state();
  for (size_t idx = 0; idx < group.members.size(); idx++) {
    WatchedProcess& process = *group.members[idx];
    if (const auto how = process.take_end()) group.machine.member_ended(idx, *how, now);
    // One that heals is silent while its leader's rank is started again, which its agent sees to.
    const bool is_looked_after = options_.cluster.heals() && process.plan().num_ranks > 0;
    if (process.is_silent() && !is_looked_after) group.machine.member_lost(idx, "answers no more", now);
    if (process.is_up()) group.machine.member_ready(idx);
  }
  const GroupMachine::Action action = group.machine.next(now);
  say_what_changed(group);
  if (before == GroupState::kStarting && group.machine.state() == GroupState::kReady) ask_router_anew();
  for (WatchedProcess* process : group.members) {
    if (action == GroupMachine::Action::kKill) process->kill();
    if (action == GroupMachine::Action::kStart) RETURN_IF_ERROR(process->start());
  }
  return {};
}

// It is ready when it has found the servers, too, not because it once was.
void Supervisor::ask_router_anew() {
  for (const auto& process : processes_) {
    if (process->plan().num_ranks == 0) process->ask_anew();
  }
}

// A line for each turn that a group takes once it has served; what happens before, the start tells of.
void Supervisor::say_what_changed(Group& group) {
  const GroupMachine& machine = group.machine;
  if (!machine.has_served()) return;
  const WatchedProcess& lost = *group.members[machine.lost_member()];
  const RestartPolicy& policy = options_.cluster.restart;
  const std::string with =
      group.members.size() > 1 ? fmt::format(", with all {} servers of its group,", group.members.size()) : "";
  // Where all ended at once, it is lost only for a moment that no state shows.
  if (std::exchange(group.reported_losses, machine.num_losses()) != machine.num_losses())
    log::warn("{}{} is lost and will be started anew: it {}", lost.plan().label, with, machine.loss());
  if (std::exchange(group.reported, machine.state()) == machine.state()) return;
  if (machine.state() == GroupState::kBackingOff)
    log::info("{}{} starts anew in {:.1f} s: restart {}, at most {} within {} s", lost.plan().label, with,
              std::chrono::duration<double>(machine.due() - Clock::now()).count(), machine.num_restarts() + 1,
              policy.most_restarts, policy.window / seconds(1));
  if (machine.state() == GroupState::kReady && machine.num_restarts() > 0)
    log::info("{}{} is ready again", lost.plan().label, with);
  if (machine.state() == GroupState::kGaveUp)
    log::error("{}{} is given up after {} restarts within {} s; its log is {}", lost.plan().label, with,
               policy.most_restarts, policy.window / seconds(1), lost.plan().log);
}

// What no start anew can mend.
Status Supervisor::check_groups() const {
  bool any_left = false;
  for (const Group& group : groups_) {
    const GroupMachine& machine = group.machine;
    const WatchedProcess& lost = *group.members[machine.lost_member()];
    const bool is_router = lost.plan().num_ranks == 0;
    const bool given_up = machine.state() == GroupState::kGaveUp;
    any_left |= !given_up && !is_router;
    if (!given_up) continue;
    if (!machine.has_served())
      return make_error(ErrorCode::kUnavailable, "{} on {} {} (its log is {})", lost.plan().label, lost.plan().node,
                        machine.loss(), lost.plan().log);
    if (is_router) return make_error(ErrorCode::kUnavailable, "the router was lost too often; everything is stopped");
  }
  if (!any_left) return make_error(ErrorCode::kUnavailable, "every server was lost too often; everything is stopped");
  return {};
}

void Supervisor::drain() {
  draining_ = true;
  signals_when_draining_ = num_signals_;
  publish();
  std::vector<WatchedProcess*> routers, servers;
  for (const auto& process : processes_) (process->plan().num_ranks == 0 ? routers : servers).push_back(process.get());
  // What has never served has nothing to finish.
  const bool has_served = std::ranges::any_of(servers, [&](WatchedProcess* server) { return server->was_up(); });
  const milliseconds patience = has_served ? seconds(options_.cluster.drain_seconds) + kEndMargin : kUnservedEnd;
  // The router first: what it has begun, its servers finish.
  for (WatchedProcess* router : routers) router->terminate();
  bool in_time = !has_served || wait_until_ended(routers, patience);
  for (WatchedProcess* server : servers) server->terminate();
  in_time = wait_until_ended(servers, patience) && in_time;
  in_time = wait_until_ended(routers, milliseconds(0)) && in_time;
  if (!in_time && has_served) log::warn("what has not ended in time is killed");
  signals_when_draining_ = INT_MAX;  // nothing is left that a further one could hasten
  std::vector<WatchedProcess*> all = std::move(servers);
  all.insert(all.end(), routers.begin(), routers.end());
  while (!wait_until_ended(all, milliseconds(0))) {
    for (WatchedProcess* process : all) process->kill();
    wait_until_ended(all, kUnservedEnd);
  }
}

bool Supervisor::wait_until_ended(const std::vector<WatchedProcess*>& processes, milliseconds patience) {
  for (const Clock::time_point deadline = Clock::now() + patience;;) {
    if (std::ranges::none_of(processes, &WatchedProcess::runs)) return true;
    if (Clock::now() >= deadline || num_signals_ > signals_when_draining_) return false;
    wait_and_update();
    publish();
  }
}

MemberState Supervisor::describe(const Group& group, const WatchedProcess& process) const {
  const GroupMachine& machine = group.machine;
  const bool is_router = process.plan().num_ranks == 0;
  const bool is_ready = machine.state() == GroupState::kReady && (!is_router || process.takes_requests());
  return {.label = process.plan().label,
          .node = process.plan().node,
          .url = process.plan().url,
          .log = process.plan().log,
          .state = draining_ ? "draining" : to_text(machine.state()),
          .up = process.is_up(),
          .ready = is_ready && !draining_,
          .pid = process.pid(),
          .restarts = machine.num_restarts(),
          .loss = machine.loss(),
          .percentages = process.percentages()};
}

void Supervisor::publish() {
  state_.replicas.clear();
  state_.router.clear();
  for (const Group& group : groups_) {
    for (const WatchedProcess* process : group.members) {
      (process->plan().num_ranks == 0 ? state_.router : state_.replicas).push_back(describe(group, *process));
    }
  }
  std::string text = to_json(state_);
  if (text == published_) return;
  if (const Status written = write_file(options_.state_path, text); !written)
    log::warn("the state cannot be written: {}", written.error().message);
  published_ = std::move(text);
  on_change_(state_);
}

}  // namespace cachalot
