#include "base/process.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>

extern char** environ;

namespace cachalot {
namespace {

using std::chrono::milliseconds;

[[noreturn]] void give_up(const char* path, int status) {
  const char* const why = strerrordesc_np(errno);
  for (const char* part : {"cachalot: ", path, ": ", why ? why : "cannot be started", "\n"})
    if (write(STDERR_FILENO, part, std::strlen(part)) < 0) break;
  _exit(status);
}

struct Child {
  const ProcessOptions& options;
  const char* program;
  std::vector<char*> words, environment;
  int input, output, errors;
  pid_t parent;
};

// Nothing but system calls here: the child is a copy of a process that may have threads.
[[noreturn]] void run_child(const Child& child) {
  prctl(PR_SET_PDEATHSIG, child.options.parent_death);
  if (getppid() != child.parent && child.options.parent_death != 0) _exit(1);  // it ended before the line above
  child.options.new_session ? setsid() : setpgid(0, 0);
  // A signal that came since the fork waits until here, and must not find the other process's handlers.
  for (int number = 1; number < NSIG; number++) {
    struct sigaction action{};
    if (sigaction(number, nullptr, &action) == 0 && action.sa_handler != SIG_IGN) signal(number, SIG_DFL);
  }
  signal(SIGPIPE, SIG_DFL);
  signal(SIGINT, SIG_DFL);  // ignored where a shell's script started this process in the background
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  dup2(child.input, STDIN_FILENO);
  if (child.output >= 0) dup2(child.output, STDOUT_FILENO);
  if (child.errors >= 0) dup2(child.errors, STDERR_FILENO);
  for (const int fd : child.options.kept) fcntl(fd, F_SETFD, 0);
  if (!child.options.folder.empty() && chdir(child.options.folder.c_str()) != 0)
    give_up(child.options.folder.c_str(), 126);
  execvpe(child.program, child.words.data(), child.environment.data());
  give_up(child.program, 127);
}

std::vector<char*> pointers(const std::vector<std::string>& words) {
  std::vector<char*> all;
  for (const std::string& word : words) all.push_back(const_cast<char*>(word.c_str()));
  all.push_back(nullptr);
  return all;
}

std::vector<std::string> environment_with(const std::vector<std::string>& changes) {
  const auto name_of = [](std::string_view variable) { return variable.substr(0, variable.find('=')); };
  std::vector<std::string> all = changes;
  for (char** variable = environ; variable != nullptr && *variable != nullptr; variable++) {
    const auto is_changed = [&](const std::string& change) { return name_of(change) == name_of(*variable); };
    if (std::ranges::none_of(changes, is_changed)) all.emplace_back(*variable);
  }
  return all;
}

std::vector<pid_t> children_of_this_process() {
  std::vector<pid_t> children;
  for (const std::string& thread : names_in_folder("/proc/self/task")) {
    std::ifstream file("/proc/self/task/" + thread + "/children");
    for (pid_t child = 0; file >> child;) children.push_back(child);
  }
  return children;
}

}  // namespace

ProcessHandle::ProcessHandle(pid_t pid) : pid_(pid), pidfd_(static_cast<int>(syscall(SYS_pidfd_open, pid, 0))) {}

void ProcessHandle::signal(int number) const {
  if (pidfd_) syscall(SYS_pidfd_send_signal, pidfd_.get(), number, nullptr, 0);
}

bool ProcessHandle::ends_within(milliseconds patience) const {
  return !pidfd_ || readable_within(pidfd_.get(), patience);
}

Result<Process> Process::start(const ProcessOptions& options) {
  const std::string& program = options.program.empty() ? options.words[0] : options.program;
  Process process;
  FileDescriptor log, input;
  if (!options.log.empty()) {
    log = FileDescriptor(open(options.log.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644));
    if (!log) return make_error(ErrorCode::kIo, "{} cannot be written: {}", options.log, std::strerror(errno));
    fcntl(log.get(), F_SETFL, O_APPEND);  // a FIFO that nobody reads is refused; one that is read may block its writer
  }
  if (options.input) {
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) != 0) return make_error(ErrorCode::kIo, "pipe: {}", std::strerror(errno));
    input = FileDescriptor(ends[0]);
    process.input_ = FileDescriptor(ends[1]);
    fcntl(process.input_.get(), F_SETFL, O_NONBLOCK);
  } else {
    input = FileDescriptor(open("/dev/null", O_RDONLY | O_CLOEXEC));
  }
  const std::vector<std::string> environment = environment_with(options.environment);
  const int output = log ? log.get() : options.output;
  const Child child{.options = options,
                    .program = program.c_str(),
                    .words = pointers(options.words),
                    .environment = pointers(environment),
                    .input = input.get(),
                    .output = output,
                    .errors = log || options.errors < 0 ? output : options.errors,
                    .parent = getpid()};
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = fork();
  if (pid == 0) run_child(child);
  const int fork_error = errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) return make_error(ErrorCode::kIo, "{} cannot be started: {}", program, std::strerror(fork_error));
  setpgid(pid, pid);  // as the child does: whoever comes first
  process.handle_ = ProcessHandle(pid);
  process.is_owned_ = process.has_group_ = true;
  if (process.handle_) return process;
  return make_error(ErrorCode::kIo, "{} cannot be watched: pidfd_open: {}", program, std::strerror(errno));
}

Process Process::adopt(pid_t child) {
  Process process;
  process.handle_ = ProcessHandle(child);
  process.is_owned_ = true;
  return process;
}

Process::Process(Process&& other) noexcept
    : handle_(std::move(other.handle_)),
      input_(std::move(other.input_)),
      status_(other.status_),
      is_owned_(std::exchange(other.is_owned_, false)),
      has_group_(other.has_group_) {}

Process::~Process() {
  if (!is_owned_ || status_) return;
  kill();
  wait();
}

void Process::signal(int number) const {
  // As long as it is not reaped, no other process has its number.
  if (is_owned_ && !status_) ::kill(pid(), number);
}

void Process::kill() {
  if (!is_owned_ || status_) return;
  if (!has_group_ || ::kill(-pid(), SIGKILL) != 0) ::kill(pid(), SIGKILL);
}

void Process::release() {
  is_owned_ = false;
}

void Process::write(std::string_view text) {
  // SIGPIPE is ignored (base/stop_signals.h): one that has ended is seen by its pidfd.
  if (input_ && ::write(input_.get(), text.data(), text.size()) < 0 && errno == EPIPE) input_.reset();
}

std::optional<int> Process::wait_for(milliseconds patience) {
  if (status_ || !is_owned_ || (handle_ && !handle_.ends_within(patience))) return status_;
  siginfo_t ended{};
  const int options = WEXITED | (handle_ ? WNOHANG : 0);
  int waited = 0;
  while ((waited = waitid(P_PID, static_cast<id_t>(pid()), &ended, options)) != 0 && errno == EINTR) {
  }
  if (waited != 0) {
    status_ = 128 + SIGKILL;  // somebody else has reaped it, and knows more
  } else if (ended.si_pid != 0) {
    status_ = ended.si_code == CLD_EXITED ? ended.si_status : 128 + ended.si_status;
  }
  return status_;
}

int Process::wait() {
  while (is_owned_ && !wait_for(milliseconds(-1))) {
  }
  return status_.value_or(-1);
}

Result<ProgramOutput> run_program(ProcessOptions options, milliseconds patience) {
  // To memory without a name: a pipe would have to be read while the program runs.
  const FileDescriptor output(memfd_create("cachalot-output", MFD_CLOEXEC));
  const FileDescriptor nothing(open("/dev/null", O_WRONLY | O_CLOEXEC));
  if (!output || !nothing) return make_error(ErrorCode::kIo, "memfd_create: {}", std::strerror(errno));
  options.output = output.get();
  if (options.errors < 0) options.errors = nothing.get();
  ASSIGN_OR_RETURN(Process process, Process::start(options));
  const std::optional<int> status = process.wait_for(patience);
  if (!status)
    return make_error(ErrorCode::kDeadlineExceeded, "{} has not ended within {} ms", options.words[0],
                      patience.count());
  ASSIGN_OR_RETURN(std::string text, read_file("/proc/self/fd/" + std::to_string(output.get()), kMostTableBytes));
  return ProgramOutput{.status = *status, .output = std::move(text)};
}

std::string describe_end(int status) {
  constexpr int kMostSignals = 64;  // above them a status is the program's own: ssh ends with 255 when it fails
  if (status > 128 && status <= 128 + kMostSignals)
    return fmt::format("was ended by signal {} ({})", status - 128, strsignal(status - 128));
  return fmt::format("ended with status {}", status);
}

namespace {

// Of a file with lines of a name and a number.
std::optional<uint64_t> counter(const std::string& path, std::string_view name) {
  std::ifstream file(path);
  std::string key;
  for (uint64_t value = 0; file >> key >> value;)
    if (key == name) return value;
  return std::nullopt;
}

}  // namespace

uint64_t num_memory_kills() {
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (!line.starts_with("0::")) continue;  // the one of version 2
    if (const auto kills = counter("/sys/fs/cgroup" + line.substr(3) + "/memory.events", "oom_kill")) return *kills;
  }
  return counter("/proc/vmstat", "oom_kill").value_or(0);
}

bool lacked_memory(int status, uint64_t memory_kills_before) {
  return status == 128 + SIGKILL && num_memory_kills() > memory_kills_before;
}

void kill_children(milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  std::vector<ProcessHandle> ending;
  for (const pid_t child : children_of_this_process()) {
    // Nobody but this process reaps it, and as long as it lives its number is its own.
    ending.emplace_back(child);
    if (getpgid(child) == child) ::kill(-child, SIGKILL);
    ::kill(child, SIGKILL);
  }
  for (const ProcessHandle& child : ending) {
    const auto left = std::chrono::ceil<milliseconds>(deadline - std::chrono::steady_clock::now());
    child.ends_within(std::max(left, milliseconds(0)));
  }
}

}  // namespace cachalot
