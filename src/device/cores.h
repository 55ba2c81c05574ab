#pragma once

#include <vector>

#include "device/thread_pool.h"

namespace cachalot {

// The cores that this process may run on, in order (its affinity mask, which cgroups and taskset narrow).
std::vector<int> allowed_cores();

// The thread pool of a process that has `cores` to itself; num_threads 0: one a core. Threads are pinned if they fill
// the cores exactly: fewer are left to the scheduler, so that several such processes do not meet on one core.
ThreadPoolOptions plan_threads(const std::vector<int>& cores, int num_threads);

struct NumaDomain {
  std::vector<int> cores;
};

// The domains of this machine, each with those of `cores` that belong to it; domains without any are left out. Where
// the kernel tells of none: one domain.
std::vector<NumaDomain> numa_domains(const std::vector<int>& cores);

// The compute threads of the local_idx-th of num_local ranks that share a node: rank i belongs to domain i mod the
// number of domains, whose cores are divided evenly among its ranks. Where ranks outnumber a domain's cores they share
// them all, unpinned, with one thread each. num_threads: the rank's share of cores if 0.
ThreadPoolOptions share_threads(const std::vector<NumaDomain>& domains, int local_idx, int num_local, int num_threads);

}  // namespace cachalot
