#include "serve/rank_processes.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>

namespace cachalot {
namespace {

[[noreturn]] void run_child(const char* program, char* const* arguments, pid_t parent) {
  // Nothing but system calls here: the child is a copy of a process that is in the middle of things.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);  // it ended before the line above
  setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  execv(program, arguments);
  _exit(127);
}

std::string how_it_ended(int pidfd) {
  siginfo_t info{};
  // Left for the destructor to reap.
  if (waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(pidfd), &info, WEXITED | WNOWAIT) != 0) return "ended";
  if (info.si_code == CLD_EXITED) return fmt::format("ended with status {}", info.si_status);
  return fmt::format("was ended by signal {} ({})", info.si_status, strsignal(info.si_status));
}

}  // namespace

Result<std::unique_ptr<RankProcesses>> RankProcesses::start(const std::vector<std::vector<std::string>>& command_lines,
                                                            const std::string& program) {
  std::unique_ptr<RankProcesses> processes(new RankProcesses());
  processes->stop_fd_ = FileDescriptor(eventfd(0, EFD_CLOEXEC));
  const pid_t parent = getpid();
  for (const std::vector<std::string>& command_line : command_lines) {
    std::vector<char*> arguments;
    for (const std::string& argument : command_line) arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);
    const pid_t pid = fork();
    if (pid < 0) return make_error(ErrorCode::kIo, "a rank cannot be started: {}", std::strerror(errno));
    if (pid == 0) run_child(program.c_str(), arguments.data(), parent);
    processes->pids_.push_back(pid);
    processes->pidfds_.emplace_back(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
    if (!processes->pidfds_.back()) return make_error(ErrorCode::kIo, "pidfd_open: {}", std::strerror(errno));
  }
  return processes;
}

RankProcesses::~RankProcesses() {
  stop_watching();
  const auto deadline = std::chrono::steady_clock::now() + grace_;
  for (size_t child = 0; child < pids_.size(); child++) {
    pollfd ended{.fd = child < pidfds_.size() ? pidfds_[child].get() : -1, .events = POLLIN, .revents = 0};
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (ended.fd < 0 || poll(&ended, 1, static_cast<int>(std::max<int64_t>(left.count(), 0))) == 0)
      kill(pids_[child], SIGKILL);
    waitpid(pids_[child], nullptr, 0);
  }
}

void RankProcesses::watch(std::function<void(int, const std::string&)> on_exit) {
  watcher_ = std::thread([this, on_exit = std::move(on_exit)] {
    std::vector<pollfd> polled;
    for (const FileDescriptor& pidfd : pidfds_) polled.push_back({.fd = pidfd.get(), .events = POLLIN, .revents = 0});
    polled.push_back({.fd = stop_fd_.get(), .events = POLLIN, .revents = 0});
    while (poll(polled.data(), polled.size(), -1) < 0 && errno == EINTR) {
    }
    if (polled.back().revents) return;
    for (size_t child = 0; child < pidfds_.size(); child++) {
      if (polled[child].revents) return on_exit(static_cast<int>(child), how_it_ended(pidfds_[child].get()));
    }
  });
}

void RankProcesses::stop_watching() {
  if (!watcher_.joinable()) return;
  eventfd_write(stop_fd_.get(), 1);
  watcher_.join();
}

}  // namespace cachalot
