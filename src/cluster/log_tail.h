#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace cachalot {

// Follows a log file that another process writes, from where it ended when this began.
class LogTail {
 public:
  explicit LogTail(std::string path);
  // The whole lines since the last call.
  std::vector<std::string> new_lines();

 private:
  std::string path_, rest_;
  int64_t offset_ = 0;
};

}  // namespace cachalot
