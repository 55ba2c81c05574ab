#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

namespace cachalot {

// A borrowed callable without allocation; valid only while the callable lives.
template <class Signature>
class FunctionRef;
template <class R, class... Args>
class FunctionRef<R(Args...)> {
 public:
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>)
  FunctionRef(F&& callable)  // NOLINT(google-explicit-constructor)
      : object_(const_cast<void*>(static_cast<const void*>(&callable))), call_([](void* object, Args... args) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(object))(static_cast<Args&&>(args)...);
        }) {}
  R operator()(Args... args) const { return call_(object_, static_cast<Args&&>(args)...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

struct ThreadPoolOptions {
  int num_threads = 1;
  std::vector<int> cores = {};  // thread i is pinned to cores[i]; empty: unpinned
  int spin_microseconds = 50;   // how long an idle thread spins before it sleeps; 0 where ranks outnumber cores
};

// The compute threads of one device. The caller's thread is thread 0 of every job, and is pinned to its core by its
// first one; the others sleep when there is no job. Driven by one thread (the engine's); jobs do not nest.
class ThreadPool {
 public:
  explicit ThreadPool(ThreadPoolOptions options);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return options_.num_threads; }

  // body(thread_idx) on every thread; returns when all are through.
  void run(FunctionRef<void(int)> body);

  // body(begin, end, thread_idx) over chunks of [0, count) of `grain` items, taken as threads become free, so that a
  // core with other work on it slows only its own share.
  void parallel_for(int64_t count, int64_t grain, FunctionRef<void(int64_t, int64_t, int)> body);

  // Inside run(): waits until every thread has called it as often. Spins a little, then sleeps.
  void barrier();

  // Inside run(): the next index that no thread has claimed yet, from zero on.
  int64_t next() { return claimed_.value.fetch_add(1, std::memory_order_relaxed); }

 private:
  struct alignas(64) Counter {
    std::atomic<int64_t> value{0};
  };
  struct alignas(64) Gate {
    std::atomic<uint32_t> value{0};
    std::atomic<uint32_t> num_sleepers{0};
  };

  void pin_driver();
  void worker(int thread_idx);
  void wait_while(Gate& gate, uint32_t value);
  void open(Gate& gate, uint32_t value);

  ThreadPoolOptions options_;
  const FunctionRef<void(int)>* job_ = nullptr;
  bool stopping_ = false;
  std::thread::id driver_;  // the thread that is pinned as thread 0
  Gate start_;              // generation of the current job
  Gate barrier_;            // generation of barriers passed
  Counter arrived_;
  Counter claimed_;
  std::vector<std::thread> threads_;
};

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
