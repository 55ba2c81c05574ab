#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

namespace cachalot {

// How far one rank has loaded, as a line of the log: for whoever started the server and shows the progress of all
// ranks.
struct RankProgress {
  int rank = 0;
  int percent = 0;
};

std::string load_line(const RankProgress& load);
// From a whole line of the log; nothing if it is another one.
std::optional<RankProgress> parse_load_line(std::string_view line);

// Says when a line is due: at the end, and else a few times a second at most.
class LoadLines {
 public:
  bool due(int percent);

 private:
  int last_percent_ = -1;
  std::chrono::steady_clock::time_point last_;
};

}  // namespace cachalot
