#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"

namespace cachalot {

// A flag of `cachalot serve` or `cachalot router` as the file sets it. Which flags there are, cli/ knows.
struct FlagSetting {
  std::string name;                 // "max-model-len"
  std::vector<std::string> values;  // of a list several; of a switch "true" or "false"
  int line = 0, column = 0;         // of the file
};

// What goes to OpenSSH's `ssh`; what is empty, its own configuration decides.
struct SshSettings {
  std::string host;  // the node's address if empty
  std::string user, key;
  int port = 0;
  std::vector<std::string> options;  // "-o" each: "StrictHostKeyChecking=accept-new"
};

struct ClusterNode {
  std::string address;  // where its servers listen and all others reach them
  std::string place;    // of the address in the file: "3:11" (line and column); empty: none
  std::string numeric;  // the address as this machine has found it, for servers elsewhere; empty: as typed
  int devices = 0;      // 0: not said
  std::string program;  // path of `cachalot` there; empty: that of this process
  std::string folder;   // in which it works there, absolute; that of the file unless said
  std::map<std::string, std::string> environment;
  SshSettings ssh;

  const std::string& listen_address() const { return numeric.empty() ? address : numeric; }
};

enum class Launcher {
  kLocal,  // processes of this machine
  kSsh,    // OpenSSH to each node
  kSlurm,  // srun, inside an allocation, whose nodes are taken if the file names none
};

struct RouterSettings {
  bool enabled = true;
  std::string host;  // empty: 127.0.0.1 with the local launcher, else 0.0.0.0
  uint16_t port = 8002;
  std::vector<FlagSetting> flags;
};

// How often a group that lost a rank is started anew.
struct RestartPolicy {
  std::chrono::milliseconds first_wait{1'000};  // doubled with each restart within the window
  std::chrono::milliseconds longest_wait{30'000};
  int most_restarts = 10;  // within the window; one more, and the group is given up
  std::chrono::milliseconds window{600'000};
};

// A cluster: which model runs where, in how many parts, behind which address. The smallest useful file:
//
//   model: /data/models/DeepSeek-R1-awq
//   nodes: [192.168.1.2, 192.168.1.3, 192.168.1.4, 192.168.1.5]
//   devices: 8
//   tensor-parallel-size: 4
//   enable-expert-parallel: true
//
// docs/configuration.md has all keys.
struct ClusterFile {
  std::string path;    // of the file; empty: none was given
  std::string name;    // by which `down` and `status` find the cluster; the file's name without its ending
  std::string folder;  // of the file, absolute: what relative paths in it start from
  std::string model;   // folder on every node; as typed
  std::vector<std::string> served_model_names;  // empty: the model as typed

  Launcher launcher = Launcher::kLocal;
  std::vector<ClusterNode> nodes;  // at least one, but for Slurm
  ClusterNode any_node;            // what holds for nodes that do not say otherwise

  int data_parallel_size = 0;  // 0: as many replicas as the nodes' devices hold
  int tensor_parallel_size = 1;
  bool enable_expert_parallel = false;

  uint16_t port = 7555;  // of a node's first server; its others count on. 0: free ones, on this machine alone
  uint16_t data_parallel_rpc_port = 29550;  // where the ranks meet, on the first node; 0: a free one
  std::vector<FlagSetting> serve_flags;
  RouterSettings router;
  std::string logs = "logs";  // folder on this machine
  int drain_seconds = 30;
  RestartPolicy restart;

  std::map<std::string, std::string> places;  // of keys in the file: {"port", "12:7"}; absent: not in it

  // How an error of that key begins: "r1.yaml:12:7: port"; "r1.yaml: port" if it is not in the file.
  std::string where(const std::string& key) const;
  std::string where(size_t node) const;  // "r1.yaml:3:11: nodes[0]"

  bool spans_replicas() const { return enable_expert_parallel && data_parallel_size > 1; }
  // A lost rank is its agent's business (--enable-fault-tolerance): servers are lost and started one by one.
  bool heals() const;
  // The router votes among the agents of several servers.
  bool has_witness() const;
};

// Whatever the file holds, errors name file, line, column and key, the value, and what would be right.
Result<ClusterFile> read_cluster_file(const std::string& path);
Result<ClusterFile> parse_cluster_file(const std::string& text, const std::string& path);

// What `cachalot up` starts when it is given no file: two replicas with two ranks each on this machine, experts over
// all four.
ClusterFile built_in_cluster(const std::string& model, const std::string& working_folder);

}  // namespace cachalot
