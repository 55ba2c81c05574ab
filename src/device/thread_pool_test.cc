#include "device/thread_pool.h"

#include <gmock/gmock.h>
#include <sched.h>
#include <time.h>

#include <array>
#include <chrono>
#include <set>

namespace cachalot {
namespace {

using ::testing::Each;

double process_cpu_seconds() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

class ThreadPoolOfAnySize : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Sizes, ThreadPoolOfAnySize, ::testing::Values(1, 2, 3, 4, 8),
                         testing::PrintToStringParamName());

TEST_P(ThreadPoolOfAnySize, RunsAJobOnceOnEveryThread) {
  ThreadPool pool({.num_threads = GetParam()});
  const std::thread::id caller = std::this_thread::get_id();
  for (int job = 0; job < 50; job++) {
    std::vector<int> num_calls(GetParam());
    std::vector<std::thread::id> threads(GetParam());
    pool.run([&](int thread_idx) {
      num_calls[thread_idx]++;
      threads[thread_idx] = std::this_thread::get_id();
    });
    EXPECT_THAT(num_calls, Each(1));
    EXPECT_EQ(threads[0], caller);
    std::sort(threads.begin(), threads.end());
    EXPECT_EQ(std::unique(threads.begin(), threads.end()), threads.end());
  }
}

TEST_P(ThreadPoolOfAnySize, CoversEveryIndexOnceInChunksOfTheGrain) {
  ThreadPool pool({.num_threads = GetParam()});
  for (int64_t count : {0, 1, 5, 64, 1000}) {
    for (int64_t grain : {1, 3, 64, 2000}) {
      std::vector<int> visits(count);
      std::atomic<int64_t> num_bad{0};
      pool.parallel_for(count, grain, [&](int64_t begin, int64_t end, int thread_idx) {
        const bool whole = end - begin == grain || end == count;
        if (!whole || begin >= end || thread_idx < 0 || thread_idx >= GetParam()) num_bad++;
        for (int64_t i = begin; i < end; i++) visits[i]++;
      });
      EXPECT_THAT(visits, Each(1)) << count << " by " << grain;
      EXPECT_EQ(num_bad, 0);
    }
  }
}

TEST_P(ThreadPoolOfAnySize, BarriersSeparatePhases) {
  ThreadPool pool({.num_threads = GetParam()});
  constexpr int kPhases = 200;
  std::vector<int> phase_of(GetParam());
  std::atomic<int> num_early{0};
  pool.run([&](int thread_idx) {
    for (int phase = 1; phase <= kPhases; phase++) {
      phase_of[thread_idx] = phase;
      pool.barrier();
      for (int other : phase_of) num_early += other != phase;
      pool.barrier();
    }
  });
  EXPECT_EQ(num_early, 0);
}

TEST_P(ThreadPoolOfAnySize, IndicesStartAtZeroAndAreGivenOnce) {
  ThreadPool pool({.num_threads = GetParam()});
  for (int job = 0; job < 3; job++) {
    std::array<std::atomic<int>, 100> visits{};
    pool.run([&](int) {
      for (int64_t idx; (idx = pool.next()) < 100;) visits[idx]++;
    });
    for (auto& visit : visits) EXPECT_EQ(visit, 1);
  }
}

TEST_P(ThreadPoolOfAnySize, RunsManyShortJobsWithoutLosingOne) {
  for (int spin_microseconds : {0, 50}) {
    ThreadPool pool({.num_threads = GetParam(), .spin_microseconds = spin_microseconds});
    std::atomic<int64_t> num_calls{0};
    constexpr int kJobs = 500;
    for (int job = 0; job < kJobs; job++) {
      pool.run([&](int) { num_calls.fetch_add(1, std::memory_order_relaxed); });
      ASSERT_EQ(num_calls, int64_t{job + 1} * GetParam());
    }
  }
}

TEST(ThreadPool, FewItemsStayOnTheCallersThread) {
  ThreadPool pool({.num_threads = 4});
  int num_calls = 0;
  pool.parallel_for(16, 16, [&](int64_t begin, int64_t end, int thread_idx) {
    EXPECT_EQ(begin, 0);
    EXPECT_EQ(end, 16);
    EXPECT_EQ(thread_idx, 0);
    num_calls++;
  });
  EXPECT_EQ(num_calls, 1);
}

TEST(ThreadPool, ASlowThreadLeavesItsItemsToTheOthers) {
  ThreadPool pool({.num_threads = 2});
  std::array<int, 2> num_items{};
  std::atomic<bool> others_done{false};
  pool.parallel_for(100, 1, [&](int64_t begin, int64_t, int thread_idx) {
    num_items[thread_idx]++;
    // Whoever takes the first item holds it until all the others are through.
    if (begin == 0) {
      while (!others_done) std::this_thread::yield();
    } else if (begin == 99) {
      others_done = true;
    }
  });
  EXPECT_EQ(std::min(num_items[0], num_items[1]), 1);
  EXPECT_EQ(std::max(num_items[0], num_items[1]), 99);
}

TEST(ThreadPool, SleepsWhenIdle) {
  ThreadPool pool({.num_threads = 4});
  pool.run([](int) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // they spin no longer
  const double before = process_cpu_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_LT(process_cpu_seconds() - before, 0.01);
}

// Runs in a thread of its own: a pool pins the thread that drives it.
void on_own_thread(const std::function<void()>& body) {
  std::thread(body).join();
}

TEST(ThreadPool, PinsEachThreadToItsCoreAndTheDrivingOneToTheFirst) {
  const std::vector<int> cores = allowed_cores();
  const int last = cores.back(), first = cores.front();
  ThreadPool pool({.num_threads = 3, .cores = {last, first, last}});
  on_own_thread([&] {
    std::array<std::vector<int>, 3> allowed;
    pool.run([&](int thread_idx) { allowed[thread_idx] = allowed_cores(); });
    EXPECT_THAT(allowed[0], ::testing::ElementsAre(last));
    EXPECT_THAT(allowed[1], ::testing::ElementsAre(first));
    EXPECT_THAT(allowed[2], ::testing::ElementsAre(last));
  });
  EXPECT_EQ(allowed_cores(), cores) << "the thread that made the pool";
}

// Threads that wait must give way to the one that they wait for, when all share one core: a barrier that spins for time
// slices of milliseconds would take seconds here.
TEST(ThreadPool, BarriersAmongThreadsOfOneCoreDoNotBurnTimeSlices) {
  const int core = allowed_cores().back();
  for (int spin_microseconds : {0, 50}) {
    on_own_thread([&] {
      ThreadPool pool({.num_threads = 4, .cores = {core, core, core, core}, .spin_microseconds = spin_microseconds});
      const double before = process_cpu_seconds();
      for (int job = 0; job < 100; job++) {
        pool.run([&](int) {
          for (int phase = 0; phase < 3; phase++) pool.barrier();
        });
      }
      // 400 barriers, at most three waiting threads each.
      EXPECT_LT(process_cpu_seconds() - before, 400 * 3 * (spin_microseconds + 100) * 1e-6);
    });
  }
}

using testing::ElementsAre;
using testing::IsEmpty;

const std::vector<NumaDomain> kTwoDomains{{{0, 1, 2, 3}}, {{4, 5, 6, 7}}};

TEST(CoreShare, RanksTakeDomainsInTurnAndDivideTheirCores) {
  EXPECT_THAT(share_threads(kTwoDomains, 0, 4, 0).cores, ElementsAre(0, 1));
  EXPECT_THAT(share_threads(kTwoDomains, 1, 4, 0).cores, ElementsAre(4, 5));
  EXPECT_THAT(share_threads(kTwoDomains, 2, 4, 0).cores, ElementsAre(2, 3));
  EXPECT_THAT(share_threads(kTwoDomains, 3, 4, 0).cores, ElementsAre(6, 7));
}

TEST(CoreShare, NoCoreHasTwoRanksAndNoneIsForgotten) {
  for (int num_ranks = 2; num_ranks <= 8; num_ranks++) {
    std::multiset<int> taken;
    for (int rank = 0; rank < num_ranks; rank++) {
      for (const int core : share_threads(kTwoDomains, rank, num_ranks, 0).cores) taken.insert(core);
    }
    EXPECT_THAT(taken, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7)) << num_ranks << " ranks";
  }
}

TEST(CoreShare, MoreRanksThanCoresShareThemUnpinned) {
  const ThreadPoolOptions options = share_threads({{{0, 1}}}, 17, 32, 0);
  EXPECT_EQ(options.num_threads, 1);
  EXPECT_THAT(options.cores, IsEmpty());
  EXPECT_EQ(options.spin_microseconds, 0);
}

TEST(CoreShare, ThisMachinesDomainsHoldItsCores) {
  const std::vector<int> cores = allowed_cores();
  std::vector<int> found;
  for (const NumaDomain& domain : numa_domains(cores))
    found.insert(found.end(), domain.cores.begin(), domain.cores.end());
  EXPECT_THAT(found, testing::UnorderedElementsAreArray(cores));
}

}  // namespace

}  // namespace cachalot
