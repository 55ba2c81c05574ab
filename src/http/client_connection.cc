#include "http/client_connection.h"

#include <sys/socket.h>

#include <cerrno>

namespace cachalot::http {

bool ClientConnection::is_quiet() {
  if (!socket.is_open() || buffer.size() > 0) return false;
  char byte;
  const ssize_t num_read = recv(socket.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return num_read < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

std::shared_ptr<ClientConnection> ConnectionPool::take(const std::string& server) {
  const std::lock_guard lock(mutex_);
  const auto found = idle_.find(server);
  if (found == idle_.end()) return nullptr;
  Queue& queue = found->second;
  close_old(queue);
  while (!queue.empty()) {
    std::shared_ptr<ClientConnection> connection = std::move(queue.back().connection);
    queue.pop_back();
    if (connection->is_quiet()) return connection;
  }
  return nullptr;
}

void ConnectionPool::put(const std::string& server, std::shared_ptr<ClientConnection> connection) {
  connection->buffer.shrink_to_fit();
  const std::lock_guard lock(mutex_);
  Queue& queue = idle_[server];
  queue.push_back({std::move(connection), std::chrono::steady_clock::now()});
  if (queue.size() > max_idle_per_server_) queue.pop_front();
  close_old(queue);
}

void ConnectionPool::close_old(Queue& queue) const {
  const auto oldest = std::chrono::steady_clock::now() - idle_timeout_;
  while (!queue.empty() && queue.front().since < oldest) queue.pop_front();
}

}  // namespace cachalot::http
