#include "http/server.h"

#include <fcntl.h>
#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <limits>
#include <set>

#include "base/log.h"
#include "base/ports.h"
#include "http/connection.h"

namespace cachalot::http {

namespace asio = boost::asio;
using asio::ip::tcp;

void Routes::add(std::string method, std::string path, bool pulls_body, Server::Handler handler,
                 Server::Answerer answerer) {
  const bool is_prefix = path.ends_with("/*");
  if (is_prefix) path.pop_back();
  routes_.push_back(
      {std::move(method), std::move(path), is_prefix, pulls_body, std::move(handler), std::move(answerer)});
}

RouteMatch Routes::match(std::string_view method, std::string_view path) const {
  RouteMatch match;
  std::set<std::string> allowed;
  for (const Route& route : routes_) {
    const bool matches = route.is_prefix ? path.starts_with(route.path) : path == route.path;
    if (!matches) continue;
    if (!match.is_found() && (route.method == method || (route.method == "GET" && method == "HEAD"))) {
      match.handler = route.handler ? &route.handler : nullptr;
      match.answerer = route.answerer ? &route.answerer : nullptr;
      match.pulls_body = route.pulls_body;
    }
    allowed.insert(route.method);
    if (route.method == "GET") allowed.insert("HEAD");
  }
  if (allowed.empty()) return match;
  allowed.insert("OPTIONS");
  for (const std::string& name : allowed) match.allowed_methods += (match.allowed_methods.empty() ? "" : ", ") + name;
  return match;
}

Status ServerCore::listen() {
  const auto failed = [&](const boost::system::error_code& error) {
    return make_error(ErrorCode::kIo, "cannot listen on {}: {}{}", address_text(options.host, options.port),
                      error.category() == boost::system::system_category()
                          ? listen_error_text(error.value(), options.port)
                          : error.message(),
                      error == asio::error::address_in_use ? "; --port names another port" : "");
  };
  boost::system::error_code error;
  tcp::resolver resolver(context);
  const auto found = resolver.resolve(options.host, std::to_string(options.port), tcp::resolver::passive, error);
  if (error) return failed(error);
  const tcp::endpoint endpoint = found.begin()->endpoint();
  acceptor.open(endpoint.protocol(), error);
  if (!error) fcntl(acceptor.native_handle(), F_SETFD, FD_CLOEXEC);  // a process that is started has its own
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error && endpoint.address().is_v6()) acceptor.set_option(asio::ip::v6_only(false), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    boost::system::error_code ignored;
    acceptor.close(ignored);
    return failed(error);
  }
  port = acceptor.local_endpoint().port();
  return {};
}

// Who comes is let in and heard: what it asks decides whether there is room for it. Beyond the reserve somebody who has
// not asked yet has to leave; everybody else waits in the system's queue.
awaitable<void> ServerCore::accept_connections() {
  const auto self = shared_from_this();
  const int most = options.max_connections + options.num_reserved_connections;
  while (acceptor.is_open()) {
    auto [error, socket] = co_await acceptor.async_accept(asio::make_strand(context), kResult);
    if (!error) {
      std::make_shared<Connection>(std::move(socket), self)->start();
    } else if (acceptor.is_open() && error != asio::error::connection_aborted) {  // out of descriptors, most likely
      if (const auto line = complaints_.add(std::chrono::steady_clock::now(),
                                            fmt::format("cannot accept a connection: {}", error.message())))
        log::error("{}", *line);
      make_room();
      room.expires_after(std::chrono::milliseconds(50));
      co_await room.async_wait(kResult);
    }
    while (acceptor.is_open() && num_connections() > most) {
      if (!make_room())
        if (const auto line = complaints_.add(
                std::chrono::steady_clock::now(),
                fmt::format("{} connections are open, as many as allowed; more are waiting", options.max_connections)))
          log::warn("{}", *line);
      room.expires_after(std::chrono::milliseconds(200));
      co_await room.async_wait(kResult);
    }
  }
}

void ServerCore::stop_accepting() {
  {
    std::lock_guard lock(mutex_);
    draining_ = true;
  }
  asio::post(acceptor.get_executor(), [self = shared_from_this()] {
    boost::system::error_code ignored;
    self->acceptor.close(ignored);
    self->room.cancel();
  });
}

void ServerCore::add(const std::shared_ptr<Connection>& connection) {
  bool late;
  {
    std::lock_guard lock(mutex_);
    connections_.emplace(connection.get(), Entry{.connection = connection, .list = nullptr, .place = {}});
    late = draining_;
  }
  if (late) connection->close_when_idle();
}

void ServerCore::remove(Connection* connection) {
  bool was_crowded;
  {
    std::lock_guard lock(mutex_);
    was_crowded = static_cast<int>(connections_.size()) > options.max_connections;
    const auto found = connections_.find(connection);
    leave_list(found->second);
    connections_.erase(found);
    if (connections_.empty()) empty_.notify_all();
  }
  if (was_crowded) asio::post(acceptor.get_executor(), [self = shared_from_this()] { self->room.cancel(); });
}

void ServerCore::begins_to_wait(Connection* connection, bool has_served) {
  std::lock_guard lock(mutex_);
  Entry& entry = connections_.at(connection);
  if (entry.gives_way) return;
  leave_list(entry);
  entry.list = has_served ? &waiting_ : &newcomers_;
  entry.place = entry.list->insert(entry.list->end(), connection);
}

void ServerCore::ends_to_wait(Connection* connection) {
  std::lock_guard lock(mutex_);
  leave_list(connections_.at(connection));
}

void ServerCore::leave_list(Entry& entry) {
  if (Waiting* list = std::exchange(entry.list, nullptr)) list->erase(entry.place);
  if (std::exchange(entry.gives_way, false)) num_giving_way_--;
}

std::shared_ptr<Connection> ServerCore::take_longest_waiting() {
  std::shared_ptr<Connection> longest;
  while (!longest && (!newcomers_.empty() || !waiting_.empty())) {
    Entry& entry = connections_.at(newcomers_.empty() ? waiting_.front() : newcomers_.front());
    leave_list(entry);
    entry.gives_way = true;
    num_giving_way_++;
    longest = entry.connection.lock();
  }
  return longest;
}

bool ServerCore::make_room() {
  std::shared_ptr<Connection> longest;
  {
    std::lock_guard lock(mutex_);
    longest = take_longest_waiting();
  }
  if (longest) longest->give_way();
  return longest != nullptr;
}

bool ServerCore::admits_request() {
  std::shared_ptr<Connection> longest;
  {
    std::lock_guard lock(mutex_);
    if (static_cast<int>(connections_.size()) - num_giving_way_ <= options.max_connections) return true;
    longest = take_longest_waiting();
  }
  if (longest) longest->give_way();
  return longest != nullptr;
}

bool ServerCore::has_reserve_for(const std::string& path) const {
  return std::ranges::find(options.reserved_paths, path) != options.reserved_paths.end();
}

bool ServerCore::take_body_bytes(size_t num_bytes) {
  const size_t before = num_body_bytes.fetch_add(num_bytes);
  if (before + num_bytes <= options.max_body_bytes_in_flight) return true;
  num_body_bytes -= num_bytes;
  return false;
}

int ServerCore::num_connections() {
  std::lock_guard lock(mutex_);
  return static_cast<int>(connections_.size());
}

std::vector<std::shared_ptr<Connection>> ServerCore::all_connections() {
  std::vector<std::shared_ptr<Connection>> all;
  std::lock_guard lock(mutex_);
  for (const auto& [pointer, entry] : connections_)
    if (auto connection = entry.connection.lock()) all.push_back(std::move(connection));
  return all;
}

bool ServerCore::wait_until_empty(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return empty_.wait_for(lock, timeout, [&] { return connections_.empty(); });
}

Server::Server(const IoThreads& threads, ServerOptions options)
    : core_(std::make_shared<ServerCore>(threads.context(), std::move(options))) {
  core_->error_format = [](int status, std::string_view message) {
    return Response::text(status, std::string(message) + "\n");
  };
}

Server::~Server() {
  drain(std::chrono::milliseconds(0));
}

void Server::route(std::string method, std::string path, Handler handler) {
  core_->routes.add(std::move(method), std::move(path), false, std::move(handler), nullptr);
}

void Server::route(std::string method, std::string path, Answerer answerer) {
  core_->routes.add(std::move(method), std::move(path), false, nullptr, std::move(answerer));
}

void Server::route_upload(std::string method, std::string path, Handler handler) {
  core_->routes.add(std::move(method), std::move(path), true, std::move(handler), nullptr);
}

void Server::set_head_check(HeadCheck check) {
  core_->head_check = std::move(check);
}
void Server::set_error_format(ErrorFormat format) {
  core_->error_format = std::move(format);
}

Status Server::listen() {
  return core_->listen();
}

Status Server::start() {
  if (!core_->acceptor.is_open()) RETURN_IF_ERROR(core_->listen());
  asio::co_spawn(core_->acceptor.get_executor(), core_->accept_connections(), asio::detached);
  return {};
}

uint16_t Server::port() const {
  return core_->port;
}
int Server::num_connections() const {
  return core_->num_connections();
}

void Server::cut() {
  for (const auto& connection : core_->all_connections()) connection->cut();
}

bool Server::drain(std::chrono::milliseconds deadline) {
  core_->stop_accepting();
  for (const auto& connection : core_->all_connections()) connection->close_when_idle();
  if (core_->wait_until_empty(deadline)) return true;
  cut();
  if (core_->wait_until_empty(std::chrono::seconds(1))) return false;
  for (const auto& connection : core_->all_connections()) connection->close();
  core_->wait_until_empty(std::chrono::seconds(5));
  return false;
}

int raise_file_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  getrlimit(RLIMIT_NOFILE, &limit);
  return static_cast<int>(std::min<rlim_t>(limit.rlim_cur, std::numeric_limits<int>::max()));
}

}  // namespace cachalot::http
