#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/process.h"
#include "config/end_report.h"

namespace cachalot {

// The ranks that this process starts: the same program as child processes, each with a command line of its own. They
// die with this process, whatever ends it, and a Ctrl-C at the terminal reaches only this process, which ends them in
// order.
class RankProcesses {
 public:
  // By the main thread: they die with it.
  // command_lines: of each child, the program's name first.
  static Result<std::unique_ptr<RankProcesses>> start(const std::vector<std::vector<std::string>>& command_lines,
                                                      const std::string& program = "/proc/self/exe");
  // Gives those that still run a while to end by themselves, then ends them.
  ~RankProcesses();
  void set_grace(std::chrono::milliseconds grace) { grace_ = grace; }

  // Calls `on_exit` (child, how it ended, and what it said of it) from a thread of its own for the first child that
  // ends before stop_watching().
  void watch(std::function<void(int child, const EndReport& end)> on_exit);
  void stop_watching();
  // Of one that has ended or does so within moments.
  std::optional<EndReport> how_it_ended(int child);
  pid_t pid(int child) const { return children_[static_cast<size_t>(child)].pid(); }

 private:
  RankProcesses() = default;
  EndReport end_of(size_t child, int status) const;

  std::chrono::milliseconds grace_{5'000};
  const uint64_t memory_kills_ = num_memory_kills();
  std::vector<Process> children_;
  std::vector<FileDescriptor> told_;  // memory in which each child says why it ends
  FileDescriptor stop_fd_;            // an eventfd: ends the watcher
  std::thread watcher_;
};

}  // namespace cachalot
