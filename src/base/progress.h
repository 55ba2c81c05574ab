#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace cachalot {

// When to tell a person again what is still being waited for: at first soon, then less and less often.
class Notices {
 public:
  using Time = std::chrono::steady_clock::time_point;
  using Duration = std::chrono::steady_clock::duration;

  explicit Notices(Duration first) : first_(first), pause_(first) {}

  // The next one comes after the first pause. Without this, at once.
  void restart(Time now) {
    pause_ = first_;
    next_ = now + pause_;
  }
  // True: now. The pause until the next is longer by half, up to twelve times the first.
  bool due(Time now) {
    if (now < next_) return false;
    next_ = now + pause_;
    pause_ = std::min(pause_ + pause_ / 2, first_ * 12);
    return true;
  }

 private:
  Duration first_, pause_;
  Time next_{};
};

// Lines that others can cause as often as they like (strangers at a port, a lack of descriptors): the first is told at
// once, then one in each interval, which says how many there were. Used by one thread.
class Complaints {
 public:
  using Time = Notices::Time;
  using Duration = Notices::Duration;

  explicit Complaints(Duration interval = std::chrono::seconds(10)) : interval_(interval) {}

  // What is to be told now, if anything is.
  std::optional<std::string> add(Time now, std::string text) {
    num_untold_++;
    last_ = std::move(text);
    return due(now);
  }
  // The same for what add() has kept back; to be asked now and then.
  std::optional<std::string> due(Time now) {
    if (num_untold_ == 0 || now < next_) return std::nullopt;
    next_ = now + interval_;
    const uint64_t num_more = std::exchange(num_untold_, 0) - 1;
    if (num_more == 0) return std::move(last_);
    return fmt::format("{} (the last of {}; at most one line in {} s)", last_, num_more + 1,
                       std::chrono::duration_cast<std::chrono::seconds>(interval_).count());
  }

 private:
  Duration interval_;
  Time next_{};
  uint64_t num_untold_ = 0;
  std::string last_;
};

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
