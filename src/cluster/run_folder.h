#pragma once

#include <sys/types.h>

#include <boost/describe/class.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace cachalot {

// Where clusters that are up on this machine leave word: NAME.lock, held by the process that watches over the cluster
// and with its id in it, and NAME.json, its ClusterState. A lock that nobody holds is of one that was killed.
class RunFolder {
 public:
  // Makes the folder, for this user alone. `flag`: what commands need in order to find it, " --run-folder X" or
  // nothing.
  static Result<RunFolder> open(const std::string& path, std::string flag = {});

  std::string state_path(const std::string& name) const { return path_ + "/" + name + ".json"; }
  // The process that watches over the cluster; nothing if it is not up.
  std::optional<pid_t> owner(const std::string& name) const;
  // The clusters that are up, in the order of their names.
  std::vector<std::string> names() const;

 private:
  friend class RunLock;
  RunFolder(std::string path, std::string flag) : path_(std::move(path)), flag_(std::move(flag)) {}
  std::string lock_path(const std::string& name) const { return path_ + "/" + name + ".lock"; }

  std::string path_, flag_;
};

// The right to run the cluster of that name; its end takes the files away.
class RunLock {
 public:
  static Result<RunLock> take(const RunFolder& folder, const std::string& name);
  ~RunLock();
  RunLock(RunLock&&) = default;

 private:
  RunLock() = default;

  FileDescriptor lock_;  // none: moved away
  std::string lock_path_, state_path_;
};

// What the process that watches over a cluster knows of one server, or of the router.
struct MemberState {
  std::string label;             // "replica 0", "router"
  std::string node, url, log;    // the url is where it is reached from this machine
  std::string state;             // of its group: "starting", "ready", "lost", "backing off", "gave up"; or "draining"
  bool up = false;               // a server takes requests; the router answers
  bool ready = false;            // it can serve: its whole group is there, for the router a server
  pid_t pid = 0;                 // of the process of this machine that holds it; 0: none runs
  int restarts = 0;              // of its group
  std::string loss;              // why its group was last lost; empty: never
  std::vector<int> percentages;  // that its ranks have loaded; none for the router
};
BOOST_DESCRIBE_STRUCT(MemberState, (), (label, node, url, log, state, up, ready, pid, restarts, loss, percentages))

// The state of a cluster that is up, as it lies in the run folder for `status` and `down`.
struct ClusterState {
  std::string name, file;  // the file is empty for the built-in cluster
  std::string model;       // the name to ask for
  int64_t started = 0;     // seconds since 1970
  int data_parallel_size = 0, tensor_parallel_size = 0;
  bool enable_expert_parallel = false;
  int drain_seconds = 0;
  std::vector<MemberState> replicas;
  std::vector<MemberState> router;  // one, or none

  bool ready() const;
};
BOOST_DESCRIBE_STRUCT(ClusterState, (),
                      (name, file, model, started, data_parallel_size, tensor_parallel_size, enable_expert_parallel,
                       drain_seconds, replicas, router))

std::string to_json(const ClusterState& state);
Result<ClusterState> parse_cluster_state(const std::string& text, const std::string& path);

}  // namespace cachalot
