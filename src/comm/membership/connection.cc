#include "comm/membership/connection.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <utility>

#include "base/log.h"

namespace cachalot::control {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

void prepare_socket(tcp::socket& socket) {
  error_code ignored;  // a connection that breaks at once is found broken by the first read
  socket.set_option(tcp::no_delay(true), ignored);
  fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
}

Connection::Connection(tcp::socket socket, uint32_t epoch, size_t max_receive_bytes)
    : socket_(std::move(socket)),
      finish_timer_(socket_.get_executor()),
      epoch_(epoch),
      max_receive_bytes_(max_receive_bytes) {
  prepare_socket(socket_);
  error_code error;
  const tcp::endpoint remote = socket_.remote_endpoint(error);
  if (!error) {
    peer_address_ = remote.address().to_string();
    peer_ = fmt::format("{}:{}", peer_address_, remote.port());
  }
}

void Connection::set_send_timeout(std::chrono::milliseconds timeout) {
  const auto milliseconds = static_cast<unsigned int>(timeout.count());
  setsockopt(socket_.native_handle(), IPPROTO_TCP, TCP_USER_TIMEOUT, &milliseconds, sizeof milliseconds);
}

void Connection::start(Events events) {
  events_ = std::make_shared<Events>(std::move(events));
  read_header();
}

void Connection::send_frame(std::string frame) {
  if (ended_ || finishing_ || sending_failed_) return;
  unsent_.push_back(std::move(frame));
  if (unsent_.size() == 1) write_next();
}

// A handler that throws ends its connection with a word: it would stay open, and nobody would read it any more.
template <class Body>
void Connection::attempt(Body body) {
  if (ended_) return;
  try {
    body();
  } catch (const std::exception& exception) {
    log::error("a control connection to {} ends: {}", peer_, exception.what());
    if (!ended_) end({.code = ErrorCode::kInternal, .message = exception.what()});
  }
}

void Connection::write_next() {
  asio::async_write(socket_, asio::buffer(unsent_.front()), [self = shared_from_this()](error_code error, size_t) {
    self->attempt([&] {
      if (error) {
        // What the peer said before it went may still lie unread, and says more: the reader ends the connection.
        self->sending_failed_ = true;
        return self->unsent_.clear();
      }
      self->unsent_.pop_front();
      if (!self->unsent_.empty())
        self->write_next();
      else if (self->finishing_)
        self->shut_down_sending();
    });
  });
}

void Connection::read_header() {
  asio::async_read(socket_, asio::buffer(header_), [self = shared_from_this()](error_code error, size_t size) {
    self->attempt([&] {
      const std::string_view bytes(self->header_.data(), size);
      // What a stranger says is worth more than that it went away meanwhile.
      if (error && size == 0) return self->end_read(error);
      Result<FrameHeader> header = decode_header(bytes, self->max_receive_bytes_);
      if (!header) return self->end(header.error());
      self->read_payload(*header);
    });
  });
}

void Connection::read_payload(FrameHeader header) {
  frame_.header = header;
  frame_.payload.resize(header.length);
  asio::async_read(socket_, asio::buffer(frame_.payload), [self = shared_from_this()](error_code error, size_t) {
    self->attempt([&] {
      if (error) return self->end_read(error);
      self->deliver();
      if (!self->ended_) self->read_header();
    });
  });
}

void Connection::deliver() {
  if (finishing_) return;
  const std::shared_ptr<Events> events = events_;
  try {
    events->frame(frame_);
  } catch (const std::exception& exception) {
    // Another one follows; of all other messages there is only one.
    if (frame_.header.type != MessageType::kHeartbeat) throw;
    log::error("a heartbeat from {} is passed over: {}", peer_, exception.what());
  }
}

void Connection::finish() {
  if (ended_ || finishing_) return;
  finishing_ = true;
  finish_timer_.expires_after(std::chrono::milliseconds(500));
  finish_timer_.async_wait([self = shared_from_this()](error_code error) {
    if (!error && !self->ended_) self->end({.code = ErrorCode::kUnavailable, .message = ""});
  });
  if (unsent_.empty()) shut_down_sending();
}

void Connection::shut_down_sending() {
  error_code ignored;
  socket_.shutdown(tcp::socket::shutdown_send, ignored);
}

void Connection::end_read(error_code error) {
  end({.code = ErrorCode::kUnavailable, .message = error == asio::error::eof ? "" : error.message()});
}

void Connection::end(const Error& error) {
  const std::shared_ptr<Events> events = events_;
  close();
  events->closed(error);
}

void Connection::close() {
  ended_ = true;
  events_.reset();
  finish_timer_.cancel();
  error_code ignored;
  socket_.close(ignored);
}

}  // namespace cachalot::control
