#include "cluster/down.h"

#include <fmt/format.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <optional>
#include <thread>

#include "base/file.h"
#include "base/log.h"
#include "base/process.h"
#include "cluster/cluster_state.h"

namespace cachalot {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

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
