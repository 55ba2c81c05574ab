#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <memory>

namespace cachalot::http {

// Closes a socket whose work is not done in time. Lives beside the socket and is used on its strand. Moving the
// deadline later costs no timer operation: the timer looks again when it fires.
class Deadline {
 public:
  explicit Deadline(boost::asio::ip::tcp::socket& socket) : socket_(socket), timer_(socket.get_executor()) {}

  // `owner` keeps this object alive while the timer runs.
  void arm(std::chrono::milliseconds timeout, std::shared_ptr<void> owner) {
    expiry_ = Clock::now() + timeout;
    if (!waiting_ || timer_.expiry() > expiry_) wait(std::move(owner));
  }
  void disarm() { expiry_ = Clock::time_point::max(); }
  bool expired() const { return expired_; }
  // For good: lets go of the owner.
  void stop() {
    disarm();
    timer_.cancel();
  }

 private:
  using Clock = std::chrono::steady_clock;

  void wait(std::shared_ptr<void> owner) {
    waiting_ = true;
    timer_.expires_at(expiry_);  // cancels an earlier wait, whose handler then finds itself outdated
    timer_.async_wait([this, owner = std::move(owner), wait = ++num_waits_](auto) mutable {
      if (wait != num_waits_) return;
      waiting_ = false;
      if (expiry_ == Clock::time_point::max()) return;
      if (Clock::now() < expiry_) return this->wait(std::move(owner));
      expired_ = true;
      boost::system::error_code ignored;
      socket_.close(ignored);
    });
  }

  boost::asio::ip::tcp::socket& socket_;
  boost::asio::steady_timer timer_;
  Clock::time_point expiry_ = Clock::time_point::max();
  bool waiting_ = false, expired_ = false;
  uint64_t num_waits_ = 0;
};

}  // namespace cachalot::http
