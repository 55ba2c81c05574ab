#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/child_process.h"
#include "base/error.h"
#include "base/file_descriptor.h"

namespace cachalot {

struct ChildOptions {
  std::vector<std::string> words;  // the program, looked for as a shell does, and its arguments
  std::string folder;              // to work in; empty: this process' own
  std::string log;                 // file that its output is added to; empty: this process' own output
  bool input = false;              // a pipe for write(); else it reads nothing
};

// A program that this process started (base/child_process.h), and which ends with its owner.
class Child {
 public:
  // By the main thread.
  static Result<Child> start(const ChildOptions& options);
  // Kills what still runs.
  ~Child();
  Child(Child&&) noexcept = default;
  Child& operator=(Child&&) = delete;

  pid_t pid() const { return process_.pid; }
  int pidfd() const { return process_.pidfd.get(); }  // readable when it has ended
  void signal(int number) const;
  void write(std::string_view text);  // what it does not take at once is dropped
  void close_input() { input_.reset(); }

  // How it ended, once it has, for describe_end().
  std::optional<int> status();

 private:
  Child() = default;

  ChildProcess process_;
  FileDescriptor input_;
  std::optional<int> status_;
};

}  // namespace cachalot
