#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace cachalot {

std::string bytes_text(uint64_t num_bytes);  // "3.2 GB"

// How far a long piece of work has come, on stderr: a bar that is redrawn on a terminal, a line every ten seconds
// elsewhere. Used by one thread at a time.
class ProgressBar {
 public:
  // `things`: what is counted, e.g. "questions"; empty: bytes.
  explicit ProgressBar(std::string label, std::string things = {});
  ~ProgressBar();  // leaves the cursor on a fresh line
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void update(uint64_t num_done, uint64_t num_total);

 private:
  using Clock = std::chrono::steady_clock;

  std::string label_, things_;
  bool on_terminal_;
  bool drawn_ = false;
  Clock::time_point start_ = Clock::now(), last_ = start_;
};

// The line that a bar shows: "label [#####.....]  50%  1.0 of 2.0 GB, 512.0 MB/s, 2 s left", or
// "label [#####.....]  50%  10 of 20 questions, 2.5 a second, 4 s left".
std::string progress_line(const std::string& label, uint64_t num_done, uint64_t num_total, double seconds,
                          const std::string& things = {});

}  // namespace cachalot
