#pragma once

#include <boost/json.hpp>
#include <memory>
#include <string>
#include <vector>

#include "base/process_test_util.h"
#include "processes/program.h"

namespace cachalot::test {

struct UpClusterOptions {
  bool expert_parallel = true;
  std::string more;                // lines of the cluster file
  std::vector<std::string> flags;  // of `up`
  std::string api_key;             // of the servers and the router; empty: none
};

// `cachalot up` of the built-in model as two replicas with two ranks each and the router, from a cluster file of its
// own, with a run folder of its own.
class UpCluster {
 public:
  explicit UpCluster(const UpClusterOptions& options = {});
  // Of a cluster file that is there, whose `name` is that of the file.
  static UpCluster of_file(const std::string& file, uint16_t router_port) {
    return UpCluster(Existing{file, router_port});
  }
  // Stops what still runs.
  ~UpCluster();

  UpCluster(const UpCluster&) = delete;
  UpCluster& operator=(const UpCluster&) = delete;

  Program& watcher() { return *watcher_; }
  const Program& watcher() const { return *watcher_; }
  uint16_t router_port() const { return router_port_; }
  bool wait_until_ready(std::chrono::milliseconds patience = std::chrono::seconds(60));

  // What `cachalot status --json` prints; null if it fails.
  boost::json::value status() const;
  boost::json::value state() const;  // as it lies in the run folder; null while it is not there
  // Waits until that replica has been started anew more often than that, and all is ready; says how often it was.
  std::optional<int> wait_for_restart(int more_than, std::chrono::milliseconds patience = std::chrono::seconds(60),
                                      size_t replica = 0) const;
  // As the watcher's state has it now.
  int num_restarts(size_t replica) const;
  bool wait_for_router_restart(std::chrono::milliseconds patience = std::chrono::seconds(60)) const;
  // The router's own process, below its lease; 0: none runs.
  pid_t router_pid() const;
  // Of the ranks in their order; empty while not all are known.
  std::vector<pid_t> rank_pids() const;
  // All processes of this machine below the watcher, and it.
  std::vector<pid_t> all_pids() const;

  // Runs `cachalot COMMAND` on this cluster.
  std::unique_ptr<Program> run(const std::string& command, const std::vector<std::string>& flags = {}) const;
  std::string logs() const;                             // of all its processes, for whoever looks into a failure
  std::string folder() const { return scratch_ / ""; }  // for files of the test

 private:
  struct Existing {
    std::string file;
    uint16_t router_port;
  };
  explicit UpCluster(const Existing& existing);

  ScratchFolder scratch_;
  uint16_t router_port_;
  std::string file_;
  std::unique_ptr<Program> watcher_;
};

// Of the processes, those that still are, after they had `patience` to end.
std::vector<pid_t> still_there(std::vector<pid_t> pids, std::chrono::milliseconds patience);

}  // namespace cachalot::test
