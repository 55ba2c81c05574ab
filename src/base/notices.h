#pragma once

#include <algorithm>
#include <chrono>

namespace cachalot::control {

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

}  // namespace cachalot::control
