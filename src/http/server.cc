#include "http/server.h"

#include <fcntl.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <set>

#include "base/log.h"
#include "base/ports.h"
#include "http/connection.h"
#include "http/server_core.h"

namespace cachalot::http {

namespace asio = boost::asio;
using asio::ip::tcp;

namespace {

constexpr auto kResult = asio::as_tuple(asio::use_awaitable);

}  // namespace

struct Responder::Handle {
  explicit Handle(std::shared_ptr<Exchange> exchange) : exchange(std::move(exchange)) {}
  ~Handle() { exchange->abandon(); }
  std::shared_ptr<Exchange> exchange;
};

Responder::Responder(std::shared_ptr<Exchange> exchange) : handle_(std::make_shared<Handle>(std::move(exchange))) {}
void Responder::respond(Response response) const {
  handle_->exchange->respond(std::move(response));
}
void Responder::begin(int status, Headers headers) const {
  handle_->exchange->begin(status, std::move(headers));
}
bool Responder::write(std::string bytes, std::function<void()> on_written) const {
  return handle_->exchange->write(std::move(bytes), std::move(on_written));
}
void Responder::end() const {
  handle_->exchange->end();
}
void Responder::abort() const {
  handle_->exchange->abort();
}
void Responder::on_close(std::function<void()> callback) const {
  handle_->exchange->on_close(std::move(callback));
}
bool Responder::closed() const {
  return handle_->exchange->closed();
}

void Routes::add(std::string method, std::string path, bool pulls_body, Server::Handler handler) {
  const bool is_prefix = path.ends_with("/*");
  if (is_prefix) path.pop_back();
  routes_.push_back({std::move(method), std::move(path), is_prefix, pulls_body, std::move(handler)});
}

RouteMatch Routes::match(std::string_view method, std::string_view path) const {
  RouteMatch match;
  std::set<std::string> allowed;
  for (const Route& route : routes_) {
    const bool matches = route.is_prefix ? path.starts_with(route.path) : path == route.path;
    if (!matches) continue;
    if (match.handler == nullptr && (route.method == method || (route.method == "GET" && method == "HEAD"))) {
      match.handler = &route.handler;
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

// Everybody beyond the limit waits in the system's queue; connections that nobody uses now make room for them.
asio::awaitable<void> ServerCore::make_room() {
  co_await acceptor.async_wait(tcp::acceptor::wait_read, kResult);
  if (crowded() && acceptor.is_open()) {
    log::warn("{} connections are open, as many as allowed; more are waiting", options.max_connections);
    for (const auto& connection : all_connections()) connection->give_way();
  }
  while (crowded() && acceptor.is_open()) {
    room.expires_after(std::chrono::seconds(1));
    co_await room.async_wait(kResult);
  }
}

asio::awaitable<void> ServerCore::accept_connections() {
  const auto self = shared_from_this();
  while (acceptor.is_open()) {
    if (crowded()) co_await make_room();
    auto [error, socket] = co_await acceptor.async_accept(asio::make_strand(context), kResult);
    if (!error) {
      std::make_shared<Connection>(std::move(socket), self)->start();
    } else if (acceptor.is_open() && error != asio::error::connection_aborted) {
      log::error("cannot accept a connection: {}", error.message());  // out of descriptors, most likely
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
    connections_.emplace(connection.get(), connection);
    late = draining_;
  }
  if (late) connection->close_when_idle();
}

void ServerCore::remove(Connection* connection) {
  {
    std::lock_guard lock(mutex_);
    connections_.erase(connection);
    if (connections_.empty()) empty_.notify_all();
  }
  asio::post(acceptor.get_executor(), [self = shared_from_this()] { self->room.cancel(); });
}

int ServerCore::num_connections() {
  std::lock_guard lock(mutex_);
  return static_cast<int>(connections_.size());
}

std::vector<std::shared_ptr<Connection>> ServerCore::all_connections() {
  std::vector<std::shared_ptr<Connection>> all;
  std::lock_guard lock(mutex_);
  for (const auto& [pointer, weak] : connections_)
    if (auto connection = weak.lock()) all.push_back(std::move(connection));
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
  core_->routes.add(std::move(method), std::move(path), false, std::move(handler));
}

void Server::route_upload(std::string method, std::string path, Handler handler) {
  core_->routes.add(std::move(method), std::move(path), true, std::move(handler));
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

bool Server::drain(std::chrono::milliseconds deadline, const std::function<void()>& end_answers) {
  core_->stop_accepting();
  for (const auto& connection : core_->all_connections()) connection->close_when_idle();
  if (core_->wait_until_empty(deadline)) return true;
  if (end_answers) {
    end_answers();
    core_->wait_until_empty(std::chrono::milliseconds(500));
  }
  for (const auto& connection : core_->all_connections()) connection->close();
  core_->wait_until_empty(std::chrono::seconds(5));
  return false;
}

}  // namespace cachalot::http
