#include "device/cores.h"

#include <sched.h>

#include <algorithm>
#include <thread>

namespace cachalot {

std::vector<int> allowed_cores() {
  // The mask of machines with more cores than cpu_set_t holds needs a larger one.
  for (int max_cores = CPU_SETSIZE; max_cores <= (1 << 16); max_cores *= 2) {
    cpu_set_t* set = CPU_ALLOC(static_cast<size_t>(max_cores));
    const size_t size = CPU_ALLOC_SIZE(static_cast<size_t>(max_cores));
    std::vector<int> cores;
    if (sched_getaffinity(0, size, set) == 0) {
      for (int core = 0; core < max_cores; core++) {
        if (CPU_ISSET_S(static_cast<size_t>(core), size, set)) cores.push_back(core);
      }
    }
    CPU_FREE(set);
    if (!cores.empty()) return cores;
  }
  std::vector<int> cores(std::max(1u, std::thread::hardware_concurrency()));
  for (size_t idx = 0; idx < cores.size(); idx++) cores[idx] = static_cast<int>(idx);
  return cores;
}

ThreadPoolOptions plan_threads(const std::vector<int>& cores, int num_threads) {
  const int num_cores = static_cast<int>(cores.size());
  ThreadPoolOptions options{.num_threads = num_threads > 0 ? num_threads : num_cores};
  if (options.num_threads == num_cores) options.cores = cores;
  if (options.num_threads > num_cores) options.spin_microseconds = 0;
  return options;
}

}  // namespace cachalot
