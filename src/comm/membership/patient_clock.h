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

// How late a peer's messages have come lately: where its cores are starved, by so much the next one may be late again.
class Lateness {
 public:
  using Duration = PatientClock::Duration;

  explicit Lateness(Duration slack) : slack_(slack) {}

  // A message came `after` the moment from which it was due. What is forgotten at each message is an eighth.
  void came(Duration after) { lately_ = std::max(after - slack_, lately_ - lately_ / 8); }
  Duration lately() const { return std::max(lately_, Duration::zero()); }

 private:
  Duration slack_;
  Duration lately_{0};
};

}  // namespace cachalot::control
