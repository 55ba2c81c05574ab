#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "base/error.h"
#include "comm/membership/wire.h"

namespace cachalot::control {

// A TCP connection that carries frames. Used by the control thread only, under which all its events come.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  struct Events {
    std::function<void(const Frame&)> frame;
    // Once, unless close() came before: the peer closed it (kUnavailable), sent what is no frame (kCorrupt), finish()
    // is through, or there is no memory for what came (kInternal).
    std::function<void(const Error&)> closed;
  };

  Connection(boost::asio::ip::tcp::socket socket, uint32_t epoch, size_t max_receive_bytes);
  void start(Events events);

  template <class Message>
  void send(const Message& message) {
    send_frame(encode_frame(message, epoch_));
  }
  // The peer takes nothing at the moment: more heartbeats would only pile up.
  bool has_unsent() const { return !unsent_.empty(); }
  void set_max_receive_bytes(size_t max_bytes) { max_receive_bytes_ = max_bytes; }
  // What is sent and not acknowledged for so long breaks the connection.
  void set_send_timeout(std::chrono::milliseconds timeout);

  // Sends what is queued and lets the peer close first, so that it gets everything; after half a second, closes. Frames
  // that still come are dropped.
  void finish();
  void close();
  bool ended() const { return ended_; }

  const std::string& peer() const { return peer_; }                  // "10.0.0.7:41022"
  const std::string& peer_address() const { return peer_address_; }  // "10.0.0.7"

 private:
  void send_frame(std::string frame);
  void write_next();
  void read_header();
  void read_payload(FrameHeader header);
  void deliver();
  template <class Body>
  void attempt(Body body);
  void end_read(boost::system::error_code error);
  void end(const Error& error);
  void shut_down_sending();

  boost::asio::ip::tcp::socket socket_;
  boost::asio::steady_timer finish_timer_;
  uint32_t epoch_;
  size_t max_receive_bytes_;
  std::string peer_, peer_address_;
  std::shared_ptr<Events> events_;  // held by whoever calls one: close() may come from inside
  std::deque<std::string> unsent_;
  std::array<char, kFrameHeaderBytes> header_{};
  Frame frame_;
  bool finishing_ = false, sending_failed_ = false, ended_ = false;
};

// Sets what every control socket needs: no delay, and no copy of it in children, which would keep a connection open
// after its owner's death.
void prepare_socket(boost::asio::ip::tcp::socket& socket);

}  // namespace cachalot::control
