#pragma once

#include <vector>

#include "device/thread_pool.h"

namespace cachalot {

// The cores that this process may run on, in order (its affinity mask, which cgroups and taskset narrow).
std::vector<int> allowed_cores();

// The thread pool of a process that has `cores` to itself; num_threads 0: one a core. Threads are pinned if they fill
// the cores exactly: fewer are left to the scheduler, so that several such processes do not meet on one core.
ThreadPoolOptions plan_threads(const std::vector<int>& cores, int num_threads);

}  // namespace cachalot
