#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/process_test_util.h"
#include "comm/membership/loopback_test_util.h"

namespace cachalot::control {

// A report of a rank in a process of its own, as a line: "lost RANK NANOSECONDS TEXT".
struct LossReport {
  int rank = -1;
  std::chrono::steady_clock::time_point at;
  std::string text;
};

// A rank in a process of its own, which does nothing but belong to its group, in step 7.
class RankProcess {
 public:
  // Processes on one node watch each other if `watch`; `busy` threads compute beside.
  RankProcess(const JoinOptions& options, bool watch, int num_busy_threads = 0) {
    std::array<int, 2> reports{}, commands{};
    CHECK(pipe2(reports.data(), O_CLOEXEC) == 0 && pipe2(commands.data(), O_CLOEXEC) == 0);
    process_.emplace(fork_process([&] {
      close(commands[1]);
      log::init("off", "");
      live(options, watch, num_busy_threads, reports[1], commands[0]);
      return 0;
    }));
    close(reports[1]);
    close(commands[0]);
    reports_ = reports[0];
    commands_ = commands[1];
  }
  ~RankProcess() {
    process_.reset();
    close(reports_);
    close(commands_);
  }
  RankProcess(const RankProcess&) = delete;
  RankProcess& operator=(const RankProcess&) = delete;

  void signal(int number) { process_->signal(number); }
  void wait_for_end() { process_->wait(); }
  bool formed() { return next_line(std::chrono::seconds(20)) == "formed"; }
  // Tells it to say goodbye and end.
  void dismiss() { [[maybe_unused]] const ssize_t written = write(commands_, "q", 1); }
  // All that it reports: so many as are `awaited`, however long they take to come, and what comes until it has then
  // been quiet for a while.
  std::vector<LossReport> losses(size_t awaited, std::chrono::milliseconds quiet = std::chrono::milliseconds(80)) {
    std::vector<LossReport> all;
    for (;;) {
      const std::string line = next_line(all.size() < awaited ? std::chrono::seconds(20) : quiet);
      if (line.empty()) return all;
      LossReport report;
      int64_t nanoseconds = 0;
      const char* end = line.data() + line.size();
      const auto rank_end = std::from_chars(line.data() + 5, end, report.rank).ptr;
      const auto time_end = std::from_chars(rank_end + 1, end, nanoseconds).ptr;
      report.at = std::chrono::steady_clock::time_point(std::chrono::nanoseconds(nanoseconds));
      report.text = std::string(time_end + 1, end);
      all.push_back(report);
    }
  }

 private:
  static void live(const JoinOptions& options, bool watch, int num_busy_threads, int reports, int commands) {
    const auto say = [reports](const std::string& line) {
      [[maybe_unused]] const ssize_t written = write(reports, (line + "\n").data(), line.size() + 1);
    };
    const Result<std::unique_ptr<Membership>> membership = Membership::join(options);
    if (!membership) return say("error " + membership.error().message);
    (*membership)->set_activity(Phase::kStep, 7);
    (*membership)->set_lost_handler([&say](const LostRank& lost) {
      say(fmt::format("lost {} {} {}", lost.rank, std::chrono::steady_clock::now().time_since_epoch().count(),
                      lost.message()));
    });
    for (const Member& member : (*membership)->members()) {
      if (!watch || member.rank == options.rank) continue;
      const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, member.pid, 0));
      if (pidfd < 0 || !(*membership)->watch_process(member.rank, pidfd)) return say("cannot watch");
      close(pidfd);
    }
    std::vector<std::jthread> busy;
    for (int i = 0; i < num_busy_threads; ++i) {
      busy.emplace_back([](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
        }
      });
    }
    say("formed");
    char command = 0;
    [[maybe_unused]] const ssize_t size = read(commands, &command, 1);
    (*membership)->leave();
    _exit(0);
  }

  // Empty where none comes in time.
  std::string next_line(std::chrono::milliseconds timeout) {
    for (;;) {
      const size_t end = unread_.find('\n');
      if (end != std::string::npos) {
        std::string line = unread_.substr(0, end);
        unread_.erase(0, end + 1);
        return line;
      }
      pollfd waiting{.fd = reports_, .events = POLLIN};
      if (poll(&waiting, 1, static_cast<int>(timeout.count())) <= 0) return "";
      std::array<char, 4096> part{};
      const ssize_t size = read(reports_, part.data(), part.size());
      if (size <= 0) return "";
      unread_.append(part.data(), size);
    }
  }

  std::optional<Process> process_;
  int reports_ = -1, commands_ = -1;
  std::string unread_;
};

using RankProcesses = std::vector<std::unique_ptr<RankProcess>>;

// Waits until the group has formed and the first heartbeats have told what everyone does.
inline RankProcesses start_processes(const std::vector<JoinOptions>& options, bool watch, int num_busy_threads = 0) {
  RankProcesses processes;
  for (const JoinOptions& rank : options)
    processes.push_back(std::make_unique<RankProcess>(rank, watch, num_busy_threads));
  for (const auto& process : processes) EXPECT_TRUE(process->formed());
  std::this_thread::sleep_for(options[0].failure_timeout / 3);
  return processes;
}

}  // namespace cachalot::control
