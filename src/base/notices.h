#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

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

}  // namespace cachalot
