#pragma once

#include <chrono>
#include <csignal>

namespace cachalot {

// SIGTERM and SIGINT are waited for, not handled: blocked by this object, which is made before any thread starts, so
// that all inherit it.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  int wait() const;
  bool arrived_within(std::chrono::milliseconds time) const;

 private:
  sigset_t set_, before_;
};

}  // namespace cachalot
