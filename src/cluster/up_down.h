#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/ports.h"
#include "cluster/run_folder.h"
#include "config/cluster_file.h"
#include "config/cluster_layout.h"

namespace cachalot {

// Settles who the nodes are: without any in its file, a cluster in a Slurm allocation takes the allocation's, as
// `scontrol` spells them out; then finds their addresses (config/cluster_layout.h).
Status complete_nodes(ClusterFile& cluster);

// Free ports of this machine in place of those that are 0 (any free one): they stay through restarts, so that the
// router knows its servers. To be kept as long as the cluster is up.
Result<std::vector<KeptPort>> choose_ports(ClusterFile& cluster, std::vector<PlacedReplica>& replicas);

// A server of a node that is this machine has the router's port, too: then what is wrong. Found before either starts.
std::optional<std::string> router_port_fault(const ClusterFile& cluster, const std::vector<PlacedReplica>& replicas);

// Those of this machine can be listened on; else the error names the key that says otherwise.
Status check_ports(const ClusterFile& cluster, const std::vector<PlacedReplica>& replicas);

struct UpOptions {
  ClusterFile cluster;
  std::string run_folder;
  // As the person typed it, for what they may do next, and what other commands need so as to find the run folder.
  std::string program_name = "cachalot", run_folder_flag;
  bool detach = false;                    // return when it is ready; it goes on behind
  int ready_fd = -1;                      // of the process that goes on: tells the one that started it
  std::vector<std::string> command_line;  // of this process
};

// Starts the cluster, shows how far it is, says how to talk to it, and watches over it until SIGTERM, SIGINT or SIGHUP.
// To be called by the main thread. Errors: what the file asks for cannot be; the cluster is up already; a port is
// taken; a start that failed, or was stopped by a signal. With `detach`, the status of the process that goes on, if it
// has ended: it has said why.
Result<int> run_up(UpOptions options);

// The path of this program.
Result<std::string> own_program();

// The folder of the built-in model: models/nano below the working folder, or below a folder that the program lies in,
// or there in share/cachalot.
Result<std::string> find_built_in_model();

// Drains and stops the cluster of that name, and waits until nothing of it is left. `now`: without draining. One that
// is not up is an error.
Status run_down(const RunFolder& folder, const std::string& name, bool now);

}  // namespace cachalot
