#pragma once

#include <deque>
#include <string>
#include <vector>

namespace cachalot {

// Follows a log file that another process writes, from where it ended when this began.
class LogTail {
 public:
  explicit LogTail(std::string path);
  // The whole lines since the last call.
  std::vector<std::string> new_lines();
  // The last few lines so far, for whoever asks why that process ended.
  const std::deque<std::string>& last_lines() const { return last_lines_; }

 private:
  std::string path_, rest_;
  int64_t offset_ = 0;
  std::deque<std::string> last_lines_;
};

}  // namespace cachalot
