#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.h"

// What our coroutines need beside Asio. A coroutine runs on one strand: that of the connection, or of whoever started
// it. It is given up by Asio's cancellation: what it awaits ends, and what it awaits next throws operation_aborted, so
// that its destructors clean up.
namespace cachalot::http {

using boost::asio::awaitable;

// How an operation is awaited that may fail: a tuple of its error and its result instead of an exception.
inline constexpr auto kResult = boost::asio::as_tuple(boost::asio::use_awaitable);

// Ends what takes too long. One timer for whatever is under way: moving the deadline costs no timer operation, the
// timer looks again when it fires. Used on one strand, on which its owner calls stop() before it goes; the timer's
// handler shares the state, so that it may outlive both.
class Timeout {
 public:
  // `expire` is called on the strand; only while a deadline is set.
  Timeout(boost::asio::any_io_executor strand, std::function<void()> expire)
      : state_(std::make_shared<State>(std::move(strand), std::move(expire))) {}

  void arm(std::chrono::milliseconds timeout) {
    state_->has_expired = false;
    state_->deadline = Clock::now() + timeout;
    if (!state_->is_waiting || state_->timer.expiry() > state_->deadline) wait(state_);
  }
  void disarm() { state_->deadline = Clock::time_point::max(); }
  // Since the last arm().
  bool has_expired() const { return state_->has_expired; }
  void stop() {
    disarm();
    state_->expire = nullptr;
    state_->timer.cancel();
  }

 private:
  using Clock = std::chrono::steady_clock;
  struct State {
    State(boost::asio::any_io_executor strand, std::function<void()> expire)
        : timer(std::move(strand)), expire(std::move(expire)) {}
    boost::asio::steady_timer timer;
    std::function<void()> expire;
    Clock::time_point deadline = Clock::time_point::max();
    bool is_waiting = false, has_expired = false;
    uint64_t num_waits = 0;
  };

  static void wait(const std::shared_ptr<State>& state) {
    state->is_waiting = true;
    state->timer.expires_at(state->deadline);  // cancels an earlier wait, whose handler then finds itself outdated
    state->timer.async_wait([weak = std::weak_ptr(state), wait = ++state->num_waits](auto) {
      const auto state = weak.lock();
      if (!state || wait != state->num_waits) return;
      state->is_waiting = false;
      if (state->deadline == Clock::time_point::max()) return;
      if (Clock::now() < state->deadline) return Timeout::wait(state);
      state->has_expired = true;
      state->deadline = Clock::time_point::max();
      if (state->expire) state->expire();
    });
  }

  std::shared_ptr<State> state_;
};

// What threads leave for one coroutine. Shared by both sides; the coroutine's side closes it, after which nothing is
// kept, nobody is woken, and nothing of Asio's is held.
template <class T>
class Mailbox : public std::enable_shared_from_this<Mailbox<T>> {
 public:
  // `max_items`: that may wait; with one more they are dropped, and the coroutine gets none.
  explicit Mailbox(boost::asio::any_io_executor strand, size_t max_items = SIZE_MAX)
      : max_items_(max_items), wake_(std::in_place, std::move(strand), std::chrono::steady_clock::time_point::max()) {}

  // From any thread.
  void put(T item) {
    const std::lock_guard lock(mutex_);
    if (is_full_ || !wake_) return;
    items_.push_back(std::move(item));
    if (items_.size() > max_items_) {
      is_full_ = true;
      items_.clear();
    }
    if (std::exchange(is_called_, true)) return;
    boost::asio::post(wake_->get_executor(), [self = this->shared_from_this()] {
      if (self->wake_) self->wake_->cancel();
    });
  }
  void close() {
    const std::lock_guard lock(mutex_);
    items_.clear();
    wake_.reset();
  }

  // All that is there; waits until there is something, and gives nothing at all if there is nothing before the
  // deadline. None: it was too much.
  awaitable<std::optional<std::vector<T>>> take_before(std::chrono::steady_clock::time_point deadline) {
    wake_->expires_at(deadline);
    for (;;) {
      {
        const std::lock_guard lock(mutex_);
        is_called_ = false;
        if (is_full_ || !items_.empty()) co_return std::exchange(items_, {});
      }
      const auto [error] = co_await wake_->async_wait(kResult);
      if (!error) co_return std::nullopt;
    }
  }

 private:
  const size_t max_items_;
  std::mutex mutex_;                               // guards what follows
  std::optional<boost::asio::steady_timer> wake_;  // due at the deadline; cancelling it wakes the coroutine
  std::vector<T> items_;
  bool is_called_ = false;  // the coroutine will look
  bool is_full_ = false;
};

// Runs `work` on a thread of another context, and goes on here with what it gives. It cannot be given up: what it
// refers to lives until it is done.
template <class Work>
awaitable<std::invoke_result_t<Work>> run_on(boost::asio::io_context& context, Work work) {
  struct There {
    static awaitable<std::invoke_result_t<Work>> run(Work work) { co_return work(); }
  };
  co_return co_await boost::asio::co_spawn(context, There::run(std::move(work)), boost::asio::use_awaitable);
}

// A coroutine that was started from outside, which gives a Result or a Status. Dropping this lets it run on.
template <class T>
class Running {
 public:
  // Blocks; never on an I/O thread. Once.
  T wait() { return result_.get(); }
  bool is_done() const { return result_.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }
  // From any thread: it ends with kCancelled, unless it is done.
  void cancel() const {
    boost::asio::post(control_->strand,
                      [control = control_] { control->signal.emit(boost::asio::cancellation_type::terminal); });
  }

 private:
  friend class IoThreads;
  struct Control {
    explicit Control(boost::asio::io_context& context) : strand(boost::asio::make_strand(context)) {}
    boost::asio::strand<boost::asio::io_context::executor_type> strand;
    boost::asio::cancellation_signal signal;
  };
  std::shared_ptr<Control> control_;
  std::future<T> result_;
};

// The threads on which connections and coroutines live. Outlives the servers and clients that use it.
class IoThreads {
 public:
  explicit IoThreads(int num_threads);
  // Joins when nothing is left to do: every connection and every coroutine has ended.
  ~IoThreads();
  IoThreads(const IoThreads&) = delete;
  IoThreads& operator=(const IoThreads&) = delete;

  boost::asio::io_context& context() const { return context_; }

  // Starts a coroutine on a strand of its own.
  template <class T>
  Running<T> start(awaitable<T> work) const {
    Running<T> running;
    running.control_ = std::make_shared<typename Running<T>::Control>(context());
    auto promise = std::make_shared<std::promise<T>>();
    running.result_ = promise->get_future();
    auto on_end = [promise, control = running.control_](const std::exception_ptr& exception, T result) {
      promise->set_value(exception ? T(std::unexpected(describe(exception))) : std::move(result));
    };
    boost::asio::co_spawn(running.control_->strand, std::move(work),
                          boost::asio::bind_cancellation_slot(running.control_->signal.slot(), std::move(on_end)));
    return running;
  }
  // Its result; blocks, never on an I/O thread.
  template <class T>
  T wait(awaitable<T> work) const {
    return start(std::move(work)).wait();
  }

 private:
  static Error describe(const std::exception_ptr& exception);

  mutable boost::asio::io_context context_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::vector<std::jthread> threads_;
};

}  // namespace cachalot::http
