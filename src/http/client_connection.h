#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "http/deadline.h"

namespace cachalot::http {

// A client's connection to a server: the socket, what was read from it and not yet used, and the deadline of what is
// under way. Used on its strand, by one call at a time.
struct ClientConnection {
  ClientConnection(const boost::asio::any_io_executor& strand, size_t max_buffered_bytes)
      : socket(strand), deadline(socket), buffer(max_buffered_bytes) {}

  // Whether nothing speaks against another request: the server has neither closed it nor said anything unasked.
  // While nothing is under way.
  bool is_quiet();

  boost::asio::ip::tcp::socket socket;
  Deadline deadline;
  boost::beast::flat_buffer buffer;
};

// Connections between two requests, by the server's address. What was used last is used next, so that those beyond the
// need grow old; these are closed when the pool is used the next time. Thread-safe.
class ConnectionPool {
 public:
  ConnectionPool(int max_idle_per_server, std::chrono::milliseconds idle_timeout)
      : max_idle_per_server_(static_cast<size_t>(max_idle_per_server)), idle_timeout_(idle_timeout) {}

  bool keeps_any() const { return max_idle_per_server_ > 0; }
  // Null: none is there.
  std::shared_ptr<ClientConnection> take(const std::string& server);
  void put(const std::string& server, std::shared_ptr<ClientConnection> connection);

 private:
  struct Idle {
    std::shared_ptr<ClientConnection> connection;
    std::chrono::steady_clock::time_point since;
  };
  using Queue = std::deque<Idle>;  // the oldest first

  void close_old(Queue& queue) const;

  const size_t max_idle_per_server_;
  const std::chrono::milliseconds idle_timeout_;
  std::mutex mutex_;
  std::unordered_map<std::string, Queue> idle_;
};

}  // namespace cachalot::http
