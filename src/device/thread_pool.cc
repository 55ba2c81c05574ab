#include "device/thread_pool.h"

#include <immintrin.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/check.h"
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
  for (Counter& counter : counters_) counter.value.store(0, std::memory_order_relaxed);
  if (options_.num_threads == 1) return body(0);
  job_ = &body;
  open(start_, start_.value.load(std::memory_order_relaxed) + 1);
  body(0);
  barrier(0);
}

void ThreadPool::parallel_for(int64_t count, int64_t grain, FunctionRef<void(int64_t, int64_t, int)> body) {
  if (count <= 0) return;
  if (options_.num_threads == 1 || count <= grain) return body(0, count, 0);
  run([&](int thread_idx) {
    for (int64_t begin; (begin = next(0) * grain) < count;) body(begin, std::min(begin + grain, count), thread_idx);
  });
}

void ThreadPool::barrier(int) {
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
    barrier(thread_idx);
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

}  // namespace cachalot
