#include "base/stop_signals.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>

#include "base/file.h"
#include "base/process.h"

namespace cachalot {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// A process that has been told to end is gone with its children within two seconds; memory takes its time, too.
constexpr milliseconds kCallbacks{1'000}, kMainPath{200}, kAfterSecond{1'200}, kChildren{300};

// What the signals' thread shares with the others. Never destroyed: the thread outlives main().
struct State {
  std::mutex mutex;
  std::condition_variable callbacks_done;
  std::stop_source stop;
  std::deque<int> untaken;  // for an owner, as words of `fd`
  FileDescriptor fd{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE)};
  int num_signals = 0, first = 0;
  bool has_owner = false, are_callbacks_done = false;
  std::optional<milliseconds> patience;
  std::optional<Clock::time_point> deadline;  // when the process is ended

  std::mutex interrupt_mutex;  // held while it is called, so that its owner does not go meanwhile
  std::function<void()> on_interrupt;
};

State& state() {
  static State* const instance = new State;
  return *instance;
}

// Ignored, or in the hands of a library whose user wants it so (UCX_DEBUG_SIGNO).
bool is_taken(int signal) {
  struct sigaction action{};
  return sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_DFL;
}

[[noreturn]] void end_process() {
  kill_children(kChildren);
  _exit(status_of_stop_signal());
}

// Callbacks may wait for each other's ends, so the signals' thread does not run them.
void run_callbacks() {
  std::thread([] {
    state().stop.request_stop();
    const std::lock_guard lock(state().mutex);
    state().are_callbacks_done = true;
    state().callbacks_done.notify_all();
  }).detach();
}

void end_without_owner(std::unique_lock<std::mutex>& lock) {
  state().callbacks_done.wait_for(lock, kCallbacks, [] { return state().are_callbacks_done; });
  state().deadline = Clock::now() + (state().has_owner ? kAfterSecond : kMainPath);
}

bool take_interrupt() {
  const std::lock_guard lock(state().interrupt_mutex);
  if (!state().on_interrupt) return false;
  std::exchange(state().on_interrupt, {})();
  return true;
}

void take(int signal) {
  if (signal == SIGINT && take_interrupt()) return;
  std::unique_lock lock(state().mutex);
  const bool is_first = state().num_signals++ == 0;
  if (is_first) state().first = signal;
  state().untaken.push_back(signal);
  eventfd_write(state().fd.get(), 1);
  if (is_first) run_callbacks();
  if (!is_first) {
    const auto soon = Clock::now() + (state().has_owner ? kAfterSecond : milliseconds(0));
    state().deadline = std::min(state().deadline.value_or(soon), soon);
  } else if (!state().has_owner) {
    end_without_owner(lock);
  } else if (state().patience) {
    state().deadline = Clock::now() + *state().patience;
  }
}

std::optional<milliseconds> time_left() {
  const std::lock_guard lock(state().mutex);
  if (!state().deadline) return std::nullopt;
  return std::max(std::chrono::ceil<milliseconds>(*state().deadline - Clock::now()), milliseconds(0));
}

[[noreturn]] void watch_signals(const sigset_t& handled) {
  for (;;) {
    const std::optional<milliseconds> left = time_left();
    const milliseconds wait = left.value_or(milliseconds(60'000));
    const timespec timeout{.tv_sec = wait.count() / 1000, .tv_nsec = wait.count() % 1000 * 1'000'000};
    const int signal = sigtimedwait(&handled, nullptr, &timeout);
    if (signal > 0) take(signal);
    if (const auto now_left = time_left(); now_left && now_left->count() == 0) end_process();
  }
}

}  // namespace

void take_stop_signals() {
  for (int fd = 0; fd >= 0 && fd <= STDERR_FILENO;) {
    fd = open("/dev/null", O_RDWR);
    if (fd > STDERR_FILENO) close(fd);
  }
  signal(SIGPIPE, SIG_IGN);
  signal(SIGINT, SIG_DFL);
  sigset_t handled;
  sigemptyset(&handled);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    if (!is_taken(signal)) sigaddset(&handled, signal);
  }
  pthread_sigmask(SIG_BLOCK, &handled, nullptr);
  std::thread(watch_signals, handled).detach();
}

std::stop_token stop_token_of_signals() {
  return state().stop.get_token();
}

int received_stop_signal() {
  const std::lock_guard lock(state().mutex);
  return state().first;
}

int status_of_stop_signal() {
  return 128 + received_stop_signal();
}

std::string signal_name(int number) {
  const char* name = sigabbrev_np(number);
  return name == nullptr ? "signal " + std::to_string(number) : std::string("SIG") + name;
}

StopSignals::StopSignals(std::optional<milliseconds> patience) {
  const std::lock_guard lock(state().mutex);
  state().has_owner = true;
  state().patience = patience;
  // It finds the signals that came before it, and ends by itself what has hardly begun.
  if (state().deadline) state().deadline = Clock::now() + kAfterSecond;
}

StopSignals::~StopSignals() {
  const std::lock_guard lock(state().mutex);
  state().has_owner = false;
}

int StopSignals::wait() {
  return wait_for(milliseconds(-1));
}

int StopSignals::wait_for(milliseconds time) {
  if (!readable_within(fd(), time)) return 0;
  eventfd_t taken = 0;
  eventfd_read(fd(), &taken);
  const std::lock_guard lock(state().mutex);
  if (state().untaken.empty()) return 0;
  const int signal = state().untaken.front();
  state().untaken.pop_front();
  return signal;
}

void StopSignals::wake() {
  eventfd_write(fd(), 1);
}

int StopSignals::fd() const {
  return state().fd.get();
}

InterruptHandler::InterruptHandler(std::function<void()> stop) {
  const std::lock_guard lock(state().interrupt_mutex);
  state().on_interrupt = std::move(stop);
}

InterruptHandler::~InterruptHandler() {
  const std::lock_guard lock(state().interrupt_mutex);
  state().on_interrupt = {};
}

}  // namespace cachalot
