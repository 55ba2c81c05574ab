#include "base/progress.h"

#include <unistd.h>

#include "base/log.h"

namespace cachalot {
namespace {

constexpr int kBarWidth = 24;
constexpr std::chrono::milliseconds kRedraw{100}, kRepeatLine{10'000};

}  // namespace

std::string bytes_text(uint64_t num_bytes) {
  if (num_bytes < 1000) return fmt::format("{} bytes", num_bytes);
  auto value = static_cast<double>(num_bytes) / 1000;
  for (const char* unit : {"kB", "MB", "GB"}) {
    if (value < 999.95) return fmt::format("{:.1f} {}", value, unit);
    value /= 1000;
  }
  return fmt::format("{:.1f} TB", value);
}

std::string binary_bytes(double bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  for (; bytes >= 1024 && unit + 1 < std::size(kUnits); unit++) bytes /= 1024;
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, kUnits[unit]);
}

std::string progress_line(const std::string& label, uint64_t num_done, uint64_t num_total, double seconds,
                          const std::string& things) {
  const bool is_bytes = things.empty();
  const double share = num_total ? std::min(1.0, static_cast<double>(num_done) / static_cast<double>(num_total)) : 1.0;
  const auto filled = static_cast<size_t>(share * kBarWidth);
  std::string line =
      fmt::format("{} [{:#<{}}{:.<{}}] {:3.0f}%  ", label, "", filled, "", kBarWidth - filled, share * 100);
  line += is_bytes ? fmt::format("{} of {}", bytes_text(num_done), bytes_text(num_total))
                   : fmt::format("{} of {} {}", num_done, num_total, things);
  if (seconds > 0 && num_done > 0) {
    const double speed = static_cast<double>(num_done) / seconds;
    line += is_bytes ? fmt::format(", {}/s", bytes_text(static_cast<uint64_t>(speed)))
                     : fmt::format(", {:.1f} a second", speed);
    line += fmt::format(", {:.0f} s left", static_cast<double>(num_total - std::min(num_done, num_total)) / speed);
  }
  return line;
}

ProgressLines::ProgressLines(std::FILE* to, std::chrono::milliseconds pause)
    : to_(to), on_terminal_(isatty(fileno(to)) == 1), pause_(on_terminal_ ? kRedraw : pause) {}

ProgressLines::~ProgressLines() {
  if (on_terminal_ && !shown_.empty()) log::print(to_, "\n");
}

void ProgressLines::show(const std::vector<std::string>& lines, bool last) {
  const auto now = std::chrono::steady_clock::now();
  if (!last && now - last_ < pause_) return;
  last_ = now;
  // Back to the first line; the cursor stays behind the last one, so that a line of the log never gets lost.
  if (on_terminal_ && shown_.size() > 1) log::print(to_, "\x1b[{}A", shown_.size() - 1);
  for (size_t idx = 0; idx < lines.size(); idx++) {
    if (on_terminal_) {
      log::print(to_, "\r{}\x1b[K{}", lines[idx], idx + 1 < lines.size() ? "\n" : "");
    } else if (idx >= shown_.size() || lines[idx] != shown_[idx]) {
      if (to_ == stderr && log::current_format() == log::Format::kJson)
        log::info("{}", lines[idx]);
      else
        log::print(to_, "{}\n", lines[idx]);
    }
  }
  shown_ = lines;
}

ProgressBar::ProgressBar(std::string label, std::string things)
    : label_(std::move(label)), things_(std::move(things)), lines_(stderr, kRepeatLine) {}

void ProgressBar::update(uint64_t num_done, uint64_t num_total) {
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  lines_.show({progress_line(label_, num_done, num_total, seconds, things_)}, num_done >= num_total);
}

}  // namespace cachalot
