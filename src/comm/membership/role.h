#pragma once

#include <chrono>
#include <string>

#include "comm/membership/patient_clock.h"

namespace cachalot::control {

// A process's end of the control plane: the Hub on rank 0, a Spoke on every other. Used by the control thread only.
class Role {
 public:
  virtual ~Role() = default;
  virtual void start() = 0;
  virtual void stop_joining() = 0;  // gives up a start that is not decided
  virtual void set_ready() = 0;     // this rank has loaded
  virtual void process_ended(int rank) = 0;
  // After an event whose handling has thrown (no memory): what repeats itself, a timer or the taking of connections,
  // goes on.
  virtual void resume() = 0;
  virtual void give_up(std::string why) = 0;
  virtual void leave() = 0;
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
  static std::string silence_text(std::chrono::steady_clock::duration silence);
};

inline constexpr std::string_view kProcessDied = "its process died";
inline constexpr std::string_view kConnectionClosed =
    "its process died (the control connection closed without a goodbye)";

}  // namespace cachalot::control
