#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"

namespace cachalot {

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

std::string to_json(const ClusterState& state);
Result<ClusterState> parse_cluster_state(const std::string& text, const std::string& path);

}  // namespace cachalot
