#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "base/error.h"
#include "comm/mesh.h"
#include "config/options.h"
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
  // Told of each step as it begins, and of nothing when a round is over; may be empty.
  std::function<void(std::optional<uint64_t> step)> on_activity;
};

// The highest level that the option allows: what is planned with for machines that are not here.
IsaLevel highest_isa(IsaOption option);

// The instruction level that this machine is to run, as the option says. The error: it has not got it.
Result<IsaLevel> choose_isa(IsaOption option);

}  // namespace cachalot
