#include "serve/server.h"

#include <chrono>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>

#include "base/log.h"
#include "base/stop_signals.h"

namespace cachalot {
namespace {

// A second signal ends what still runs.
void stop(RunningServer& server, StopSignals& signals, std::chrono::seconds patience) {
  std::jthread waiter([&](const std::stop_token& stopped) {
    while (!stopped.stop_requested()) {
      if (signals.wait_for(std::chrono::milliseconds(200)) == 0) continue;
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
  std::mutex mutex;
  std::optional<Error> failure;  // of a round; guarded by the mutex
  std::stop_source failed;
  ASSIGN_OR_RETURN(const auto server, RunningServer::start(options, [&](const Error& error) {
                     if (options.parallel.wait_on_failure) return;
                     {
                       const std::lock_guard lock(mutex);
                       failure = error;
                     }
                     failed.request_stop();
                   }));
  StopSignals signals(options.end_time());
  const std::stop_callback wake(failed.get_token(), [&] { signals.wake(); });
  const int signal = signals.wait();
  if (signal != 0) {
    log::info("{}: no new requests; running ones have {} s", signal_name(signal), options.drain_seconds);
  }
  stop(*server, signals, std::chrono::seconds(options.drain_seconds));
  const std::lock_guard lock(mutex);
  if (failure) return std::unexpected(*failure);
  log::info("stopped");
  return {};
}

}  // namespace cachalot
