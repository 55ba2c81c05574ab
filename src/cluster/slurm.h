#pragma once

#include "base/error.h"
#include "config/cluster_file.h"

namespace cachalot {

// Settles who the nodes are: without any in its file, a cluster in a Slurm allocation takes the allocation's, as
// `scontrol` spells them out; then finds their addresses (config/cluster_layout.h).
Status complete_nodes(ClusterFile& cluster);

}  // namespace cachalot
