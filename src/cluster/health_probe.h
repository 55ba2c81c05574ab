#pragma once

#include <chrono>
#include <optional>

#include "http/client.h"

namespace cachalot {

// Asks one server now and then how it is (GET /health), without anybody waiting for the answer. Used by one thread.
class HealthProbe {
 public:
  using Clock = std::chrono::steady_clock;

  // Borrows the client. `url`: of the server; its path does not matter.
  HealthProbe(const http::Client& client, http::Url url);
  ~HealthProbe();
  HealthProbe(const HealthProbe&) = delete;
  HealthProbe& operator=(const HealthProbe&) = delete;

  // Hears what has come, and asks anew if the last question was asked `interval` ago and is through.
  void ask(std::chrono::milliseconds interval);
  // Forgets what it heard: the server is started anew.
  void reset();
  // The last answer's status; 0: none yet.
  int status() const { return status_; }
  // How long it has not answered any more; nothing heard since the reset counts from there.
  Clock::duration silence() const { return Clock::now() - heard_; }

 private:
  void hear();

  const http::Client& client_;
  http::Url url_;
  Clock::time_point asked_, heard_ = Clock::now();
  int status_ = 0;
  std::optional<http::Running<Result<http::Response>>> call_;  // under way
};

}  // namespace cachalot
