#include "cluster/slurm.h"

#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "config/cluster_layout.h"

namespace cachalot {

namespace {

Result<std::vector<std::string>> slurm_nodes() {
  const auto close = [](FILE* pipe) { pclose(pipe); };
  const std::unique_ptr<FILE, decltype(close)> pipe(popen("scontrol show hostnames 2>/dev/null", "re"), close);
  std::vector<std::string> nodes;
  std::string name;
  for (int character = 0; pipe && (character = fgetc(pipe.get())) != EOF;) {
    if (character != '\n') {
      name += static_cast<char>(character);
    } else if (!name.empty()) {
      nodes.push_back(std::exchange(name, {}));
    }
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
