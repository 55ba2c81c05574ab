#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/process.h"

// `cachalot`, as a user would run it, with what it prints.
namespace cachalot::test {

class Program {
 public:
  struct Line {
    std::string text;
    std::chrono::system_clock::time_point at;  // as the log's own time stamp says, in milliseconds; else when it came
  };

  // The program under test, or another one, by its path. It dies with the calling thread.
  explicit Program(const std::vector<std::string>& arguments, const std::string& path = CACHALOT_PROGRAM);
  // The same with more of how it starts; words[0] and the output are set here.
  Program(ProcessOptions options, const std::vector<std::string>& arguments,
          const std::string& path = CACHALOT_PROGRAM);
  // Kills it, and with it, as the program promises, the ranks that it started.
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  pid_t pid() const { return process_->pid(); }
  void signal(int number) const { process_->signal(number); }
  // The processes that it started, in the order of their start.
  std::vector<pid_t> children() const;

  // Its exit status; 128 + the signal that ended it; nothing if it still runs after `patience`.
  std::optional<int> wait(std::chrono::milliseconds patience);
  // Whether within `patience` it and all that it started have ended: nobody holds its output any longer.
  bool wait_for_silence(std::chrono::milliseconds patience);

  // What it and its children have printed until now, standard output and error as they came.
  std::vector<Line> lines() const;
  std::string output() const;
  // The first line that holds `text`, waited for while the program (or a child) runs.
  std::optional<Line> wait_for_line(std::string_view text, std::chrono::milliseconds patience);

 private:
  void read_output(int fd);

  std::optional<Process> process_;
  std::thread reader_;
  mutable std::mutex mutex_;  // guards what follows
  mutable std::condition_variable changed_;
  std::vector<Line> lines_;
  bool silent_ = false;
};

// A folder for a test's files, removed with its owner.
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// A port on the loopback that nobody listens at. It is kept until this process ends: nobody else gets it, and servers
// may listen there.
uint16_t free_port();

}  // namespace cachalot::test
