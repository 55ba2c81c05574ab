#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <string_view>

namespace cachalot::control {

// A process's end of the control plane: the Hub on rank 0, a Spoke on every other. Used by the control thread only.
class Role {
 public:
  virtual ~Role() = default;
  virtual void start() = 0;
  virtual void stop_joining() = 0;  // gives up a start that is not decided
  virtual void set_ready() = 0;     // this rank has loaded
  virtual void process_ended(int rank) = 0;
  // After an event whose handling has thrown (no memory): timers go on.
  virtual void resume() = 0;
  virtual void give_up(std::string why) = 0;
  virtual void leave() = 0;
};

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

// What follows from the time after which a silent rank must be known by all.
struct Timing {
  std::chrono::milliseconds failure_timeout;

  std::chrono::milliseconds heartbeat_interval() const { return failure_timeout / 4; }
  // A tenth is left for telling everyone.
  std::chrono::milliseconds silence_limit() const { return failure_timeout * 9 / 10; }
  // Timers that come later than this mean that this process was held up.
  std::chrono::milliseconds slack() const { return failure_timeout / 10; }
  // Heartbeats find a broken connection sooner; this bounds how long the system keeps one.
  std::chrono::milliseconds send_timeout() const { return failure_timeout * 2; }

  // The longest silence of a peer, who may be late: where cores are starved a group is slower to find a loss, but by no
  // more than the timeout again. Loading takes cores, disks and memory, and no request waits for it.
  std::chrono::steady_clock::duration silence_limit(const Lateness& lateness, bool is_loading) const {
    return silence_limit() * (is_loading ? 3 : 1) +
           std::min<std::chrono::steady_clock::duration>(lateness.lately(), failure_timeout);
  }

  // "nothing has come from it for 0.9 s"
  static std::string silence_text(std::chrono::steady_clock::duration silence) {
    return fmt::format("nothing has come from it for {:.1f} s", std::chrono::duration<double>(silence).count());
  }
};

inline constexpr std::string_view kProcessDied = "its process died";
inline constexpr std::string_view kConnectionClosed =
    "its process died (the control connection closed without a goodbye)";

}  // namespace cachalot::control
