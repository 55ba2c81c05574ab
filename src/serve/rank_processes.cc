#include "serve/rank_processes.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

#include <cerrno>
#include <chrono>
#include <csignal>

namespace cachalot {
namespace {

std::string how_it_ended(int pidfd) {
  siginfo_t info{};
  // Left for the destructor to reap.
  if (waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(pidfd), &info, WEXITED | WNOWAIT) != 0) return "ended";
  return describe_end(end_status(info));
}

}  // namespace

Result<std::unique_ptr<RankProcesses>> RankProcesses::start(const std::vector<std::vector<std::string>>& command_lines,
                                                            const std::string& program) {
  std::unique_ptr<RankProcesses> processes(new RankProcesses());
  processes->stop_fd_ = FileDescriptor(eventfd(0, EFD_CLOEXEC));
  for (const std::vector<std::string>& command_line : command_lines) {
    ASSIGN_OR_RETURN(ChildProcess child, start_program({.program = program, .words = command_line}));
    processes->children_.push_back(std::move(child));
  }
  return processes;
}

RankProcesses::~RankProcesses() {
  stop_watching();
  const auto deadline = std::chrono::steady_clock::now() + grace_;
  for (const ChildProcess& child : children_) {
    pollfd ended{.fd = child.pidfd.get(), .events = POLLIN, .revents = 0};
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (poll(&ended, 1, static_cast<int>(std::max<int64_t>(left.count(), 0))) == 0) kill(child.pid, SIGKILL);
    waitpid(child.pid, nullptr, 0);
  }
}

void RankProcesses::watch(std::function<void(int, const std::string&)> on_exit) {
  watcher_ = std::thread([this, on_exit = std::move(on_exit)] {
    std::vector<pollfd> polled;
    for (const ChildProcess& child : children_)
      polled.push_back({.fd = child.pidfd.get(), .events = POLLIN, .revents = 0});
    polled.push_back({.fd = stop_fd_.get(), .events = POLLIN, .revents = 0});
    while (poll(polled.data(), polled.size(), -1) < 0 && errno == EINTR) {
    }
    if (polled.back().revents) return;
    for (size_t child = 0; child < children_.size(); child++) {
      if (polled[child].revents) return on_exit(static_cast<int>(child), how_it_ended(children_[child].pidfd.get()));
    }
  });
}

void RankProcesses::stop_watching() {
  if (!watcher_.joinable()) return;
  eventfd_write(stop_fd_.get(), 1);
  watcher_.join();
}

}  // namespace cachalot
