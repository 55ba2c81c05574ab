#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file_descriptor.h"

namespace cachalot {

struct ChildOptions {
  std::vector<std::string> words;  // the program, looked for as a shell does, and its arguments
  std::string folder;              // to work in; empty: this process' own
  std::string log;                 // file that its output is added to; empty: this process' own output
  bool input = false;              // a pipe for write(); else it reads nothing
};

// A program that this process started. It dies with this process, and stands in a process group of its own, so that a
// Ctrl-C at the terminal reaches it only through its owner.
class Child {
 public:
  // By the main thread: a child ends when the thread that made it does.
  static Result<Child> start(const ChildOptions& options);
  // Kills what still runs.
  ~Child();
  Child(Child&& other) noexcept;
  Child& operator=(Child&&) = delete;

  pid_t pid() const { return pid_; }
  int pidfd() const { return pidfd_.get(); }  // readable when it has ended
  void signal(int number) const;
  void write(std::string_view text);  // what it does not take at once is dropped
  void close_input() { input_.reset(); }

  // How it ended, once it has; 128 + the signal that ended it.
  std::optional<int> status();
  // "ended with status 1", "was ended by signal 9 (Killed)"
  static std::string describe(int status);

 private:
  Child() = default;

  pid_t pid_ = -1;
  FileDescriptor pidfd_, input_;
  std::optional<int> status_;
};

}  // namespace cachalot
