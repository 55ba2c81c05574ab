#pragma once

#include <chrono>
#include <memory>

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

  // Asks anew if the last question was asked `interval` ago and is through.
  void ask(std::chrono::milliseconds interval);
  // Forgets what it heard: the server is started anew.
  void reset();
  // The last answer's status; 0: none yet.
  int status() const;
  // How long it has not answered any more; nothing heard since the reset counts from there.
  Clock::duration silence() const;

 private:
  struct Heard;

  const http::Client& client_;
  http::Url url_;
  Clock::time_point asked_;
  std::shared_ptr<Heard> heard_;  // shared with the call under way
  std::shared_ptr<http::ClientCall> call_;
};

}  // namespace cachalot
