#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>

// SIGTERM, SIGINT and SIGHUP ask a process to end. They are blocked in all of its threads and taken by one of its own,
// which sees to it that the process ends with its children, whatever its other threads wait for: at once, unless
// somebody has taken that upon itself (StopSignals).
namespace cachalot {

// By main(), before all else: later threads inherit what it blocks. SIGHUP or SIGTERM that is ignored stays so, as
// nohup wants it; SIGINT is taken though a shell's script ignores it for what it starts in the background: whoever
// sends it there means it. From now on SIGPIPE does nothing either: whoever writes sees that nobody reads any more. The
// descriptors of input, output and errors are open afterwards, so that none of them is taken by a file or a socket.
void take_stop_signals();

// Stops at the first signal; its callbacks run on a thread of their own, and the end waits for them, for a second.
std::stop_token stop_token_of_signals();
// The first signal that has come; 0: none.
int received_stop_signal();
// As a shell has it: 128 + the first signal.
int status_of_stop_signal();
std::string signal_name(int number);  // "SIGTERM"

// While one lives, its owner ends the process by itself at a first signal. It is ended all the same `patience` after
// that (absent: never), and shortly after a second one. One at a time.
class StopSignals {
 public:
  explicit StopSignals(std::optional<std::chrono::milliseconds> patience);
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // The next one, each once; 0: wake() was called instead, or none came within the time.
  int wait();
  int wait_for(std::chrono::milliseconds time);
  void wake();     // from any thread
  int fd() const;  // readable while there is something to be had from wait()
};

// While one lives, the first SIGINT calls `stop`, on the signals' thread, and is no reason to end. The handler's end
// waits for that call; no other signal is taken during it.
class InterruptHandler {
 public:
  explicit InterruptHandler(std::function<void()> stop);
  ~InterruptHandler();
  InterruptHandler(const InterruptHandler&) = delete;
  InterruptHandler& operator=(const InterruptHandler&) = delete;
};

}  // namespace cachalot
