#include "device/thread_pool.h"

#include <fmt/format.h>
#include <immintrin.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"

namespace cachalot {
namespace {

// The calling thread. Machines may have more cores than a cpu_set_t holds.
void pin(int core) {
  cpu_set_t* set = CPU_ALLOC(static_cast<size_t>(core) + 1);
  const size_t size = CPU_ALLOC_SIZE(static_cast<size_t>(core) + 1);
  CPU_ZERO_S(size, set);
  CPU_SET_S(static_cast<size_t>(core), size, set);
  if (pthread_setaffinity_np(pthread_self(), size, set) != 0) log::warn("cannot pin a thread to core {}", core);
  CPU_FREE(set);
}

void futex_wait(std::atomic<uint32_t>& word, uint32_t value) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}

void futex_wake_all(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
}

}  // namespace

ThreadPool::ThreadPool(ThreadPoolOptions options) : options_(std::move(options)) {
  CHECK(options_.num_threads >= 1);
  CHECK(options_.cores.empty() || static_cast<int>(options_.cores.size()) >= options_.num_threads);
  for (int thread_idx = 1; thread_idx < options_.num_threads; thread_idx++)
    threads_.emplace_back([this, thread_idx] { worker(thread_idx); });
}

ThreadPool::~ThreadPool() {
  stopping_ = true;
  open(start_, start_.value.load(std::memory_order_relaxed) + 1);
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::pin_driver() {
  if (options_.cores.empty() || driver_ == std::this_thread::get_id()) return;
  driver_ = std::this_thread::get_id();
  pin(options_.cores[0]);
}

void ThreadPool::run(FunctionRef<void(int)> body) {
  pin_driver();
  claimed_.value.store(0, std::memory_order_relaxed);
  if (options_.num_threads == 1) return body(0);
  job_ = &body;
  open(start_, start_.value.load(std::memory_order_relaxed) + 1);
  body(0);
  barrier();
}

void ThreadPool::parallel_for(int64_t count, int64_t grain, FunctionRef<void(int64_t, int64_t, int)> body) {
  if (count <= 0) return;
  if (options_.num_threads == 1 || count <= grain) return body(0, count, 0);
  run([&](int thread_idx) {
    for (int64_t begin; (begin = next() * grain) < count;) body(begin, std::min(begin + grain, count), thread_idx);
  });
}

void ThreadPool::barrier() {
  if (options_.num_threads == 1) return;
  const uint32_t generation = barrier_.value.load(std::memory_order_acquire);
  if (arrived_.value.fetch_add(1, std::memory_order_acq_rel) + 1 == options_.num_threads) {
    arrived_.value.store(0, std::memory_order_relaxed);
    open(barrier_, generation + 1);
  } else {
    wait_while(barrier_, generation);
  }
}

void ThreadPool::worker(int thread_idx) {
  if (!options_.cores.empty()) pin(options_.cores[thread_idx]);
  for (uint32_t generation = 0;;) {
    wait_while(start_, generation);
    generation = start_.value.load(std::memory_order_acquire);
    if (stopping_) return;
    (*job_)(thread_idx);
    barrier();
  }
}

void ThreadPool::wait_while(Gate& gate, uint32_t value) {
  if (options_.spin_microseconds > 0) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(options_.spin_microseconds);
    do {
      for (int spin = 0; spin < 64; spin++) {
        if (gate.value.load(std::memory_order_acquire) != value) return;
        _mm_pause();
      }
    } while (std::chrono::steady_clock::now() < until);
  }
  // Announce, look once more, sleep: open() stores first and looks at the sleepers after, so one of the two sees the
  // other.
  gate.num_sleepers.fetch_add(1, std::memory_order_seq_cst);
  while (gate.value.load(std::memory_order_seq_cst) == value) futex_wait(gate.value, value);
  gate.num_sleepers.fetch_sub(1, std::memory_order_relaxed);
}

void ThreadPool::open(Gate& gate, uint32_t value) {
  gate.value.store(value, std::memory_order_seq_cst);
  if (gate.num_sleepers.load(std::memory_order_seq_cst) > 0) futex_wake_all(gate.value);
}

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
