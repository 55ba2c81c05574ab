#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/stop_signals.h"
#include "cluster/group_machine.h"
#include "cluster/run_folder.h"
#include "cluster/watched_process.h"
#include "config/cluster_file.h"
#include "config/cluster_layout.h"
#include "http/client.h"

namespace cachalot {

struct SupervisorOptions {
  ClusterFile cluster;
  std::vector<PlacedReplica> replicas;
  std::string program;  // path of this one, for this machine and for nodes that name no other
  std::string state_path;
};

// Starts a cluster's processes and watches over them: a group of servers that lost one is ended whole and started anew
// (cluster/group_machine.h), the router too, for itself. All on the calling thread, which must be the main one.
class Supervisor {
 public:
  using Observer = std::function<void(const ClusterState&)>;

  // From now on it ends this process at SIGTERM, SIGINT and SIGHUP. `on_change` is told each new state.
  static Result<std::unique_ptr<Supervisor>> create(SupervisorOptions options, Observer on_change);

  // Until one of these signals: then drains, the router first, and ends everything; a second signal ends it at once.
  // Errors: a start that failed; groups that were lost too often, when no server is left.
  Status run();
  const ClusterState& state() const { return state_; }

 private:
  struct Group {
    std::vector<WatchedProcess*> members;
    GroupMachine machine;
    GroupState reported = GroupState::kBackingOff;
    int reported_losses = 0;
  };

  explicit Supervisor(SupervisorOptions options, Observer on_change);
  Status add_processes();
  Status add_process(const ProcessPlan& plan);
  void add_groups();
  // Sleeps until something happens, at most a fraction of a second; takes what there is to know.
  void wait_and_update();
  Status act(Group& group);
  void ask_router_anew();
  void say_what_changed(Group& group);
  Status check_groups() const;
  void drain();
  // False if some still run after `patience`, or a signal came since the drain began.
  bool wait_until_ended(const std::vector<WatchedProcess*>& processes, std::chrono::milliseconds patience);
  MemberState describe(const Group& group, const WatchedProcess& process) const;
  void publish();

  const SupervisorOptions options_;
  const Observer on_change_;
  StopSignals signals_{std::nullopt};
  http::IoThreads threads_{1};
  http::Client client_;
  std::vector<std::unique_ptr<WatchedProcess>> processes_;
  std::vector<Group> groups_;  // of servers; the router's is the last, if there is one
  ClusterState state_;
  std::filesystem::path agent_states_;  // below the run folder
  std::string published_;
  int num_signals_ = 0, signals_when_draining_ = 0;
  bool draining_ = false;
};

}  // namespace cachalot
