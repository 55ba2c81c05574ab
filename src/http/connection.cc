#include "http/connection.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <boost/asio/detached.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <cstring>

#include "base/log.h"
#include "base/ports.h"
#include "base/text.h"
#include "http/message.h"

namespace cachalot::http {

namespace asio = boost::asio;
namespace bhttp = boost::beast::http;
using asio::ip::tcp;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

constexpr size_t kReadBytes = 64 << 10;          // of a body at once
constexpr size_t kHeadReadBytes = 2 << 10;       // of a head
constexpr size_t kMaxPipelinedBytes = 64 << 10;  // of requests that came while an earlier one is answered
constexpr size_t kUncountedBodyBytes = 64 << 10;
constexpr auto kBudgetPause = milliseconds(20);
constexpr auto kLingerTimeout = std::chrono::seconds(2);
// Every answer begins so, whatever it will be.
constexpr std::string_view kAnswerBegin = "HTTP/1.1 ";
constexpr int kClientGone = 499;  // as nginx counts it
constexpr milliseconds kFirstProbe{10}, kLongestProbe{1000};

std::string describe(const Socket& socket) {
  boost::system::error_code error;
  const auto remote = socket.remote_endpoint(error);
  if (error) return "unknown";
  if (remote.protocol().family() == AF_UNIX) return "unix:";
  tcp::endpoint endpoint;
  endpoint.resize(remote.size());
  std::memcpy(endpoint.data(), remote.data(), remote.size());
  return address_text(endpoint.address().to_string(), endpoint.port());
}

std::string_view view(const boost::beast::flat_buffer& buffer) {
  const auto bytes = buffer.cdata();
  return {static_cast<const char*>(bytes.data()), bytes.size()};
}

// Whether the system has learned that the peer takes nothing any more.
bool has_failed(Socket& socket) {
  int error = 0;
  socklen_t size = sizeof(error);
  return getsockopt(socket.native_handle(), SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0;
}

void forbid_chunk_extensions(uint64_t, boost::beast::string_view extensions, boost::system::error_code& error) {
  if (!extensions.empty()) error = bhttp::error::bad_chunk_extension;
}

}  // namespace

// What a request holds of the bytes that all bodies may have.
class Connection::BodyShare {
 public:
  explicit BodyShare(std::shared_ptr<ServerCore> core) : core_(std::move(core)) {}
  ~BodyShare() { core_->give_body_bytes(num_bytes_); }
  BodyShare(const BodyShare&) = delete;
  BodyShare& operator=(const BodyShare&) = delete;

  // For a body of so many bytes in all.
  bool cover(size_t num_body_bytes) {
    if (num_body_bytes <= num_bytes_ + kUncountedBodyBytes) return true;
    const size_t num_more = num_body_bytes - kUncountedBodyBytes - num_bytes_;
    if (!core_->take_body_bytes(num_more)) return false;
    num_bytes_ += num_more;
    return true;
  }

 private:
  const std::shared_ptr<ServerCore> core_;
  size_t num_bytes_ = 0;
};

Connection::Connection(Socket socket, std::shared_ptr<ServerCore> core)
    : stream_(std::move(socket)),
      core_(std::move(core)),
      timeout_(stream_.socket.get_executor(),
               [this] {
                 boost::system::error_code ignored;
                 stream_.socket.cancel(ignored);
               }),
      pause_(stream_.socket.get_executor()),
      buffer_(core_->options.max_header_bytes + kMaxPipelinedBytes),
      peer_(describe(stream_.socket)) {
  boost::system::error_code ignored;
  stream_.socket.non_blocking(true, ignored);
  stream_.socket.set_option(tcp::no_delay(true), ignored);
  stream_.socket.set_option(asio::socket_base::keep_alive(true), ignored);
}

void Connection::start() {
  if (!core_->add(shared_from_this())) return;
  const auto end = [self = shared_from_this()](const std::exception_ptr& exception) {
    try {
      if (exception) std::rethrow_exception(exception);
    } catch (const std::exception& failure) {
      log::error("connection from {} failed: {}", self->peer_, failure.what());
    }
    self->timeout_.stop();
    self->close_socket();
    self->core_->remove(self.get());
  };
  try {
    asio::co_spawn(stream_.socket.get_executor(), [self = shared_from_this()] { return self->run(); }, end);
  } catch (const std::bad_alloc&) {
    end(std::current_exception());
  }
}

void Connection::close() {
  asio::post(stream_.socket.get_executor(), [self = shared_from_this()] { self->close_socket(); });
}

void Connection::cut() {
  asio::post(stream_.socket.get_executor(), [self = shared_from_this()] {
    self->is_cut_ = self->last_request_ = true;
    if (!self->exchange_) return self->close_socket();
    boost::system::error_code ignored;
    self->stream_.socket.cancel(ignored);
    self->pause_.cancel();
  });
}

void Connection::close_when_idle() {
  asio::post(stream_.socket.get_executor(), [self = shared_from_this()] {
    self->last_request_ = true;
    if (self->waits_for_head_ && self->buffer_.size() == 0) self->close_socket();
  });
}

void Connection::give_way() {
  asio::post(stream_.socket.get_executor(), [self = shared_from_this()] {
    if (self->waits_for_head_) return self->close_socket();
    if (self->buffer_.size() == 0) self->last_request_ = true;
  });
}

void Connection::close_socket() {
  boost::system::error_code ignored;
  stream_.end();
  stream_.socket.close(ignored);
  pause_.cancel();
}

// A reset instead of an orderly end: what the client has is not the whole.
void Connection::break_off() {
  boost::system::error_code ignored;
  stream_.socket.set_option(asio::socket_base::linger(true, 0), ignored);
  stream_.socket.close(ignored);
  pause_.cancel();
}

awaitable<void> Connection::run() {
  if (const auto tls = core_->tls()) {
    if (const bool shaken = co_await shake_hands(*tls); !shaken) co_return;
  }
  for (;;) {
    const bool more = co_await serve_request();
    if (!more) break;
  }
}

awaitable<bool> Connection::shake_hands(const TlsContext& tls) {
  waits_for_head_ = true;
  core_->begins_to_wait(this, false);
  timeout_.arm(core_->options.header_timeout);
  const boost::system::error_code error = co_await stream_.shake_hands(tls, true);
  timeout_.disarm();
  waits_for_head_ = false;
  if (!error) co_return true;
  log::debug("{} refused: {}", peer_, stream_.why(error));
  if (is_plain_http(error)) {
    constexpr std::string_view kAnswer =
        "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\nTLS is spoken here: the "
        "address begins with https://\n";
    boost::system::error_code ignored;
    stream_.socket.write_some(asio::buffer(kAnswer), ignored);
    co_await linger();
  }
  co_return false;
}

awaitable<bool> Connection::serve_request() {
  Parser parser;
  parser.header_limit(static_cast<uint32_t>(core_->options.max_header_bytes));
  parser.body_limit(core_->options.max_body_bytes);
  parser.on_chunk_header(forbid_chunk_extensions);
  if (const bool read = co_await read_head(parser); !read) co_return false;
  const auto start = steady_clock::now();

  auto request = to_request(parser.get(), peer_);
  Decision decision =
      request ? core_->decide(*request) : Decision{.response = core_->error_format(400, request.error().message, "")};
  // With a body still to come the connection ends here: nobody knows whether the client sends it after a refusal.
  if (!request || (decision.response && !parser.is_done())) {
    co_await refuse(std::move(*decision.response), parser, decision.route);
    co_return false;
  }
  if (!parser.is_done()) {
    const size_t num_buffered = decision.route->pulls_body ? core_->options.max_buffered_body_bytes : SIZE_MAX;
    if (const bool read = co_await read_body(parser, num_buffered, *request, decision.route); !read) co_return false;
  }
  request->body = std::exchange(parser.get().body(), {});

  const AnswerFraming framing(parser.get().version() == 10, request->method == "HEAD", parser.keep_alive(),
                              std::string(request->headers.find("Origin").value_or("")));
  Exchange exchange(*this, std::move(*request), parser, framing);
  exchange.call.visit = std::move(decision.visit);
  exchange_ = &exchange;
  if (!decision.response && decision.route->answerer)
    decision.response = core_->answer_at_once(decision.route->answerer, exchange.call.request);
  try {
    if (decision.response)
      co_await exchange.call.respond(std::move(*decision.response));
    else
      co_await answer(exchange, decision.route->handler);
  } catch (const boost::system::system_error&) {  // the client is gone
  }
  exchange_ = nullptr;
  exchange.call.request = {};
  tell_of(exchange, decision.route, start);
  has_served_ = true;
  if (exchange.call.client_is_gone() || !exchange.answer.has_ended()) co_return false;
  if (exchange.answer.keep_alive() && !last_request_ && parser.is_done()) co_return true;
  if (buffer_.size() > 0 || !parser.is_done()) co_await linger();
  co_return false;
}

void Connection::tell_of(const Exchange& exchange, const Route* route, steady_clock::time_point start) const {
  if (!core_->observer && !log::shows(log::Level::kDebug)) return;
  const ServedRequest served{.method = exchange.method,
                             .path = exchange.path,
                             .peer = peer_,
                             .route = route ? std::string_view(route->path) : std::string_view(),
                             .status = exchange.answer.has_begun() ? exchange.answer.status() : kClientGone,
                             .num_body_bytes = exchange.answer.num_body_bytes(),
                             .seconds = std::chrono::duration<double>(steady_clock::now() - start).count(),
                             .is_whole = exchange.answer.has_ended() && !exchange.call.client_is_gone(),
                             .id = exchange.call.id,
                             .story = exchange.call.story};
  if (core_->observer) core_->observer(served);
  if (log::shows(log::Level::kDebug)) log::debug("{}", access_line(served));
}

awaitable<bool> Connection::read_head(Parser& parser) {
  if (buffer_.size() == 0 && last_request_ && has_served_) co_return false;
  bool is_gone = false;
  waits_for_head_ = true;
  core_->begins_to_wait(this, has_served_);
  std::optional<RequestFault> fault = co_await read_head_lines(parser, is_gone);
  waits_for_head_ = false;
  timeout_.disarm();
  if (is_gone || !stream_.socket.is_open()) co_return false;
  core_->ends_to_wait(this);
  if (!fault) fault = check_head(parser.get());
  if (!fault) co_return true;
  log::debug("{} refused: {}", peer_, fault->message);
  co_await refuse(core_->error_format(fault->status, fault->message, ""), parser, nullptr);
  co_return false;
}

awaitable<std::optional<RequestFault>> Connection::read_head_lines(Parser& parser, bool& is_gone) {
  const ServerOptions& options = core_->options;
  if (buffer_.size() == 0) {
    buffer_.shrink_to_fit();  // an idle connection holds no memory that a large body left behind
    timeout_.arm(has_served_ ? options.idle_timeout : options.header_timeout);
    const boost::system::error_code error = co_await stream_.read_leanly(buffer_, kHeadReadBytes);
    is_gone = static_cast<bool>(error);
    if (is_gone) co_return std::nullopt;
  }
  timeout_.arm(options.header_timeout);
  HeadScanner scanner;
  for (;;) {
    while (view(buffer_).starts_with("\r\n")) buffer_.consume(2);  // some clients send them after a body
    if (auto fault = scanner.scan(view(buffer_))) co_return fault;
    if (scanner.end() > 0) break;
    if (buffer_.size() > options.max_header_bytes) co_return parse_fault(bhttp::error::header_limit, options);
    const size_t room = buffer_.capacity() - buffer_.size();
    const auto [error, num_read] = co_await stream_.read_some(buffer_.prepare(std::max(kHeadReadBytes, room)));
    buffer_.commit(num_read);
    if (!error) continue;
    if (buffer_.size() > 0 && timeout_.has_expired())
      co_return RequestFault{408, fmt::format("the request's head did not come within {} s",
                                              std::chrono::duration<double>(options.header_timeout).count())};
    if (buffer_.size() > 0 && error == asio::error::eof)
      co_return RequestFault{400, "not a valid HTTP request: it ends in the middle of its head"};
    is_gone = true;
    co_return std::nullopt;
  }
  boost::system::error_code error;
  buffer_.consume(parser.put(asio::buffer(buffer_.data().data(), scanner.end()), error));
  if (error) co_return parse_fault(error, options);
  co_return std::nullopt;
}

awaitable<bool> Connection::read_body(Parser& parser, size_t num_bytes, Request& request, const Route* route) {
  const ServerOptions& options = core_->options;
  timeout_.arm(options.body_timeout);
  if (expects_continue(parser.get()) && buffer_.size() == 0) {
    const auto [error, num_written] = co_await stream_.write(asio::buffer("HTTP/1.1 100 Continue\r\n\r\n", 25));
    if (error) co_return false;
  }
  auto share = std::make_shared<BodyShare>(core_);
  request.body_share = share;
  std::optional<RequestFault> fault;
  while (!fault && !parser.is_done() && parser.get().body().size() < num_bytes) {
    const boost::system::error_code error = co_await read_some_body(parser);
    if (timeout_.has_expired()) {
      fault = {408, fmt::format("the request's body did not come within {} s",
                                std::chrono::duration<double>(options.body_timeout).count())};
    } else if (error) {
      if (!stream_.socket.is_open() || error.category() == asio::error::get_system_category()) co_return false;
      fault = parse_fault(error, options);
    }
    const auto patience_ends = steady_clock::now() + options.budget_patience;
    while (!fault && !share->cover(parser.get().body().size())) {
      if (steady_clock::now() >= patience_ends)
        fault = {503, fmt::format("the bodies of all requests are more than {} bytes, as many as allowed at a time",
                                  options.max_body_bytes_in_flight)};
      pause_.expires_after(kBudgetPause);
      co_await pause_.async_wait(kResult);
      if (!stream_.socket.is_open()) co_return false;
    }
  }
  timeout_.disarm();
  if (!fault) co_return true;
  share.reset();
  request.body_share.reset();
  parser.get().body() = {};
  Response response = core_->error_format(fault->status, fault->message, request.path);
  if (fault->status == 503) response.headers.set("Retry-After", "1");
  co_await refuse(std::move(response), parser, route);
  co_return false;
}

awaitable<boost::system::error_code> Connection::read_some_body(Parser& parser) {
  co_return co_await read_into(stream_, buffer_, parser, kReadBytes);
}

// Answers a request whose body was not read, and ends the connection.
awaitable<void> Connection::refuse(Response response, const Parser& parser, const Route* route) {
  if (core_->observer) {
    const boost::beast::string_view target = parser.get().target();
    core_->observer({.method = parser.get().method_string(),
                     .path = std::string_view(target).substr(0, target.find('?')),
                     .peer = peer_,
                     .route = route ? std::string_view(route->path) : std::string_view(),
                     .status = response.status,
                     .num_body_bytes = response.body.size(),
                     .is_whole = true});
  }
  response.headers.set("Connection", "close");
  response.headers.set("Content-Length", std::to_string(response.body.size()));
  const auto origin = parser.get().find(bhttp::field::origin);
  add_origin(response.headers, origin == parser.get().end() ? std::string() : std::string(origin->value()),
             core_->options.door.cors);
  std::string wire = format_response_head(response.status, response.headers);
  if (parser.get().method() != bhttp::verb::head) wire += response.body;
  if (const bool written = co_await write_all(wire, true); written) co_await linger();
}

awaitable<void> Connection::answer(Exchange& exchange, const Server::Handler& handler) {
  using asio::experimental::awaitable_operators::operator||;
  co_await (run_handler(exchange, handler) || watch_for_close(exchange));
  if (!exchange.answer.has_ended()) co_await end_unfinished(exchange);
}

awaitable<void> Connection::run_handler(Exchange& exchange, const Server::Handler& handler) {
  try {
    co_await handler(exchange.call);
  } catch (const std::exception& exception) {
    const auto* error = dynamic_cast<const boost::system::system_error*>(&exception);
    const bool is_given_up = error && error->code() == asio::error::operation_aborted;
    if (!is_given_up) log::error("{} failed: {}", quoted(exchange.path), exception.what());
  }
  exchange.is_handled = true;
}

awaitable<void> Connection::end_unfinished(Exchange& exchange) {
  AnswerFraming& framing = exchange.answer;
  if (exchange.call.client_is_gone() || !stream_.socket.is_open()) {
    break_off();
    co_return;
  }
  const std::string& last_words = core_->options.last_words;
  const Response error =
      !is_cut_ ? core_->error_format(500, "the request was dropped", exchange.path)
               : core_->error_format(503, framing.has_begun() ? last_words + "; the answer is incomplete" : last_words,
                                     exchange.path);
  if (!framing.has_begun()) {
    co_await exchange.call.respond(error);
    co_return;
  }
  framing.close();
  std::string last = std::exchange(exchange.unsent, {});
  if (is_cut_ && framing.is_event_stream()) last += framing.part(format_sse(error.body));
  co_await write_answer(exchange, std::move(last));
  // A client sees that the last chunk is missing; what it has stays readable. Without chunks only a reset tells it.
  if (!framing.is_chunked()) break_off();
}

// While a request is answered: whatever comes is the next request; and the client may go away.
awaitable<void> Connection::watch_for_close(Exchange& exchange) {
  for (;;) {
    while (!exchange.parser.is_done() || buffer_.size() >= kMaxPipelinedBytes) {
      pause_.expires_at(steady_clock::time_point::max());
      co_await pause_.async_wait(kResult);
      if (is_cut_ || !stream_.socket.is_open()) co_return;
    }
    buffer_.shrink_to_fit();  // an answer may take long
    const boost::system::error_code error = co_await stream_.read_leanly(buffer_, kHeadReadBytes);
    if (exchange.is_handled || is_cut_) co_return;
    if (error == asio::error::eof && !stream_.has_tls()) break;  // who ends TLS, listens no more
    if (error) exchange.call.client_is_gone_ = true;
    if (error) co_return;
  }
  co_await watch_half_closed(exchange);
}

// The client says no more. It may still listen, or be gone: only bytes that nobody takes tell, since a system whose
// process is gone refuses them. So bytes that come in any case are sent ahead: the answer's first ones, which are
// always the same, or, in the midst of chunks, a zero before the next one's length.
awaitable<void> Connection::watch_half_closed(Exchange& exchange) {
  client_is_silent_ = true;
  const bool is_between_chunks = exchange.has_sent && exchange.answer.is_chunked() && !exchange.is_writing;
  const std::string_view probe = !exchange.has_sent ? kAnswerBegin : is_between_chunks ? "0" : "";
  const ssize_t num_sent =
      send(stream_.socket.native_handle(), probe.data(), probe.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (!exchange.has_sent && num_sent > 0) exchange.num_probed = static_cast<size_t>(num_sent);
  for (milliseconds pause = kFirstProbe; !is_cut_ && stream_.socket.is_open();
       pause = std::min(2 * pause, kLongestProbe)) {
    if (has_failed(stream_.socket)) break;
    pause_.expires_after(pause);
    co_await pause_.async_wait(kResult);
    if (exchange.is_handled) co_return;
  }
  if (!is_cut_) exchange.call.client_is_gone_ = true;
}

awaitable<void> Connection::write_answer(Exchange& exchange, std::string bytes) {
  if (const size_t num_probed = std::exchange(exchange.num_probed, 0)) bytes.erase(0, num_probed);
  if (!exchange.call.client_is_gone_) {
    exchange.has_sent = exchange.is_writing = true;
    const bool written = co_await write_all(bytes, exchange.answer.has_ended());
    exchange.is_writing = false;
    if (written) co_return;
  }
  exchange.call.client_is_gone_ = true;
  throw boost::system::system_error(asio::error::operation_aborted);
}

awaitable<bool> Connection::write_all(std::string_view bytes, bool is_last) {
  while (!bytes.empty()) {
    timeout_.arm(core_->options.write_timeout);
    boost::system::error_code error;
    if (is_last) {
      if (write_last(bytes, error)) break;
      if (error) co_return false;
      const auto [wait_error] = co_await stream_.wait_writable();
      error = wait_error;
    } else {
      const auto [write_error, num_bytes] = co_await stream_.write_some(asio::buffer(bytes.data(), bytes.size()));
      error = write_error;
      bytes.remove_prefix(num_bytes);
    }
    if (error) co_return false;
  }
  timeout_.disarm();
  co_return stream_.socket.is_open();
}

// Who has the last bytes of an answer may ask again at once, by another connection, and should find that this one can
// make room: so that is said before they go. True: all went.
bool Connection::write_last(std::string_view& bytes, boost::system::error_code& error) {
  if (buffer_.size() == 0) core_->begins_to_wait(this, true);
  bytes.remove_prefix(stream_.write_now(asio::buffer(bytes.data(), bytes.size()), error));
  if (bytes.empty()) return true;
  core_->ends_to_wait(this);
  if (error == asio::error::would_block) error = {};
  return false;
}

// After the last answer: what the client still sends is read and dropped, since closing with unread bytes resets the
// connection, and a reset may destroy the answer before the client has read it.
awaitable<void> Connection::linger() {
  boost::system::error_code ignored;
  stream_.end();
  stream_.socket.shutdown(asio::socket_base::shutdown_send, ignored);
  waits_for_head_ = true;
  core_->begins_to_wait(this, false);  // nobody needs it
  timeout_.arm(kLingerTimeout);
  char dropped[4096];
  for (;;) {
    const auto [error, num_bytes] = co_await stream_.socket.async_read_some(asio::buffer(dropped), kResult);
    if (error || timeout_.has_expired()) break;
  }
  timeout_.disarm();
  waits_for_head_ = false;
}

}  // namespace cachalot::http
