#include "serve/load_line.h"

#include <fmt/format.h>

#include <cstdio>

namespace cachalot {
namespace {

constexpr std::string_view kMark = "load-line: rank ";

}  // namespace

std::string load_line(const RankProgress& load) {
  return fmt::format("{}{} {}%", kMark, load.rank, load.percent);
}

std::optional<RankProgress> parse_load_line(std::string_view line) {
  const size_t begin = line.find(kMark);
  if (begin == std::string_view::npos) return std::nullopt;
  RankProgress load;
  const std::string rest(line.substr(begin + kMark.size()));
  if (std::sscanf(rest.c_str(), "%d %d%%", &load.rank, &load.percent) != 2) return std::nullopt;
  return load;
}

bool LoadLines::due(int percent) {
  const auto now = std::chrono::steady_clock::now();
  if (percent == last_percent_ || (percent < 100 && now - last_ < std::chrono::milliseconds(250))) return false;
  last_percent_ = percent;
  last_ = now;
  return true;
}

}  // namespace cachalot
