#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "cluster/cluster_state.h"
#include "cluster/metrics_text.h"

namespace cachalot {

// One rank, as its replica's server tells of it.
struct RankLoad {
  int rank = 0;  // in its group
  std::string host;
  int64_t pid = 0;
  int first_expert = 0, num_experts = 0;  // that it holds, of every layer
  double weight_bytes = 0, resident_bytes = 0;
  double steps = 0, steps_without_rows = 0;          // the latter: for other replicas' sake alone
  double seconds_in_steps = 0, seconds_waiting = 0;  // the latter a part of the former: until other ranks did theirs
};

// One replica; what is not reached has no ranks.
struct ReplicaLoad {
  int running = 0, waiting = 0;  // requests
  double kv_usage = 0;           // 1: all blocks are used
  std::vector<RankLoad> ranks;
};

ReplicaLoad read_replica_load(const MetricsText& metrics);

// Asks all servers of the cluster, which may take a few seconds where one does not answer.
std::vector<ReplicaLoad> collect_loads(const ClusterState& state);

}  // namespace cachalot
