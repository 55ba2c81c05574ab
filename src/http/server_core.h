#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "http/server.h"

namespace cachalot::http {

class Connection;

// Which handler a request belongs to, or what its path would allow.
struct RouteMatch {
  const Server::Handler* handler = nullptr;
  bool pulls_body = false;      // the handler, beyond what is buffered
  std::string allowed_methods;  // "GET, HEAD, OPTIONS"; empty: no such path
};

class Routes {
 public:
  void add(std::string method, std::string path, bool pulls_body, Server::Handler handler);
  RouteMatch match(std::string_view method, std::string_view path) const;

 private:
  struct Route {
    std::string method, path;  // of a prefix route, the path ends in '/'
    bool is_prefix, pulls_body;
    Server::Handler handler;
  };
  std::vector<Route> routes_;
};

// What a server and its connections share. Options, routes and hooks are constant after start(); the rest is guarded.
struct ServerCore : std::enable_shared_from_this<ServerCore> {
  ServerCore(boost::asio::io_context& context, ServerOptions options)
      : context(context),
        options(std::move(options)),
        acceptor(boost::asio::make_strand(context)),
        room(acceptor.get_executor()) {}

  Status listen();
  boost::asio::awaitable<void> accept_connections();
  boost::asio::awaitable<void> make_room();
  void stop_accepting();
  void add(const std::shared_ptr<Connection>& connection);
  void remove(Connection* connection);
  int num_connections();
  std::vector<std::shared_ptr<Connection>> all_connections();
  // No room for another connection.
  bool crowded() { return num_connections() >= options.max_connections; }
  bool wait_until_empty(std::chrono::milliseconds timeout);

  boost::asio::io_context& context;
  const ServerOptions options;
  Routes routes;
  Server::HeadCheck head_check;
  Server::ErrorFormat error_format;
  boost::asio::ip::tcp::acceptor acceptor;
  boost::asio::steady_timer room;  // cancelled when a connection ends
  uint16_t port = 0;

 private:
  std::mutex mutex_;
  std::condition_variable empty_;
  std::unordered_map<Connection*, std::weak_ptr<Connection>> connections_;
  bool draining_ = false;
};

}  // namespace cachalot::http
