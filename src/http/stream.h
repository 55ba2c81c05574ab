#pragma once

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "http/io_threads.h"
#include "http/tls.h"

namespace cachalot::http {

using Socket = boost::asio::generic::stream_protocol::socket;  // TCP, or a Unix domain socket

// What both ends of a connection read and write: the socket itself, whose operations these then are, or TLS over it.
class Stream {
 public:
  using Done = std::tuple<boost::system::error_code, size_t>;

  explicit Stream(Socket socket) : socket(std::move(socket)) {}

  bool has_tls() const { return tls_ != nullptr; }
  // Before anything is read or written.
  awaitable<boost::system::error_code> shake_hands(const TlsContext& context, bool is_server,
                                                   const std::string& host = {}) {
    tls_ = std::make_unique<TlsSession>(context, socket.native_handle(), is_server, host);
    boost::system::error_code error;
    for (;;) {
      over_tls(error, [&] {
        tls_->shake_hands(error);
        return size_t{0};
      });
      if (error != boost::asio::error::would_block) break;
      const auto [wait_error] = co_await socket.async_wait(tls_->wants(), kResult);
      if (wait_error) co_return wait_error;
    }
    co_return error;
  }
  std::string why(const boost::system::error_code& error) const { return tls_ ? tls_->why(error) : error.message(); }

  // Up to so many bytes more into the buffer, which grows only when they are there. The socket does not block.
  awaitable<boost::system::error_code> read_leanly(boost::beast::flat_buffer& buffer, size_t most_bytes) {
    if (end_) co_return end_;
    if (tls_) co_return co_await read_tls_leanly(buffer, most_bytes);
    std::array<char, kLeanBytes> first;  // a read that waits costs no call of the system, as waiting alone does
    const auto [error, num_first] = co_await socket.async_read_some(boost::asio::buffer(first), kResult);
    boost::asio::buffer_copy(buffer.prepare(num_first), boost::asio::buffer(first, num_first));
    buffer.commit(num_first);
    if (error != boost::asio::error::operation_aborted) end_ = error;
    if (num_first == first.size() && most_bytes > num_first) {
      buffer.commit(socket.read_some(buffer.prepare(most_bytes - num_first), end_));
      if (end_ == boost::asio::error::would_block) end_ = {};
    }
    co_return error;
  }
  awaitable<Done> read_some(boost::asio::mutable_buffer buffer) {
    if (end_) return at_end(end_);  // Asio would wait for an event that has been
    return tls_ ? read_tls(buffer) : socket.async_read_some(buffer, kResult);
  }
  awaitable<Done> write_some(boost::asio::const_buffer bytes) {
    return tls_ ? write_tls(bytes) : socket.async_write_some(bytes, kResult);
  }
  // All of it.
  awaitable<Done> write(boost::asio::const_buffer bytes) {
    return tls_ ? write_tls(bytes) : boost::asio::async_write(socket, bytes, kResult);
  }
  awaitable<Done> write(boost::asio::const_buffer first, boost::asio::const_buffer second) {
    const std::array<boost::asio::const_buffer, 2> both{first, second};
    return tls_ ? write_both(first, second) : boost::asio::async_write(socket, both, kResult);
  }
  // What goes without waiting; would_block: none.
  size_t write_now(boost::asio::const_buffer bytes, boost::system::error_code& error) {
    return tls_ ? over_tls(error, [&] { return tls_->write(bytes, error); }) : socket.write_some(bytes, error);
  }
  size_t read_now(boost::asio::mutable_buffer buffer, boost::system::error_code& error) {
    return tls_ ? over_tls(error, [&] { return tls_->read(buffer, error); }) : socket.read_some(buffer, error);
  }
  awaitable<std::tuple<boost::system::error_code>> wait_writable() {
    return socket.async_wait(tls_ ? tls_->wants() : boost::asio::socket_base::wait_write, kResult);
  }

  // Nothing follows.
  void end() {
    if (tls_ && socket.is_open()) tls_->end();
  }

  Socket socket;

 private:
  static constexpr size_t kLeanBytes = 512;

  // TLS knows the socket's number alone, which is somebody else's once it is closed.
  template <class Operation>
  size_t over_tls(boost::system::error_code& error, Operation operation) {
    if (socket.is_open()) return operation();
    error = boost::asio::error::operation_aborted;
    return 0;
  }

  static awaitable<Done> at_end(boost::system::error_code end) { co_return Done(end, 0); }
  awaitable<boost::system::error_code> read_tls_leanly(boost::beast::flat_buffer& buffer, size_t most_bytes) {
    if (!tls_->has_pending()) {
      const auto [error] = co_await socket.async_wait(boost::asio::socket_base::wait_read, kResult);
      if (error) co_return error;
    }
    const auto [error, num_read] = co_await read_tls(buffer.prepare(most_bytes));
    buffer.commit(num_read);
    co_return error;
  }

  awaitable<Done> read_tls(boost::asio::mutable_buffer buffer) {
    for (;;) {
      boost::system::error_code error;
      const size_t num_read = over_tls(error, [&] { return tls_->read(buffer, error); });
      if (error != boost::asio::error::would_block) co_return Done(error, num_read);
      const auto [wait_error] = co_await socket.async_wait(tls_->wants(), kResult);
      if (wait_error) co_return Done(wait_error, 0);
    }
  }
  awaitable<Done> write_both(boost::asio::const_buffer first, boost::asio::const_buffer second) {
    const auto [error, num_written] = co_await write_tls(first);
    if (error) co_return Done(error, num_written);
    const auto [second_error, num_second] = co_await write_tls(second);
    co_return Done(second_error, num_written + num_second);
  }
  awaitable<Done> write_tls(boost::asio::const_buffer bytes) {
    const size_t num_bytes = bytes.size();
    while (bytes.size() > 0) {
      boost::system::error_code error;
      bytes += over_tls(error, [&] { return tls_->write(bytes, error); });
      if (error && error != boost::asio::error::would_block) co_return Done(error, num_bytes - bytes.size());
      if (!error) continue;
      const auto [wait_error] = co_await socket.async_wait(tls_->wants(), kResult);
      if (wait_error) co_return Done(wait_error, num_bytes - bytes.size());
    }
    co_return Done(boost::system::error_code(), num_bytes);
  }

  std::unique_ptr<TlsSession> tls_;
  boost::system::error_code end_;  // that read_leanly() has met: the system tells it once
};

}  // namespace cachalot::http
