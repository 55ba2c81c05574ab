#include "cluster/slurm.h"

#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/process.h"
#include "config/cluster_layout.h"

namespace cachalot {

namespace {

Result<std::vector<std::string>> slurm_nodes() {
  ASSIGN_OR_RETURN(const ProgramOutput names,
                   run_program({.words = {"scontrol", "show", "hostnames"}}, std::chrono::seconds(30)));
  std::istringstream lines(names.output);
  std::vector<std::string> nodes;
  for (std::string name; std::getline(lines, name);) {
    if (!name.empty()) nodes.push_back(name);
  }
  if (nodes.empty())
    return make_error(ErrorCode::kUnavailable,
                      "`launcher: slurm` without `nodes` takes the nodes of its allocation, and this is none: start it "
                      "within salloc or sbatch");
  return nodes;
}

}  // namespace

Status complete_nodes(ClusterFile& cluster) {
  if (cluster.nodes.empty()) {
    ASSIGN_OR_RETURN(const std::vector<std::string> names, slurm_nodes());
    for (const std::string& name : names) {
      cluster.nodes.push_back(cluster.any_node);
      cluster.nodes.back().address = name;
    }
  }
  return resolve_addresses(cluster);
}

}  // namespace cachalot
