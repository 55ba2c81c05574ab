#pragma once

#include <chrono>
#include <memory>

#include "base/error.h"
#include "config/options.h"

namespace cachalot::router {

// One address for many replicas, from start() until stop().
class RunningRouter {
 public:
  using Deadline = std::chrono::steady_clock::time_point;

  // Listens, whether or not the replicas are there yet. Errors: the options; the address; too few open files allowed.
  static Result<std::unique_ptr<RunningRouter>> start(RouterOptions options);
  ~RunningRouter();
  RunningRouter(const RunningRouter&) = delete;
  RunningRouter& operator=(const RunningRouter&) = delete;

  uint16_t port() const;

  // Takes no more connections, lets running answers finish until the deadline, then cuts them.
  void stop(Deadline deadline);
  // While another thread waits in stop(): cuts them now.
  void end_answers();

 private:
  struct Parts;
  explicit RunningRouter(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

// Runs a router until SIGTERM, SIGINT or SIGHUP, drains, and returns. A second signal ends the drain.
Status run_router(const RouterOptions& options);

}  // namespace cachalot::router
