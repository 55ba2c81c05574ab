#pragma once

#include <string>
#include <vector>

#include "config/cluster_file.h"
#include "config/cluster_layout.h"

// The command lines of a cluster's processes: pure functions of the file.
namespace cachalot {

using Words = std::vector<std::string>;

// What a flag of the file is on a command line: {"--max-model-len=2048"}, {"--no-enable-prefix-caching"}.
Words flag_words(const FlagSetting& flag);

// `serve` and its flags for one replica, and `router` and its flags; without the program's name.
Words serve_arguments(const ClusterFile& cluster, const PlacedReplica& replica);
// More for a server whose agent sees to its ranks (ClusterFile::heals()). state_name: of the folders of this run's
// agents; on other machines below their run folders.
Words agent_arguments(const ClusterFile& cluster, const std::vector<PlacedReplica>& replicas,
                      const PlacedReplica& replica, const std::string& state_name);
Words witness_arguments(const ClusterFile& cluster, const std::vector<PlacedReplica>& replicas,
                        const std::string& state_name);
Words router_arguments(const ClusterFile& cluster, const std::vector<PlacedReplica>& replicas);

std::string router_host(const ClusterFile& cluster);                               // where it listens
std::string server_url(const ClusterFile& cluster, const PlacedReplica& replica);  // "http://192.168.1.2:7555"

std::string router_url(const ClusterFile& cluster);  // as this machine reaches it

// `cachalot arguments...` on this machine, for as long as the lease is held (cluster/lease.h). `report_end`: the lease
// tells how it ended.
Words leased_here(const std::string& program, const Words& arguments, bool report_end = false);

// What this machine runs so that `cachalot arguments...` runs on the node, in its folder and with its environment, for
// as long as this machine holds the lease (cluster/lease.h) through the standard input. `program`: of this process.
Words launch_words(const ClusterFile& cluster, const ClusterNode& node, const std::string& program,
                   const Words& arguments, bool report_end = false);

// A word as a POSIX shell takes it.
std::string shell_quoted(const std::string& word);

}  // namespace cachalot
