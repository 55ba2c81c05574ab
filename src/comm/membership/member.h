#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <stop_token>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/error.h"

namespace cachalot {

// Which node a process runs on. Two processes are on one node, and may share memory, if they run under the same kernel
// and in the same network namespace: abstract sockets, by which shared memory is handed over, end at that namespace.
struct NodeId {
  std::string boot_id;         // of the running kernel
  uint64_t net_namespace = 0;  // inode; unique under one kernel

  bool operator==(const NodeId&) const = default;

  static auto fields(auto& self) { return std::tie(self.boot_id, self.net_namespace); }
};

Result<NodeId> this_node();
std::string this_host();  // its name, for people

}  // namespace cachalot

// The nouns of a group of processes. What travels lists its `fields`, for comm/membership/wire.h.
namespace cachalot {

// What every rank knows of every rank once the group has formed.
struct Member {
  int rank = 0;
  std::string label;  // what it is for people, e.g. "replica 1, tp 0"; may be empty
  std::string host;   // its name
  int64_t pid = 0;    // in its own pid namespace: for people only
  NodeId node;
  std::vector<int> cores;       // that it may run on
  std::string control_address;  // under which rank 0 sees its host
  std::string shm_socket;       // where it hands out its shared memory; empty: it has none
  std::string ucx_address;      // bytes; empty: it has none

  std::string name() const;  // "rank 5 (replica 1, tp 0, host b, pid 77)", for logs and errors whatever it has said

  static auto fields(auto& self) {
    return std::tie(self.rank, self.label, self.host, self.pid, self.node, self.cores, self.control_address,
                    self.shm_socket, self.ucx_address);
  }
};

// Among the ranks of its node that may run on a core of its own: a rank's place, and how many they are, with itself.
// All ranks of the node as a rule, itself alone where somebody (Slurm, numactl, mpirun) has bound each to cores.
struct CoreSharers {
  int place = 0, count = 0;
};
CoreSharers core_sharers(const std::vector<Member>& members, int rank);

enum class Phase : uint8_t {
  kLoading,
  kReady,  // loaded, while others still load
  kIdle,
  kStep,
};

// What a rank is doing, as its heartbeats tell it.
struct Activity {
  Phase phase = Phase::kLoading;
  int percent = 0;    // while loading
  uint64_t step = 0;  // the current one, or the last

  std::string text() const;  // "in step 812"

  static auto fields(auto& self) { return std::tie(self.phase, self.percent, self.step); }
};

// A member that the group has lost, as each survivor reports it.
struct LostRank {
  int rank = 0;
  std::string name;               // Member::name()
  std::string cause;              // "its process died"
  std::optional<Activity> doing;  // as last heard; absent where nothing of the rank's was ever heard
  bool is_this_rank = false;      // the others have given up this rank

  std::string message() const;
};

// What the ranks of a group agree on, and what each brings.
struct JoinOptions {
  int rank = 0, size = 1;
  std::string host = "127.0.0.1";  // rank 0 listens here, and only here; the others connect to it
  uint16_t port = 29550;
  uint32_t epoch = 1;  // of the group that forms; a later one follows a loss

  // Must be equal on all ranks.
  std::string program_version;
  std::vector<std::pair<std::string, std::string>> settings;  // flag and value of every group-wide setting
  std::string model_fingerprint;
  std::string secret;  // never sent; empty: none

  // What this rank brings.
  std::string label;
  int isa_level = 0;     // the highest instruction level that its CPU runs
  std::string isa_name;  // its name, for people
  std::string shm_socket, ucx_address;

  std::chrono::milliseconds join_timeout{600'000};  // for all ranks to come
  std::chrono::milliseconds failure_timeout{
      1'000};  // until a silent rank is known as lost by all; rank 0's holds for all
  std::chrono::milliseconds notice_interval{5'000};   // between two lines about what is being waited for
  std::chrono::milliseconds greeting_timeout{5'000};  // for a client of rank 0's port to say who it is
  // How long rank 0 stays after a failed start, to tell ranks that are about to come: they retry several times a
  // second.
  std::chrono::milliseconds linger{3'000};
  std::stop_token stop;  // gives up joining
};

// "ranks 3 and 7", "rank 5", "ranks 1-4, 8 and 9". Takes them in ascending order.
std::string rank_list(const std::vector<int>& ranks);

}  // namespace cachalot
