#include "cluster/child.h"

#include <fcntl.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

namespace cachalot {

Result<Child> Child::start(const ChildOptions& options) {
  Child child;
  FileDescriptor log, input;
  if (!options.log.empty()) {
    log = FileDescriptor(open(options.log.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644));
    if (!log) return make_error(ErrorCode::kIo, "{} cannot be written: {}", options.log, std::strerror(errno));
  }
  if (options.input) {
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) != 0) return make_error(ErrorCode::kIo, "pipe: {}", std::strerror(errno));
    input = FileDescriptor(ends[0]);
    child.input_ = FileDescriptor(ends[1]);
    fcntl(child.input_.get(), F_SETFL, O_NONBLOCK);
  } else {
    input = FileDescriptor(open("/dev/null", O_RDONLY | O_CLOEXEC));
  }
  ASSIGN_OR_RETURN(
      child.process_,
      start_program({.words = options.words, .folder = options.folder, .input = input.get(), .output = log.get()}));
  return child;
}

Child::~Child() {
  if (!process_.pidfd || status_) return;  // moved away, or reaped
  kill(pid(), SIGKILL);
  waitpid(pid(), nullptr, 0);
}

void Child::signal(int number) const {
  if (!status_) kill(pid(), number);
}

void Child::write(std::string_view text) {
  // SIGPIPE is ignored by whoever owns children with input: one that has ended is seen by its pidfd.
  if (input_ && ::write(input_.get(), text.data(), text.size()) < 0 && errno == EPIPE) input_.reset();
}

std::optional<int> Child::status() {
  siginfo_t ended{};
  const auto pidfd = static_cast<id_t>(process_.pidfd.get());
  const bool knows = !status_ && waitid(static_cast<idtype_t>(P_PIDFD), pidfd, &ended, WEXITED | WNOHANG) == 0;
  if (knows && ended.si_pid != 0) status_ = end_status(ended);
  return status_;
}

}  // namespace cachalot
