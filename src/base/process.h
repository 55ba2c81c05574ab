#pragma once

#include <sys/types.h>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace cachalot {

// A process, by a descriptor that stands for it and never for another one that gets its number later.
class ProcessHandle {
 public:
  ProcessHandle() = default;
  explicit ProcessHandle(pid_t pid);

  explicit operator bool() const { return static_cast<bool>(pidfd_); }  // it is there, or not reaped yet
  pid_t pid() const { return pid_; }
  int fd() const { return pidfd_.get(); }  // readable when it has ended
  void signal(int number) const;
  // Negative: for ever. A signal to this process does not shorten it. One that is not there has ended.
  bool ends_within(std::chrono::milliseconds patience) const;

 private:
  pid_t pid_ = -1;
  FileDescriptor pidfd_;
};

struct ProcessOptions {
  std::vector<std::string> words;  // its name, as it sees it, and its arguments
  std::string program;             // looked for as a shell does; empty: the first of `words`
  std::string folder;              // to work in; empty: this process' own
  // "NAME=value", beside this process' own and in place of those of the same name.
  std::vector<std::string> environment;
  std::string log;             // a file that output and errors are added to
  int output = -1;             // else: descriptors for both, or for the output alone if there is one for the errors;
  int errors = -1;             // -1: this process' own
  bool input = false;          // a pipe for write(); else it reads nothing
  std::vector<int> kept = {};  // descriptors that it has under the same numbers
  int parent_death = SIGKILL;  // what it gets when the thread that started it ends, whatever ends that; 0: nothing
  bool new_session = false;    // has no terminal
};

// A program that this process started, and which ends with its owner. It stands in a process group of its own, so that
// a Ctrl-C at the terminal reaches it only through this process. No signal is blocked in it, and SIGPIPE ends it. Where
// it cannot run, it says why to its errors, and ends with status 126 (the folder) or 127 (the program), as in a shell.
// Used by one thread at a time, but for signal().
class Process {
 public:
  // By the main thread: a child dies with the thread that made it.
  static Result<Process> start(const ProcessOptions& options);
  // Takes over a child that was forked otherwise.
  static Process adopt(pid_t child);
  // Kills what still runs.
  ~Process();
  Process(Process&& other) noexcept;
  Process& operator=(Process&&) = delete;

  pid_t pid() const { return handle_.pid(); }
  int pidfd() const { return handle_.fd(); }  // readable when it has ended
  void signal(int number) const;
  void write(std::string_view text);  // what it does not take at once is dropped
  void close_input() { input_.reset(); }
  // It, and what it started that stands in its group, end at once.
  void kill();
  // It goes on by itself: nobody waits for it any more.
  void release();

  // How it ended, once it has, for describe_end(): its status, or 128 + the signal that ended it.
  std::optional<int> status() { return wait_for(std::chrono::milliseconds(0)); }
  std::optional<int> wait_for(std::chrono::milliseconds patience);
  int wait();

 private:
  Process() = default;

  ProcessHandle handle_;
  FileDescriptor input_;
  std::optional<int> status_;
  bool is_owned_ = false, has_group_ = false;
};

struct ProgramOutput {
  int status = 0;      // as Process::status()
  std::string output;  // what it wrote, without its errors
};
// Runs a program to its end; it is killed, and that is an error, if it takes longer than `patience`.
Result<ProgramOutput> run_program(ProcessOptions options, std::chrono::milliseconds patience);

// "ended with status 1", "was ended by signal 9 (Killed)"
std::string describe_end(int status);

// How many processes the system has ended for want of memory: in this process' control group, where it counts them,
// else on this machine.
uint64_t num_memory_kills();
// Whether this end was one of them: SIGKILL, and that number has grown since.
bool lacked_memory(int status, uint64_t memory_kills_before);

// Kills all children of this process, also those that it has inherited, and waits until they have ended, at most for
// `patience`.
void kill_children(std::chrono::milliseconds patience);

}  // namespace cachalot
