#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <string>

#include "comm/membership/network.h"

namespace cachalot::control {

// The control plane's network of a process: TCP, the system's clock and its random bytes, on the thread that runs the
// context.
class AsioNetwork : public Network {
 public:
  explicit AsioNetwork(boost::asio::io_context& context);

  Time now() const override { return std::chrono::steady_clock::now(); }
  Nonce random_nonce() override;
  std::unique_ptr<Timer> make_timer(std::function<void()> on_time) override;
  Status listen(const std::string& host, uint16_t port, std::function<void(ConnectionPtr)> taken,
                std::function<void(const std::string& why)> failed) override;
  void connect(const std::string& host, uint16_t port, std::chrono::milliseconds timeout,
               std::function<void(Result<ConnectionPtr>)> connected) override;

  // After an event whose handling has thrown (no memory): connections are taken again.
  void resume();

 private:
  void accept();

  boost::asio::io_context& context_;
  boost::asio::ip::tcp::acceptor acceptor_;
  boost::asio::steady_timer accept_pause_;
  std::function<void(ConnectionPtr)> taken_;
  std::function<void(const std::string& why)> failed_;
  bool accepting_ = false;
};

// Heartbeats cost next to nothing, and late ones cost the group: where the system allows it, they go before everything
// that computes, as in other programs that watch over a cluster. Niceness alone counts only among the processes of a
// session where the kernel groups them so (sched_autogroup). Processes that this thread starts do not inherit it.
void prefer_this_thread();

}  // namespace cachalot::control
