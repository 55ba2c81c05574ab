#pragma once

#include <gtest/gtest.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <future>
#include <string>

#include "base/text.h"

namespace cachalot::http {

// For tests: a client that sends and receives exactly the bytes that it is told, with a deadline on reading.
class RawClient {
 public:
  explicit RawClient(uint16_t port) : socket_(context_) {
    socket_.connect({boost::asio::ip::make_address("127.0.0.1"), port});
  }

  void send(std::string_view bytes) {
    boost::system::error_code ignored;  // the server may have had enough already
    boost::asio::write(socket_, boost::asio::buffer(bytes.data(), bytes.size()), ignored);
  }
  void close() { socket_.close(); }
  // As a process that is killed: a reset.
  void reset() {
    socket_.set_option(boost::asio::socket_base::linger(true, 0));
    socket_.close();
  }

  // Reads until the text has come; what was read, with everything up to and including it taken out.
  std::string read_until(std::string_view text) {
    size_t position;
    while ((position = received_.find(text)) == received_.npos)
      if (!read_some()) return std::exchange(received_, {}) + "<closed before " + std::string(text) + ">";
    std::string head = received_.substr(0, position + text.size());
    received_.erase(0, head.size());
    return head;
  }
  std::string read_to_end() {
    while (read_some()) {
    }
    return std::exchange(received_, {});
  }
  // Status line and fields, then as many bytes as Content-Length says.
  std::string read_response() {
    std::string response = read_until("\r\n\r\n");
    const auto field = response.find("Content-Length: ");
    if (field == response.npos) return response;
    const size_t length = leading_number<size_t>(std::string_view(response).substr(field + 16));
    while (received_.size() < length && read_some()) {
    }
    response += received_.substr(0, length);
    received_.erase(0, length);
    return response;
  }

 private:
  bool read_some() {
    char bytes[4096];
    bool got = false;
    socket_.async_read_some(boost::asio::buffer(bytes), [&](boost::system::error_code error, size_t num_bytes) {
      got = !error;
      if (got) received_.append(bytes, num_bytes);
    });
    context_.restart();
    context_.run_for(std::chrono::seconds(5));
    if (!context_.stopped()) {
      ADD_FAILURE() << "nothing came within 5 s; so far: " << received_;
      socket_.cancel();
      context_.run();
    }
    return got;
  }

  boost::asio::io_context context_;
  boost::asio::ip::tcp::socket socket_;
  std::string received_;
};

}  // namespace cachalot::http
