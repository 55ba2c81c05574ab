#include "serve/server.h"

#include <pthread.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <mutex>
#include <optional>
#include <thread>

#include "base/log.h"

namespace cachalot {
namespace {

// SIGTERM and SIGINT are waited for, not handled: blocked here before any thread starts, so that all inherit it.
class StopSignals {
 public:
  StopSignals() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGTERM);
    sigaddset(&set_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set_, &before_);
  }
  ~StopSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

  int wait() const {
    int signal = 0;
    sigwait(&set_, &signal);
    return signal;
  }
  bool arrived_within(std::chrono::milliseconds time) const {
    const timespec timeout{.tv_sec = time.count() / 1000, .tv_nsec = time.count() % 1000 * 1'000'000};
    return sigtimedwait(&set_, nullptr, &timeout) > 0;
  }

 private:
  sigset_t set_, before_;
};

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
