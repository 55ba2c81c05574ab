#include "base/child_process.h"

#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace cachalot {
namespace {

[[noreturn]] void give_up(const char* path, int status) {
  const char* const why = strerrordesc_np(errno);
  for (const char* part : {"cachalot: ", path, ": ", why ? why : "cannot be started", "\n"})
    if (write(STDERR_FILENO, part, std::strlen(part)) < 0) break;
  _exit(status);
}

// Nothing but system calls here: the child is a copy of a process that may have threads.
[[noreturn]] void run_child(const ProgramStart& start, const char* program, char* const* words, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);  // it ended before the line above
  setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  if (start.input >= 0) dup2(start.input, STDIN_FILENO);
  if (start.output >= 0) {
    dup2(start.output, STDOUT_FILENO);
    dup2(start.output, STDERR_FILENO);
  }
  if (!start.folder.empty() && chdir(start.folder.c_str()) != 0) give_up(start.folder.c_str(), 126);
  execvp(program, words);
  give_up(program, 127);
}

}  // namespace

Result<ChildProcess> start_program(const ProgramStart& start) {
  const std::string& program = start.program.empty() ? start.words[0] : start.program;
  std::vector<char*> words;
  for (const std::string& word : start.words) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  const pid_t parent = getpid();
  ChildProcess child{.pid = fork()};
  if (child.pid < 0) return make_error(ErrorCode::kIo, "{} cannot be started: {}", program, std::strerror(errno));
  if (child.pid == 0) run_child(start, program.c_str(), words.data(), parent);
  child.pidfd = FileDescriptor(static_cast<int>(syscall(SYS_pidfd_open, child.pid, 0)));
  if (child.pidfd) return child;
  const int failure = errno;
  kill(child.pid, SIGKILL);
  waitpid(child.pid, nullptr, 0);
  return make_error(ErrorCode::kIo, "{} cannot be watched: pidfd_open: {}", program, std::strerror(failure));
}

int end_status(const siginfo_t& ended) {
  return ended.si_code == CLD_EXITED ? ended.si_status : 128 + ended.si_status;
}

std::string describe_end(int status) {
  constexpr int kMostSignals = 64;  // above them a status is the program's own: ssh ends with 255 when it fails
  if (status > 128 && status <= 128 + kMostSignals)
    return fmt::format("was ended by signal {} ({})", status - 128, strsignal(status - 128));
  return fmt::format("ended with status {}", status);
}

}  // namespace cachalot
