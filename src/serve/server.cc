#include "serve/server.h"

#include <unistd.h>

#include <chrono>
#include <csignal>
#include <mutex>
#include <optional>
#include <thread>

#include "base/log.h"
#include "base/stop_signals.h"

namespace cachalot {
namespace {

// A second signal ends what still runs.
void stop(RunningServer& server, const StopSignals& signals, std::chrono::seconds patience) {
  std::jthread waiter([&](const std::stop_token& stopped) {
    while (!stopped.stop_requested()) {
      if (!signals.arrived_within(std::chrono::milliseconds(200))) continue;
      log::warn("second signal: the running answers are ended");
      server.end_answers();
      return;
    }
  });
  server.stop(std::chrono::steady_clock::now() + patience);
}

}  // namespace

Status run_server(const ServeOptions& options) {
  if (options.parallel.rank_board_fd >= 0) return run_started_rank(group_options(options));
  const StopSignals signals;
  std::mutex mutex;
  std::optional<Error> failure;  // of a round; guarded by the mutex
  ASSIGN_OR_RETURN(const auto server, RunningServer::start(options, [&](const Error& error) {
                     if (options.parallel.wait_on_failure) return;
                     {
                       const std::lock_guard lock(mutex);
                       failure = error;
                     }
                     kill(getpid(), SIGTERM);  // as whoever stops this server would
                   }));
  const int signal = signals.wait();
  const auto failed = [&] {
    const std::lock_guard lock(mutex);
    return failure;
  }();
  if (!failed) {
    log::info("{}: no new requests; running ones have {} s", signal == SIGTERM ? "SIGTERM" : "SIGINT",
              options.drain_seconds);
  }
  stop(*server, signals, std::chrono::seconds(options.drain_seconds));
  if (failed) return std::unexpected(*failed);
  log::info("stopped");
  return {};
}

}  // namespace cachalot
