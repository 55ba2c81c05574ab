#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace cachalot {

// A variable of this process's environment; empty: it is not set.
std::string environment_variable(const char* name);
// Those whose name begins so, "NAME=value", in the order of names.
std::vector<std::string> environment_variables(std::string_view prefix);

// This process as one of those that mpirun or srun started.
struct LaunchedRank {
  std::string variables;  // that say so: "OMPI_COMM_WORLD_RANK and OMPI_COMM_WORLD_SIZE"
  int rank = 0, size = 1;
  int local_size = 0;   // ranks on this node; 0: not told
  std::string address;  // of rank 0's node; empty: not told
  uint16_t port = 0;    // the job's own, below the ephemeral ones; 0: nothing tells this job from another
};

using Environment = std::function<std::optional<std::string>(const std::string& name)>;

// From the variables of Open MPI, of those that speak PMI (MPICH, Intel MPI) or of Slurm, in this order: mpirun may run
// inside a Slurm job. Nothing: started by hand. The error names a variable that makes no sense.
Result<std::optional<LaunchedRank>> read_launched_rank(const Environment& environment);

// The first of Slurm's list of nodes: "node03" of "node[03-06,9],other1".
std::string first_slurm_node(const std::string& nodes);

}  // namespace cachalot
