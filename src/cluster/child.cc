#include "cluster/child.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

namespace cachalot {
namespace {

struct Ends {
  int input, output;  // what the child reads and writes
};

[[noreturn]] void give_up(const char* path, int status) {
  const char* const why = strerrordesc_np(errno);
  for (const char* part : {"cachalot: ", path, ": ", why ? why : "cannot be started", "\n"})
    if (::write(STDERR_FILENO, part, std::strlen(part)) < 0) break;
  _exit(status);
}

[[noreturn]] void run_child(char* const* words, const char* folder, Ends ends, pid_t parent) {
  // Nothing but system calls here: the child is a copy of a process with threads.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);  // it ended before the line above
  setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  dup2(ends.input, STDIN_FILENO);
  if (ends.output >= 0) {
    dup2(ends.output, STDOUT_FILENO);
    dup2(ends.output, STDERR_FILENO);
  }
  if (*folder != '\0' && chdir(folder) != 0) give_up(folder, 126);
  execvp(words[0], words);
  give_up(words[0], 127);
}

}  // namespace

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
  std::vector<char*> words;
  for (const std::string& word : options.words) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  const pid_t parent = getpid();
  child.pid_ = fork();
  if (child.pid_ < 0)
    return make_error(ErrorCode::kIo, "{} cannot be started: {}", options.words[0], std::strerror(errno));
  if (child.pid_ == 0) run_child(words.data(), options.folder.c_str(), {input.get(), log.get()}, parent);
  child.pidfd_ = FileDescriptor(static_cast<int>(syscall(SYS_pidfd_open, child.pid_, 0)));
  if (!child.pidfd_) return make_error(ErrorCode::kIo, "pidfd_open: {}", std::strerror(errno));
  return child;
}

Child::Child(Child&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      pidfd_(std::move(other.pidfd_)),
      input_(std::move(other.input_)),
      status_(other.status_) {}

Child::~Child() {
  if (pid_ < 0 || status_) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void Child::signal(int number) const {
  if (!status_) kill(pid_, number);
}

void Child::write(std::string_view text) {
  // SIGPIPE is ignored by whoever owns children with input: one that has ended is seen by its pidfd.
  if (input_ && ::write(input_.get(), text.data(), text.size()) < 0 && errno == EPIPE) input_.reset();
}

std::optional<int> Child::status() {
  int status = 0;
  if (!status_ && waitpid(pid_, &status, WNOHANG) == pid_)
    status_ = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return status_;
}

std::string Child::describe(int status) {
  constexpr int kMostSignals = 64;  // above them a status is the program's own: ssh ends with 255 when it fails
  if (status > 128 && status <= 128 + kMostSignals)
    return fmt::format("was ended by signal {} ({})", status - 128, strsignal(status - 128));
  return fmt::format("ended with status {}", status);
}

}  // namespace cachalot
