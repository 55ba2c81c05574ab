#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace cachalot {

std::string bytes_text(uint64_t num_bytes);  // "3.2 GB"
std::string binary_bytes(double bytes);      // "14.8 GiB", as memory is counted
inline std::string binary_bytes(uint64_t bytes) {
  return binary_bytes(static_cast<double>(bytes));
}

// Lines that show how far something is: redrawn in place on a terminal; elsewhere those that have changed are written,
// at most every `pause`. Used by one thread at a time.
class ProgressLines {
 public:
  ProgressLines(std::FILE* to, std::chrono::milliseconds pause);
  ~ProgressLines();  // leaves the cursor on a fresh line
  ProgressLines(const ProgressLines&) = delete;
  ProgressLines& operator=(const ProgressLines&) = delete;
  // The same number of lines each time, of which the last ones are always shown.
  void show(const std::vector<std::string>& lines, bool last);

 private:
  std::FILE* const to_;
  const bool on_terminal_;
  const std::chrono::milliseconds pause_;
  std::vector<std::string> shown_;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();  // shown
};

// How far a long piece of work has come, on stderr: a bar that is redrawn on a terminal, a line every ten seconds
// elsewhere. Used by one thread at a time.
class ProgressBar {
 public:
  // `things`: what is counted, e.g. "questions"; empty: bytes.
  explicit ProgressBar(std::string label, std::string things = {});

  void update(uint64_t num_done, uint64_t num_total);

 private:
  using Clock = std::chrono::steady_clock;

  std::string label_, things_;
  ProgressLines lines_;
  Clock::time_point start_ = Clock::now();
};

// The line that a bar shows: "label [#####.....]  50%  1.0 of 2.0 GB, 512.0 MB/s, 2 s left", or
// "label [#####.....]  50%  10 of 20 questions, 2.5 a second, 4 s left".
std::string progress_line(const std::string& label, uint64_t num_done, uint64_t num_total, double seconds,
                          const std::string& things = {});

}  // namespace cachalot
