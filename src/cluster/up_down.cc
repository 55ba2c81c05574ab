#include "cluster/up_down.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/log.h"
#include "base/process.h"
#include "base/progress.h"
#include "base/stop_signals.h"
#include "cluster/commands.h"
#include "cluster/run_folder.h"
#include "cluster/status.h"
#include "cluster/supervisor.h"
#include "config/cluster_layout.h"

namespace cachalot {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;

constexpr seconds kProgressPause{2};  // where nobody watches a terminal

Result<std::vector<std::string>> slurm_nodes() {
  ASSIGN_OR_RETURN(const ProgramOutput names,
                   run_program({.words = {"scontrol", "show", "hostnames"}}, std::chrono::seconds(30)));
  std::istringstream lines(names.output);
  std::vector<std::string> nodes;
  for (std::string name; std::getline(lines, name);) {
    if (!name.empty()) nodes.push_back(name);
  }
  if (nodes.empty())
    return make_error(ErrorCode::kUnavailable,
                      "`launcher: slurm` without `nodes` takes the nodes of its allocation, and this is none: start it "
                      "within salloc or sbatch");
  return nodes;
}

}  // namespace

Status complete_nodes(ClusterFile& cluster) {
  if (cluster.nodes.empty()) {
    ASSIGN_OR_RETURN(const std::vector<std::string> names, slurm_nodes());
    for (const std::string& name : names) {
      cluster.nodes.push_back(cluster.any_node);
      cluster.nodes.back().address = name;
    }
  }
  return resolve_addresses(cluster);
}

namespace {

// `remedy`: what sets another port.
Status check_port(const std::string& host, uint16_t port, const char* key, const char* remedy) {
  const std::optional<ListenFault> fault = listen_fault(host, port);
  if (!fault) return {};
  if (fault->is_of_address) return make_parameter_error(key, "{} cannot be listened on: {}", host, fault->why);
  return make_parameter_error(key, "{} cannot be listened on: {}; {} sets another port", address_text(host, port),
                              fault->why, remedy);
}

// One that is none of those taken already.
Result<uint16_t> another_free_port(std::set<uint16_t>& taken, std::vector<KeptPort>& kept) {
  for (;;) {
    ASSIGN_OR_RETURN(KeptPort port, KeptPort::keep());
    kept.push_back(std::move(port));
    if (taken.insert(kept.back().port()).second) return kept.back().port();
  }
}

}  // namespace

Result<std::vector<KeptPort>> choose_ports(ClusterFile& cluster, std::vector<PlacedReplica>& replicas) {
  std::vector<KeptPort> kept;
  std::set<uint16_t> taken{cluster.router.port, cluster.data_parallel_rpc_port};
  if (cluster.router.enabled && cluster.router.port == 0) {
    ASSIGN_OR_RETURN(cluster.router.port, another_free_port(taken, kept));
  }
  if (cluster.data_parallel_rpc_port == 0) {
    ASSIGN_OR_RETURN(cluster.data_parallel_rpc_port, another_free_port(taken, kept));
  }
  for (PlacedReplica& replica : replicas) {
    for (uint16_t* const port : {&replica.port, &replica.agent_port}) {
      if (*port != 0) continue;
      ASSIGN_OR_RETURN(*port, another_free_port(taken, kept));
    }
  }
  return kept;
}

std::optional<std::string> router_port_fault(const ClusterFile& cluster, const std::vector<PlacedReplica>& replicas) {
  if (!cluster.router.enabled || cluster.router.port == 0) return std::nullopt;
  const std::string host = router_host(cluster);
  const auto collides = [&](const std::string& address, uint16_t port) {
    return port == cluster.router.port && (host == "0.0.0.0" || host == "::" || host == address) &&
           !listen_fault(address, 0);  // an address of this machine
  };
  const auto fault = [&](const std::string& address, const std::string& who) {
    return fmt::format("{} and the router would both listen at {}", who, address_text(address, cluster.router.port));
  };
  for (const PlacedReplica& replica : replicas) {
    const std::string& address = cluster.nodes[static_cast<size_t>(replica.node)].listen_address();
    if (collides(address, replica.port)) return fault(address, "the server of " + replica.label());
  }
  const std::string& first = cluster.nodes[0].listen_address();
  if (cluster.spans_replicas() && collides(first, cluster.data_parallel_rpc_port))
    return fault(first, "the rendezvous of the ranks (data-parallel-rpc-port)");
  return std::nullopt;
}

Status check_ports(const ClusterFile& cluster, const std::vector<PlacedReplica>& replicas) {
  const auto address_of = [&](int node) { return cluster.nodes[static_cast<size_t>(node)].address; };
  if (const auto fault = router_port_fault(cluster, replicas))
    return make_parameter_error("router.port", "{}: {}; give one of them another port", cluster.where("router.port"),
                                *fault);
  if (cluster.router.enabled)
    RETURN_IF_ERROR(check_port(router_host(cluster), cluster.router.port, "router.port",
                               "`router: {port: ...}` in the file, or `up --port`,"));
  if (cluster.launcher != Launcher::kLocal) return {};
  RETURN_IF_ERROR(check_port(address_of(0), cluster.data_parallel_rpc_port, "data-parallel-rpc-port",
                             "`data-parallel-rpc-port` in the file"));
  for (const PlacedReplica& replica : replicas)
    RETURN_IF_ERROR(check_port(address_of(replica.node), replica.port, "port", "`port` in the file"));
  return {};
}

namespace {

// What a person is told when the cluster is ready.
void greet(const ClusterState& state, const std::string& program, const std::string& flag) {
  log::print(stdout, "\n{}\n", rank_map_text(state, collect_states(state)));
  const std::string url = (state.router.empty() ? state.replicas[0].url : state.router[0].url) + "/v1";
  log::print(stdout,
             "ready: OpenAI's API at {0}, model {1}\n\n"
             "  {3} chat --url {0}\n"
             "  curl {0}/completions -H 'Content-Type: application/json' \\\n"
             "    -d '{{\"model\": \"{1}\", \"prompt\": \"Which one is larger? 3.8 or 3.11\", \"max_tokens\": 1024, "
             "\"temperature\": "
             "0}}'\n\n"
             "`{3} status {2}{4}` shows its ranks and their load; `{3} down {2}{4}` stops it.\n",
             url, state.model, state.name, program, flag);
}

// The side of `--detach` that goes on: until it is ready, its parent's end ends it, too.
class Background {
 public:
  explicit Background(FileDescriptor word) : word_(std::move(word)) {}

  // From now on nobody waits for this process: what it says goes to a log.
  void ready(const std::string& log) {
    prctl(PR_SET_PDEATHSIG, 0);
    const FileDescriptor output(open(log.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644));
    const FileDescriptor nothing(open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (nothing) dup2(nothing.get(), STDIN_FILENO);
    if (output) {
      dup2(output.get(), STDOUT_FILENO);
      dup2(output.get(), STDERR_FILENO);
    }
    const char yes = 'y';
    if (write(word_.get(), &yes, 1) != 1) log::warn("whoever started this did not wait until it was ready");
    word_.reset();
  }

 private:
  FileDescriptor word_;
};

Status run_here(UpOptions& options, Background* background) {
  ClusterFile& cluster = options.cluster;
  RETURN_IF_ERROR(complete_nodes(cluster));
  ASSIGN_OR_RETURN(std::vector<PlacedReplica> replicas, place_replicas(cluster));
  ASSIGN_OR_RETURN(const RunFolder folder, RunFolder::open(options.run_folder, options.run_folder_flag));
  ASSIGN_OR_RETURN(const RunLock lock, RunLock::take(folder, cluster.name));
  ASSIGN_OR_RETURN(const std::vector<KeptPort> kept_ports, choose_ports(cluster, replicas));
  RETURN_IF_ERROR(check_ports(cluster, replicas));
  ASSIGN_OR_RETURN(const std::string program, own_program());
  const std::string logs = (fs::path(cluster.folder) / cluster.logs).string();
  log::print(stdout, "cluster {}: {} x {} ranks of {}{}; logs in {}\n", cluster.name, cluster.data_parallel_size,
             cluster.tensor_parallel_size, cluster.model,
             cluster.enable_expert_parallel ? ", experts over all of them" : "", logs);
  std::optional<ProgressLines> progress(std::in_place, stdout, kProgressPause);
  bool greeted = false;
  ASSIGN_OR_RETURN(const auto supervisor, Supervisor::create({.cluster = cluster,
                                                              .replicas = std::move(replicas),
                                                              .program = program,
                                                              .state_path = folder.state_path(cluster.name)},
                                                             [&](const ClusterState& state) {
                                                               if (greeted) return;
                                                               progress->show(progress_lines(state), state.ready());
                                                               if (!state.ready()) return;
                                                               greeted = true;
                                                               progress.reset();
                                                               greet(state, options.program_name,
                                                                     options.run_folder_flag);
                                                               if (background) background->ready(logs + "/up.log");
                                                             }));
  RETURN_IF_ERROR(supervisor->run());
  if (!greeted)
    return make_error(ErrorCode::kCancelled, "{}: stopped before cluster {} was ready",
                      signal_name(received_stop_signal()), cluster.name);
  return {};
}

// Starts the side that goes on, and waits until it is ready or has ended.
Result<int> run_detached(const UpOptions& options) {
  StopSignals signals{std::nullopt};
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return make_error(ErrorCode::kIo, "pipe: {}", std::strerror(errno));
  const FileDescriptor word(ends[0]);
  FileDescriptor ready(ends[1]);
  std::vector<std::string> words = options.command_line;
  words.push_back(fmt::format("--ready-fd={}", ready.get()));
  ASSIGN_OR_RETURN(Process process, Process::start({.words = std::move(words),
                                                    .program = "/proc/self/exe",
                                                    .kept = {ready.get()},
                                                    .parent_death = SIGTERM,
                                                    .new_session = true}));
  ready.reset();
  for (;;) {
    std::array<pollfd, 2> polled{
        {{.fd = word.get(), .events = POLLIN, .revents = 0}, {.fd = signals.fd(), .events = POLLIN, .revents = 0}}};
    if (poll(polled.data(), polled.size(), -1) < 0) continue;
    if (polled[1].revents) process.signal(signals.wait());
    if (!polled[0].revents) continue;
    char yes = 0;
    if (read(word.get(), &yes, 1) != 1) return process.wait();
    process.release();
    return 0;
  }
}

}  // namespace

Result<int> run_up(UpOptions options) {
  if (options.ready_fd < 0 && options.detach) return run_detached(options);
  std::optional<Background> background;
  if (options.ready_fd >= 0) {
    fcntl(options.ready_fd, F_SETFD, FD_CLOEXEC);  // what this process starts does not have it
    background.emplace(FileDescriptor(options.ready_fd));
  }
  RETURN_IF_ERROR(run_here(options, background ? &*background : nullptr));
  return 0;
}

Result<std::string> own_program() {
  std::error_code failed;
  const fs::path path = fs::read_symlink("/proc/self/exe", failed);
  if (failed) return make_error(ErrorCode::kIo, "/proc/self/exe cannot be read: {}", failed.message());
  return path.string();
}

Result<std::string> find_built_in_model() {
  ASSIGN_OR_RETURN(const std::string program, own_program());
  std::vector<fs::path> tried{fs::current_path() / "models/nano"};
  for (fs::path folder = fs::path(program).parent_path(); folder.has_relative_path(); folder = folder.parent_path()) {
    tried.push_back(folder / "models/nano");
    tried.push_back(folder / "share/cachalot/models/nano");
  }
  for (const fs::path& folder : tried) {
    if (fs::exists(folder / "config.json")) return folder.string();
  }
  return make_error(
      ErrorCode::kNotFound,
      "the built-in model, models/nano, lies neither in {} nor beside {}; a cluster file names another model",
      fs::current_path().string(), program);
}

namespace {

// What the watcher left behind: each holds its lease no longer and ends by itself.
void wait_for_members(const ClusterState& state) {
  for (const auto* members : {&state.replicas, &state.router}) {
    for (const MemberState& member : *members) {
      if (member.pid != 0) ProcessHandle(member.pid).ends_within(seconds(15));
    }
  }
}

}  // namespace

Status run_down(const RunFolder& folder, const std::string& name, bool now) {
  const std::optional<pid_t> owner = folder.owner(name);
  if (!owner) {
    // What one that was killed has left is of no use.
    if (std::filesystem::exists(folder.state_path(name))) RETURN_IF_ERROR(RunLock::take(folder, name));
    return make_error(ErrorCode::kNotFound, "cluster {} is not up", name);
  }
  const ProcessHandle watcher(*owner);
  std::optional<ClusterState> state;
  if (const auto text = read_file(folder.state_path(name))) {
    if (auto parsed = parse_cluster_state(*text, folder.state_path(name))) state = std::move(*parsed);
  }
  watcher.signal(SIGTERM);
  if (now) {
    std::this_thread::sleep_for(milliseconds(300));  // two signals at once may count as one
    watcher.signal(SIGTERM);
  }
  log::print(stdout, "cluster {}: no new requests; {}\n", name,
             now ? "running ones are ended" : fmt::format("running ones have {} s", state ? state->drain_seconds : 0));
  // The router and then the servers drain, each with a margin (cluster/supervisor.cc).
  const seconds patience(2 * (state ? state->drain_seconds : 0) + 40);
  if (!watcher.ends_within(patience)) {
    log::print(stdout, "what watches over it (pid {}) has not ended within {} s and is killed\n", *owner,
               patience.count());
    watcher.signal(SIGKILL);
    watcher.ends_within(seconds(5));
    if (state) wait_for_members(*state);
  }
  RETURN_IF_ERROR(RunLock::take(folder, name));  // its files go with it
  log::print(stdout, "cluster {}: stopped\n", name);
  return {};
}

}  // namespace cachalot
