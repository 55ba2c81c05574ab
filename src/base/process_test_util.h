#pragma once

#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/process.h"
#include "base/text.h"

namespace cachalot {

// A copy of this process, of its calling thread alone, that runs the body and ends with its answer, or with the
// calling thread. For tests: the program itself only starts programs.
template <class Body>
Process fork_process(Body body) {
  const pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    _exit(static_cast<int>(body()));
  }
  return Process::adopt(pid);
}

// Its children, and theirs.
inline std::vector<pid_t> descendants_of(pid_t pid) {
  std::vector<pid_t> all;
  std::error_code gone;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task", gone)) {
    std::ifstream children(thread.path() / "children");
    for (pid_t child = 0; children >> child;) {
      all.push_back(child);
      std::ranges::copy(descendants_of(child), std::back_inserter(all));
    }
  }
  return all;
}

// The time that this process and those below it would have taken on a machine that does nothing else: a hundred times a
// second it looks which threads want to run, and it goes as much slower as those of others keep ours from the cores.
// For tests of how soon something happens, whoever else is busy.
class OwnTime {
 public:
  using Clock = std::chrono::steady_clock;

  std::chrono::milliseconds since(Clock::time_point begin) { return between(begin, Clock::now()); }
  // Of its life. Waits until it has looked after the end.
  std::chrono::milliseconds between(Clock::time_point begin, Clock::time_point end) {
    std::unique_lock lock(mutex_);
    while (samples_.empty() || samples_.back().end < end) {
      lock.unlock();
      std::this_thread::sleep_for(kInterval);
      lock.lock();
    }
    Clock::duration passed{0};
    for (const Sample& sample : samples_) {
      const auto within = std::min(end, sample.end) - std::max(begin, sample.begin);
      if (within.count() > 0)
        passed +=
            std::chrono::duration_cast<Clock::duration>(std::min<Clock::duration>(within, kLongest) * sample.speed);
    }
    return std::chrono::duration_cast<std::chrono::milliseconds>(passed);
  }

 private:
  // What is later than it wanted to be has itself waited for its turn.
  static constexpr std::chrono::milliseconds kInterval{10}, kLongest{11};
  struct Sample {
    Clock::time_point begin, end;
    double speed;
  };

  void look(const std::stop_token& stop) {
    for (auto begin = Clock::now(); !stop.stop_requested();) {
      std::this_thread::sleep_for(kInterval);
      const double speed = std::min(1.0, speed_now());
      const auto end = Clock::now();
      const std::lock_guard lock(mutex_);
      samples_.push_back({begin, end, speed});
      begin = end;
    }
  }
  // This thread runs, too, and counts nowhere.
  static double speed_now() {
    double own = num_running(getpid()) - 1;
    for (const pid_t pid : descendants_of(getpid())) own += num_running(pid);
    if (own < 1) return 1;
    const double cores = std::thread::hardware_concurrency();
    const std::string load = read_file("/proc/loadavg").value_or("");  // "0.42 0.30 0.21 3/185 4711": three run
    const double all = leading_number<double>(std::string_view(load).substr(load.rfind(' ', load.find('/')) + 1)) - 1;
    return own / std::max(own, all) * cores / std::min(own, cores);
  }
  static int num_running(pid_t pid) {
    int num_running = 0;
    std::error_code gone;
    for (const auto& thread : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task", gone))
      num_running += read_file(thread.path() / "stat").value_or("").contains(") R ") ? 1 : 0;
    return num_running;
  }

  std::mutex mutex_;
  std::vector<Sample> samples_;
  std::jthread looking_{[this](const std::stop_token& stop) { look(stop); }};
};

}  // namespace cachalot
