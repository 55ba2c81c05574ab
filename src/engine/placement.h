#pragma once

#include "comm/mesh.h"
#include "config/parallel_options.h"
#include "device/thread_pool.h"
#include "kernels/isa.h"

namespace cachalot {

// Where a rank stands: in the layout, among the group's processes, and on its node.
struct Placement {
  ParallelOptions parallel;
  Mesh* mesh = nullptr;     // of the group; borrowed
  int num_local_ranks = 1;  // that share this node's memory
  ThreadPoolOptions threads;
  IsaLevel isa = IsaLevel::kReference;  // the group's
};

}  // namespace cachalot
