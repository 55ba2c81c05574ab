#include "serve/rank_processes.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace cachalot {
Result<std::unique_ptr<RankProcesses>> RankProcesses::start(const std::vector<std::vector<std::string>>& command_lines,
                                                            const std::string& program) {
  std::unique_ptr<RankProcesses> processes(new RankProcesses());
  processes->stop_fd_ = FileDescriptor(eventfd(0, EFD_CLOEXEC));
  for (const std::vector<std::string>& command_line : command_lines) {
    FileDescriptor told(memfd_create("cachalot-end", MFD_CLOEXEC));
    if (!told) return make_error(ErrorCode::kIo, "memfd_create: {}", std::strerror(errno));
    ASSIGN_OR_RETURN(Process child,
                     Process::start({.words = command_line,
                                     .program = program,
                                     .environment = {fmt::format("{}={}", kEndReportVariable, told.get())},
                                     .kept = {told.get()}}));
    processes->children_.push_back(std::move(child));
    processes->told_.push_back(std::move(told));
  }
  return processes;
}

RankProcesses::~RankProcesses() {
  stop_watching();
  const auto deadline = std::chrono::steady_clock::now() + grace_;
  for (Process& child : children_) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (!child.wait_for(std::max(left, std::chrono::milliseconds(0)))) child.kill();
  }
}

void RankProcesses::watch(std::function<void(int, const EndReport&)> on_exit) {
  watcher_ = std::thread([this, on_exit = std::move(on_exit)] {
    std::vector<pollfd> polled;
    for (const Process& child : children_) polled.push_back({.fd = child.pidfd(), .events = POLLIN, .revents = 0});
    polled.push_back({.fd = stop_fd_.get(), .events = POLLIN, .revents = 0});
    while (poll(polled.data(), polled.size(), -1) < 0 && errno == EINTR) {
    }
    if (polled.back().revents) return;
    for (size_t child = 0; child < children_.size(); child++) {
      if (polled[child].revents) return on_exit(static_cast<int>(child), end_of(child, children_[child].wait()));
    }
  });
}

std::optional<EndReport> RankProcesses::how_it_ended(int child) {
  const auto idx = static_cast<size_t>(child);
  const std::optional<int> status = children_[idx].wait_for(std::chrono::milliseconds(200));
  return status.transform([&](int ended) { return end_of(idx, ended); });
}

EndReport RankProcesses::end_of(size_t child, int status) const {
  return read_end_report(told_[child].get(), status, memory_kills_);
}

void RankProcesses::stop_watching() {
  if (!watcher_.joinable()) return;
  eventfd_write(stop_fd_.get(), 1);
  watcher_.join();
}

}  // namespace cachalot
