#include "http/server.h"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <cstring>
#include <limits>
#include <new>
#include <set>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "base/ports.h"
#include "base/text.h"
#include "http/connection.h"

namespace cachalot::http {

namespace asio = boost::asio;
using asio::ip::tcp;

const Route* ServerCore::find_route(const Request& head, std::string& allowed_methods) const {
  const Route* found = nullptr;
  std::set<std::string_view> allowed;
  for (const Route& route : routes) {
    const std::string_view path = route.path;
    const bool is_of_path = path.ends_with("/*") ? head.path.starts_with(path.substr(0, path.size() - 1))  // below it
                                                 : head.path == path;
    if (!is_of_path) continue;
    if (!found && (route.method == head.method || (route.method == "GET" && head.method == "HEAD"))) found = &route;
    allowed.insert(route.method);
    if (route.method == "GET") allowed.insert("HEAD");
  }
  if (!allowed.empty()) allowed.insert("OPTIONS");
  allowed_methods = fmt::format("{}", fmt::join(allowed, ", "));
  return found;
}

Decision ServerCore::decide(const Request& head) {
  std::string allowed_methods;  // "GET, HEAD, OPTIONS"
  const Route* const route = find_route(head, allowed_methods);
  const auto refused = [&](int status, std::string_view message, const Headers& fields = {}) {
    Response response = error_format(status, message, head.path);
    for (const auto& [name, value] : fields) response.headers.set(name, value);
    return Decision{.response = std::move(response)};
  };
  const bool is_reserved = std::ranges::find(options.reserved_paths, head.path) != options.reserved_paths.end();
  if (!is_reserved && !admits_request())
    return refused(503, fmt::format("{} connections are open, as many as allowed", options.max_connections),
                   {{"Retry-After", "1"}, {"Connection", "close"}});
  if (const std::string fault = fault_of_origin(head); !fault.empty()) return refused(403, fault);
  if (head.path == "*") allowed_methods = "GET, HEAD, POST, OPTIONS";
  if (!route && head.method == "OPTIONS" && !allowed_methods.empty())
    return {.response = preflight(head, allowed_methods, options.door.cors)};
  if (allowed_methods.empty()) return refused(404, fmt::format("there is no {}", quoted(head.path)));
  if (!route)
    return refused(405, fmt::format("{} does not take {}", quoted(head.path), quoted(head.method)),
                   {{"Allow", allowed_methods}});
  auto visit = head_check ? head_check(head) : nullptr;
  if (!visit) return {.response = std::move(visit.error()), .route = route};
  const std::string_view coding = head.headers.find("Content-Encoding").value_or("");
  if (!coding.empty() && !equal_ignoring_case(coding, "identity"))
    return refused(
        415,
        fmt::format("the body's Content-Encoding is {}; only identity, a body as it is, is read here", quoted(coding)),
        {{"Accept-Encoding", "identity"}});
  return {.route = route, .visit = std::move(*visit)};
}

namespace {

// "localhost" of "http://localhost:8000", and of "localhost:8000".
std::string_view name_in(std::string_view authority) {
  if (const size_t scheme = authority.find("://"); scheme != authority.npos) authority.remove_prefix(scheme + 3);
  const size_t bracket = authority.find(']');
  return bracket == authority.npos ? authority.substr(0, authority.find(':')) : authority.substr(0, bracket + 1);
}

bool means_loopback(std::string_view name) {
  if (name.starts_with('[') && name.ends_with(']')) name = name.substr(1, name.size() - 2);
  boost::system::error_code no_address;
  const auto address = asio::ip::make_address(std::string(name), no_address);
  if (!no_address) return address.is_loopback();
  constexpr std::string_view kName = "localhost";
  return name.size() >= kName.size() && equal_ignoring_case(name.substr(name.size() - kName.size()), kName) &&
         (name.size() == kName.size() || name[name.size() - kName.size() - 1] == '.');
}

}  // namespace

std::string ServerCore::fault_of_origin(const Request& head) const {
  const std::string_view host = head.headers.find("Host").value_or("");
  const auto is_this = [&](const std::string& name) { return name == "*" || equal_ignoring_case(name, name_in(host)); };
  // A name of somebody's that was made to mean 127.0.0.1 brings a page of his here (DNS rebinding).
  if (is_on_loopback_ && !host.empty() && !means_loopback(name_in(host)) && !is_this(options.host) &&
      !is_this(machine_name_) && std::ranges::none_of(options.door.allowed_hosts, is_this))
    return fmt::format("{} is no name of this server, which listens on this machine alone; --allowed-hosts names more",
                       quoted(host));
  const std::string_view origin = head.headers.find("Origin").value_or("");
  if (origin.empty() || origin == fmt::format("http://{}", host) || origin == fmt::format("https://{}", host))
    return {};
  if (head.headers.find("Sec-Fetch-Site") == "same-origin") return {};  // behind a proxy that names another host
  if (options.door.cors.allows(std::string(origin))) return {};
  return fmt::format("a page of {} may not ask this server; --allowed-origins names those that may", quoted(origin));
}

Response ServerCore::answer_at_once(const Server::Answerer& answerer, const Request& request) const {
  try {
    return answerer(request);
  } catch (const std::exception& exception) {
    log::error("{} failed: {}", quoted(request.path), exception.what());
    return error_format(500, "the request failed", request.path);
  }
}

Status ServerCore::listen() {
  if (options.door.tls.is_on()) {
    ASSIGN_OR_RETURN(tls_, TlsContext::of_server(options.door.tls));
    log::info("TLS with the certificate of {}", tls_->description());
  }
  const std::string& uds = options.door.uds;
  const auto failed = [&](const boost::system::error_code& error) {
    if (!uds.empty())
      return make_parameter_error(
          "--uds", "cannot listen on {}: {}", quoted(uds),
          error == asio::error::address_in_use ? "something is there already" : error.message());
    return make_error(ErrorCode::kIo, "cannot listen on {}: {}{}", address_text(options.host, options.port),
                      error.category() == boost::system::system_category()
                          ? listen_error_text(error.value(), options.port)
                          : error.message(),
                      error == asio::error::address_in_use ? "; --port names another port" : "");
  };
  if (const boost::system::error_code error = bind()) {
    boost::system::error_code ignored;
    acceptor.close(ignored);
    return failed(error);
  }
  return {};
}

namespace {

// What a process that was killed has left behind is taken away: a socket on which nobody listens. A file that is none
// refuses connections, too.
void remove_dead_socket(asio::io_context& context, const asio::local::stream_protocol::endpoint& endpoint) {
  struct stat found{};
  if (lstat(endpoint.path().c_str(), &found) != 0 || !S_ISSOCK(found.st_mode)) return;
  asio::local::stream_protocol::socket probe(context);
  boost::system::error_code error;
  probe.connect(endpoint, error);
  if (error == asio::error::connection_refused) unlink(endpoint.path().c_str());
}

}  // namespace

boost::system::error_code ServerCore::bind() {
  boost::system::error_code error;
  asio::generic::stream_protocol::endpoint endpoint;
  if (const std::string& uds = options.door.uds; !uds.empty()) {
    if (uds.size() >= sizeof(sockaddr_un::sun_path)) return asio::error::name_too_long;
    const asio::local::stream_protocol::endpoint local(uds);
    remove_dead_socket(context, local);
    endpoint = local;
  } else {
    tcp::resolver resolver(context);
    const auto found = resolver.resolve(options.host, std::to_string(options.port), tcp::resolver::passive, error);
    if (error) return error;
    endpoint = found.begin()->endpoint();
    is_on_loopback_ = found.begin()->endpoint().address().is_loopback();
    std::array<char, 256> name{};
    if (gethostname(name.data(), name.size() - 1) == 0) machine_name_ = name.data();
  }
  acceptor.open(endpoint.protocol(), error);
  if (!error) fcntl(acceptor.native_handle(), F_SETFD, FD_CLOEXEC);  // a process that is started has its own
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error && endpoint.protocol().family() == AF_INET6) acceptor.set_option(asio::ip::v6_only(false), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error || !options.door.uds.empty()) return error;
  tcp::endpoint bound;
  const auto own = acceptor.local_endpoint();
  bound.resize(own.size());
  std::memcpy(bound.data(), own.data(), own.size());
  port = bound.port();
  return error;
}

void ServerCore::close_acceptor() {
  if (acceptor.is_open() && !options.door.uds.empty()) unlink(options.door.uds.c_str());
  boost::system::error_code ignored;
  acceptor.close(ignored);
}

std::shared_ptr<const TlsContext> ServerCore::tls() {
  if (!options.door.tls.is_on()) return nullptr;
  const std::lock_guard lock(mutex_);
  return tls_;
}

awaitable<void> ServerCore::refresh_certificate() {
  const auto self = shared_from_this();
  asio::steady_timer timer(acceptor.get_executor());
  for (std::string seen = stamp_of_files(options.door.tls); acceptor.is_open();) {
    timer.expires_after(std::chrono::milliseconds(500));
    co_await timer.async_wait(kResult);
    std::string stamp = stamp_of_files(options.door.tls);
    if (stamp == seen) continue;
    seen = std::move(stamp);
    auto changed = TlsContext::of_server(options.door.tls);
    if (!changed) {
      log::error("{}; the certificate before it goes on", changed.error().message);
      continue;
    }
    log::info("TLS with the changed certificate of {}", (*changed)->description());
    const std::lock_guard lock(mutex_);
    tls_ = std::move(*changed);
  }
}

// Who comes is let in and heard: what it asks decides whether there is room for it. Beyond the reserve somebody who has
// not asked yet has to leave; everybody else waits in the system's queue.
awaitable<void> ServerCore::accept_connections() {
  const auto self = shared_from_this();
  while (acceptor.is_open()) {
    try {
      co_await accept_while_there_is_memory(self);
    } catch (const std::bad_alloc&) {
      // Whoever has the memory gives some back; there may be none to wait with otherwise.
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }
}

awaitable<void> ServerCore::accept_while_there_is_memory(std::shared_ptr<ServerCore> self) {
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
    self->close_acceptor();
    self->room.cancel();
  });
}

bool ServerCore::add(const std::shared_ptr<Connection>& connection) {
  std::lock_guard lock(mutex_);
  if (draining_) return false;
  connections_.emplace(connection.get(), Entry{.connection = connection, .list = nullptr, .place = {}});
  return true;
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
  Waiting& list = has_served ? waiting_ : newcomers_;
  entry.place = list.insert(list.end(), connection);
  entry.list = &list;
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

awaitable<Result<std::string>> ServerCall::read() {
  Connection& connection = connection_;
  Connection::Exchange& exchange = *connection.exchange_;
  Connection::Parser& parser = exchange.parser;
  if (parser.is_done()) co_return std::string();
  const ServerOptions& options = connection.core_->options;
  // All pieces together have so long, as a body that is read whole: one byte now and then is no progress.
  const auto begin = std::chrono::steady_clock::now();
  connection.timeout_.arm(std::chrono::ceil<std::chrono::milliseconds>(options.body_timeout - exchange.body_wait));
  boost::system::error_code error;
  while (!error && !parser.is_done() && parser.get().body().empty()) error = co_await connection.read_some_body(parser);
  const bool is_late = connection.timeout_.has_expired();
  connection.timeout_.disarm();
  exchange.body_wait += std::chrono::steady_clock::now() - begin;
  if (parser.is_done()) connection.pause_.cancel();  // from now on the client is watched
  if (!error) co_return std::exchange(parser.get().body(), {});
  if (is_late)
    co_return make_error(ErrorCode::kDeadlineExceeded, "the request's body did not come within {} s",
                         std::chrono::duration<double>(options.body_timeout).count());
  const RequestFault fault = parse_fault(error, options);
  co_return make_error(fault.status == 413 ? ErrorCode::kTooLarge : ErrorCode::kInvalidArgument, "{}", fault.message);
}

bool ServerCall::body_is_complete() const {
  return connection_.exchange_->parser.is_done();
}

namespace {

// Before an answer's last bytes go: who has them finds what the body took of max_body_bytes_in_flight free, and the
// visit's place.
void leave_before_end(ServerCall& call) {
  call.request.body = {};
  call.request.body_share.reset();
  if (call.visit) call.visit->end();
}

}  // namespace

awaitable<void> ServerCall::respond(Response response) {
  Connection::Exchange& exchange = *connection_.exchange_;
  CHECK(!exchange.answer.has_begun(), "an answer was begun already");
  if (visit) visit->add_fields(response.headers);
  if (connection_.last_request_ || !exchange.parser.is_done() || response.headers.find("Connection") == "close" ||
      (connection_.client_is_silent_ && connection_.buffer_.size() == 0))
    exchange.answer.close();
  std::string wire = exchange.answer.head(response.status, std::move(response.headers), response.body.size(),
                                          connection_.core_->options);
  wire += exchange.answer.part(response.body);
  exchange.answer.end();
  leave_before_end(*this);
  co_await connection_.write_answer(exchange, std::move(wire));
}

void ServerCall::begin(int status, Headers headers) {
  Connection::Exchange& exchange = *connection_.exchange_;
  CHECK(!exchange.answer.has_begun(), "an answer was begun already");
  if (visit) visit->add_fields(headers);
  if (connection_.last_request_ || !exchange.parser.is_done()) exchange.answer.close();
  exchange.unsent = exchange.answer.head(status, std::move(headers), std::nullopt, connection_.core_->options);
}

awaitable<void> ServerCall::send(std::string bytes) {
  Connection::Exchange& exchange = *connection_.exchange_;
  CHECK(exchange.answer.has_begun() && !exchange.answer.has_ended());
  std::string wire = std::exchange(exchange.unsent, {});
  wire += exchange.answer.part(bytes);
  co_await connection_.write_answer(exchange, std::move(wire));
}

awaitable<void> ServerCall::end(std::string last_bytes) {
  Connection::Exchange& exchange = *connection_.exchange_;
  CHECK(exchange.answer.has_begun() && !exchange.answer.has_ended());
  std::string wire = std::exchange(exchange.unsent, {});
  wire += exchange.answer.part(last_bytes);
  const bool is_complete = exchange.answer.is_complete();
  if (is_complete) wire += exchange.answer.end();
  leave_before_end(*this);
  co_await connection_.write_answer(exchange, std::move(wire));
}

Server::Server(const IoThreads& threads, ServerOptions options)
    : core_(std::make_shared<ServerCore>(threads.context(), std::move(options))) {
  core_->error_format = [](int status, std::string_view message, std::string_view) {
    return Response::text(status, std::string(message) + "\n");
  };
}

Server::~Server() {
  drain(std::chrono::milliseconds(0));
}

void Server::route(std::string method, std::string path, Handler handler) {
  core_->routes.push_back({.method = std::move(method), .path = std::move(path), .handler = std::move(handler)});
}

void Server::route(std::string method, std::string path, Answerer answerer) {
  core_->routes.push_back({.method = std::move(method), .path = std::move(path), .answerer = std::move(answerer)});
}

void Server::route_upload(std::string method, std::string path, Handler handler) {
  core_->routes.push_back(
      {.method = std::move(method), .path = std::move(path), .pulls_body = true, .handler = std::move(handler)});
}

void Server::set_head_check(HeadCheck check) {
  core_->head_check = std::move(check);
}
void Server::set_error_format(ErrorFormat format) {
  core_->error_format = std::move(format);
}
void Server::set_observer(Observer observer) {
  core_->observer = std::move(observer);
}

Status Server::listen() {
  return core_->listen();
}

Status Server::start() {
  if (!core_->acceptor.is_open()) RETURN_IF_ERROR(core_->listen());
  asio::co_spawn(core_->acceptor.get_executor(), core_->accept_connections(), asio::detached);
  if (core_->options.door.tls.refresh)
    asio::co_spawn(core_->acceptor.get_executor(), core_->refresh_certificate(), asio::detached);
  return {};
}

std::string Server::url() const {
  const ServerOptions& options = core_->options;
  if (!options.door.uds.empty()) return "unix:" + options.door.uds;
  return fmt::format("{}://{}", options.door.tls.is_on() ? "https" : "http", address_text(options.host, port()));
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

std::string access_line(const ServedRequest& request) {
  return fmt::format("{} {} {} {}, {} bytes in {:.3f} s{}{}{}", request.peer, request.method, quoted(request.path),
                     request.status, request.num_body_bytes, request.seconds, request.is_whole ? "" : ", broken off",
                     request.story.empty() ? "" : "; ", request.story);
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
