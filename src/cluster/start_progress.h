#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "cluster/cluster_state.h"

namespace cachalot {

// How far the start of a cluster is, on standard output: a line for each replica with its ranks, redrawn on a terminal;
// elsewhere written anew when it has changed, at most every two seconds.
class StartProgress {
 public:
  StartProgress();
  void show(const ClusterState& state);

 private:
  void redraw(const std::vector<std::string>& lines);
  void write_changes(const std::vector<std::string>& lines, bool all);

  const bool on_terminal_;
  std::vector<std::string> shown_;
  std::chrono::steady_clock::time_point last_;
};

// "replica 0  192.168.1.2  rank 0 40%  rank 1 ready": one line a member.
std::vector<std::string> progress_lines(const ClusterState& state);

}  // namespace cachalot
