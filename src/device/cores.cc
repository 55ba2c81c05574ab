#include "device/cores.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <thread>

#include "base/check.h"
#include "base/file.h"

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

namespace {

// "0-3,8,10-11", as the kernel writes lists of CPUs.
std::vector<int> parse_cpu_list(std::string_view text) {
  std::vector<int> cpus;
  const auto number = [&](int& value) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    return error == std::errc();
  };
  for (int first; number(first);) {
    int last = first;
    if (text.starts_with('-')) {
      text.remove_prefix(1);
      if (!number(last)) break;
    }
    for (int cpu = first; cpu <= last; cpu++) cpus.push_back(cpu);
    if (!text.starts_with(',')) break;
    text.remove_prefix(1);
  }
  return cpus;
}

}  // namespace

std::vector<NumaDomain> numa_domains(const std::vector<int>& cores) {
  std::vector<NumaDomain> domains;
  for (int node = 0;; node++) {
    const std::string path = fmt::format("/sys/devices/system/node/node{}/cpulist", node);
    const auto list = std::filesystem::exists(path) ? read_file(path) : Result<std::string>("");
    if (!list || list->empty()) break;
    NumaDomain domain;
    for (const int cpu : parse_cpu_list(*list)) {
      if (std::ranges::find(cores, cpu) != cores.end()) domain.cores.push_back(cpu);
    }
    if (!domain.cores.empty()) domains.push_back(std::move(domain));
  }
  if (domains.empty()) domains.push_back({cores});
  return domains;
}

ThreadPoolOptions share_threads(const std::vector<NumaDomain>& domains, int local_idx, int num_local, int num_threads) {
  CHECK(!domains.empty() && local_idx >= 0 && local_idx < num_local);
  const auto num_domains = static_cast<int>(domains.size());
  const std::vector<int>& cores = domains[static_cast<size_t>(local_idx % num_domains)].cores;
  const auto num_cores = static_cast<int>(cores.size());
  const int place = local_idx / num_domains;  // among the domain's ranks
  const int num_ranks = num_local / num_domains + (local_idx % num_domains < num_local % num_domains ? 1 : 0);
  if (num_ranks > num_cores) return {.num_threads = std::max(num_threads, 1), .cores = {}, .spin_microseconds = 0};
  const int begin = num_cores * place / num_ranks, end = num_cores * (place + 1) / num_ranks;
  return plan_threads({cores.begin() + begin, cores.begin() + end}, num_threads);
}

}  // namespace cachalot
