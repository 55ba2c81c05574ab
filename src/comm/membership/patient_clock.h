#pragma once

#include <algorithm>
#include <chrono>

namespace cachalot::control {

// Time as a watcher of others may count it: without the time for which this process was itself held up (stopped, in a
// paused virtual machine, on a starved core), which its own timers show by coming late. Silence that is measured with
// it is silence that this process was there to hear.
class PatientClock {
 public:
  using Time = std::chrono::steady_clock::time_point;
  using Duration = std::chrono::steady_clock::duration;

  explicit PatientClock(Duration slack) : slack_(slack) {}

  // To be told each time a timer that was set for `planned` comes, at `now`. False: it came late by more than the
  // slack. Then messages may lie unread, and nobody should be judged before another round of reading.
  bool woke(Time planned, Time now) {
    const Duration late = now - planned - slack_;
    held_up_ += std::max(late, Duration::zero());
    return late <= Duration::zero();
  }
  Time counted(Time now) const { return now - held_up_; }

 private:
  Duration slack_;
  Duration held_up_{0};
};

}  // namespace cachalot::control
