#include "http/connection.h"

#include <fmt/format.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/read.hpp>

#include "base/log.h"
#include "http/framing.h"
#include "http/request_head.h"

namespace cachalot::http {

namespace asio = boost::asio;
namespace bhttp = boost::beast::http;
using std::chrono::steady_clock;

namespace {

constexpr auto kResult = asio::as_tuple(asio::use_awaitable);
constexpr size_t kMaxPipelinedBytes = 64 << 10;  // of requests that came while an earlier one is answered
constexpr auto kLingerTimeout = std::chrono::seconds(2);

std::string describe(const asio::ip::tcp::socket& socket) {
  boost::system::error_code error;
  const auto endpoint = socket.remote_endpoint(error);
  if (error) return "unknown";
  const auto address = endpoint.address();
  return fmt::format(fmt::runtime(address.is_v6() ? "[{}]:{}" : "{}:{}"), address.to_string(), endpoint.port());
}

}  // namespace

// What a handler has of its connection to read the rest of a body.
class Connection::Upload : public BodySource {
 public:
  Upload(std::shared_ptr<Connection> connection, std::shared_ptr<Exchange> exchange)
      : connection_(std::move(connection)), exchange_(std::move(exchange)) {}

  void read(std::function<void(Result<std::string>)> on_piece) override {
    asio::post(connection_->socket_.get_executor(),
               [connection = connection_, exchange = exchange_, on_piece = std::move(on_piece)]() mutable {
                 connection->pull_body(exchange.get(), std::move(on_piece));
               });
  }

 private:
  const std::shared_ptr<Connection> connection_;
  const std::shared_ptr<Exchange> exchange_;
};

Connection::Connection(asio::ip::tcp::socket socket, std::shared_ptr<ServerCore> core)
    : socket_(std::move(socket)),
      core_(std::move(core)),
      deadline_(socket_),
      buffer_(core_->options.max_header_bytes + (64 << 10)),
      peer_(describe(socket_)),
      wake_timer_(socket_.get_executor(), steady_clock::time_point::max()) {
  boost::system::error_code ignored;
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  socket_.set_option(asio::socket_base::keep_alive(true), ignored);
}

void Connection::start() {
  core_->add(shared_from_this());
  asio::co_spawn(
      socket_.get_executor(), [self = shared_from_this()] { return self->run(); },
      [self = shared_from_this()](const std::exception_ptr& exception) {
        try {
          if (exception) std::rethrow_exception(exception);
        } catch (const std::exception& failure) {
          log::error("connection from {} failed: {}", self->peer_, failure.what());
        }
        if (self->exchange_) self->exchange_->close();
        self->deadline_.stop();
        self->close_socket();
        self->core_->remove(self.get());
      });
}

void Connection::close() {
  asio::post(socket_.get_executor(), [self = shared_from_this()] { self->close_socket(); });
}

void Connection::close_when_idle() {
  asio::post(socket_.get_executor(), [self = shared_from_this()] {
    self->last_request_ = true;
    if (self->idle_) self->close_socket();
  });
}

void Connection::give_way() {
  asio::post(socket_.get_executor(), [self = shared_from_this()] {
    self->last_request_ = true;
    if (self->idle_ && self->has_served_) self->close_socket();
  });
}

void Connection::close_socket() {
  boost::system::error_code ignored;
  socket_.close(ignored);
  wake();
}

// A reset instead of an orderly end: what the client has is not the whole.
void Connection::break_off() {
  boost::system::error_code ignored;
  socket_.set_option(asio::socket_base::linger(true, 0), ignored);
  close_socket();
}

asio::awaitable<void> Connection::run() {
  for (;;) {
    const bool more = co_await serve_request();
    if (!more) break;
  }
}

asio::awaitable<bool> Connection::serve_request() {
  Parser parser;
  parser.header_limit(static_cast<uint32_t>(core_->options.max_header_bytes));
  parser.body_limit(core_->options.max_body_bytes);
  if (const bool read = co_await read_head(parser); !read) co_return false;
  const auto start = steady_clock::now();

  auto request = to_request(parser.get(), peer_);
  Decision decision =
      request ? decide(*request) : Decision{.response = core_->error_format(400, "the target must be a path")};
  // With a body still to come the connection ends here: nobody knows whether the client sends it after a refusal.
  if (!request || (decision.response && !parser.is_done())) {
    co_await refuse(std::move(*decision.response), parser);
    co_return false;
  }
  if (!parser.is_done()) {
    const size_t num_buffered = decision.pulls_body ? core_->options.max_buffered_body_bytes : SIZE_MAX;
    if (const bool read = co_await read_body(parser, num_buffered); !read) co_return false;
  }
  request->body = std::exchange(parser.get().body(), {});

  AnswerFraming answered{.is_http_10 = parser.get().version() == 10,
                         .head_only = request->method == "HEAD",
                         .keep_alive = parser.keep_alive() && !last_request_};
  const std::string line = log::shows(log::Level::kDebug) ? request->method + " " + request->path : std::string();
  if (!parser.is_done()) pull_ = std::make_unique<Pull>(socket_, parser);
  begin_exchange(std::move(decision), std::move(*request));
  bool keep_alive = co_await write_answer(answered);
  co_await stop_pulling();
  co_await stop_watching();
  if (!parser.is_done()) keep_alive = false;
  if (!line.empty())
    log::debug("{} \"{}\" {} {} bytes {:.1f} ms{}", peer_, line, answered.status, answered.num_body_bytes,
               std::chrono::duration<double, std::milli>(steady_clock::now() - start).count(),
               exchange_->closed() ? ", client gone" : "");
  exchange_.reset();
  has_served_ = true;
  if (!keep_alive && socket_.is_open() && (buffer_.size() > 0 || !parser.is_done())) co_await linger();
  co_return keep_alive;
}

Connection::Decision Connection::decide(const Request& request) const {
  RouteMatch match = core_->routes.match(request.method, request.path);
  if (match.handler == nullptr && request.method == "OPTIONS") {
    if (request.path == "*") match.allowed_methods = "GET, HEAD, POST, OPTIONS";
    if (!match.allowed_methods.empty())
      return {.response = preflight(request, match.allowed_methods, core_->options.allowed_origin)};
  }
  if (match.allowed_methods.empty())
    return {.response = core_->error_format(404, fmt::format("there is no {}", request.path))};
  if (match.handler == nullptr) {
    Response response = core_->error_format(405, fmt::format("{} does not take {}", request.path, request.method));
    response.headers.set("Allow", match.allowed_methods);
    return {.response = std::move(response)};
  }
  Decision decision{.handler = match.handler, .pulls_body = match.pulls_body};
  if (core_->head_check) decision.response = core_->head_check(request);
  return decision;
}

asio::awaitable<bool> Connection::read_head(Parser& parser) {
  const ServerOptions& options = core_->options;
  if (buffer_.size() == 0) {
    if (last_request_ && has_served_) co_return false;
    buffer_.shrink_to_fit();  // an idle connection holds no memory that a large body left behind
    idle_ = true;
    deadline_.arm(has_served_ ? options.idle_timeout : options.header_timeout, shared_from_this());
    const auto [error] = co_await socket_.async_wait(asio::socket_base::wait_read, kResult);
    idle_ = false;
    if (error) co_return false;
  }
  deadline_.arm(options.header_timeout, shared_from_this());
  const auto [error, num_bytes] = co_await bhttp::async_read_header(socket_, buffer_, parser, kResult);
  deadline_.disarm();
  if (!socket_.is_open() || error == bhttp::error::end_of_stream) co_return false;
  std::optional<RequestFault> fault;
  if (error.category() == bhttp::make_error_code(bhttp::error::bad_version).category())
    fault = parse_fault(error, options);
  else if (error)
    co_return false;
  else
    fault = check_head(parser.get());
  if (!fault) co_return true;
  log::debug("{} refused: {}", peer_, fault->message);
  co_await refuse(core_->error_format(fault->status, fault->message), parser);
  co_return false;
}

asio::awaitable<bool> Connection::read_body(Parser& parser, size_t num_bytes) {
  deadline_.arm(core_->options.body_timeout, shared_from_this());
  if (expects_continue(parser.get()) && buffer_.size() == 0) {
    const auto [error, num_written] =
        co_await asio::async_write(socket_, asio::buffer("HTTP/1.1 100 Continue\r\n\r\n", 25), kResult);
    if (error) co_return false;
  }
  boost::system::error_code error;
  while (!error && !parser.is_done() && parser.get().body().size() < num_bytes) {
    if (buffer_.size() == 0) buffer_.reserve(64 << 10);  // Beast reads as much at once as there is room for
    const auto [read_error, num_read] = co_await bhttp::async_read_some(socket_, buffer_, parser, kResult);
    error = read_error;
  }
  deadline_.disarm();
  if (!error) co_return true;
  if (!socket_.is_open() || error.category() == asio::error::get_system_category()) co_return false;
  const RequestFault fault = parse_fault(error, core_->options);
  co_await refuse(core_->error_format(fault.status, fault.message), parser);
  co_return false;
}

// Answers a request whose body was not read, and ends the connection.
asio::awaitable<void> Connection::refuse(Response response, const Parser& parser) {
  response.headers.set("Connection", "close");
  response.headers.set("Content-Length", std::to_string(response.body.size()));
  add_origin(core_->options.allowed_origin, response.headers);
  std::string wire = format_response_head(response.status, response.headers);
  if (parser.get().method() != bhttp::verb::head) wire += response.body;
  if (const bool written = co_await write_all(wire); written) co_await linger();
}

void Connection::begin_exchange(Decision decision, Request request) {
  exchange_ = std::make_shared<Exchange>(
      [weak = weak_from_this(), executor = socket_.get_executor()] {
        asio::post(executor, [weak] {
          if (const auto self = weak.lock()) self->wake();
        });
      },
      core_->options.max_queued_bytes);
  stop_watching_ = false;
  if (pull_)
    request.more_body = std::make_shared<Upload>(shared_from_this(), exchange_);
  else
    watch_for_close();
  if (decision.response) return exchange_->respond(std::move(*decision.response));
  const std::string path = request.path;
  try {
    (*decision.handler)(std::move(request), Responder(exchange_));
  } catch (const std::exception& exception) {
    log::error("{} failed: {}", path, exception.what());
    exchange_->abandon();
  }
}

asio::awaitable<bool> Connection::write_answer(AnswerFraming& answered) {
  for (;;) {
    if (exchange_->closed()) {
      break_off();
      exchange_->close();
      co_return false;
    }
    Exchange::Batch batch = exchange_->take();
    if (batch.empty()) {
      co_await wait_until_woken();
      continue;
    }
    const std::string wire = answered.frame(batch, core_->options.allowed_origin);
    if (const bool written = co_await write_all(wire); !written) {
      exchange_->close();
      co_return false;
    }
    for (Exchange::Piece& piece : batch.pieces) {
      exchange_->acknowledge(piece.bytes.size());
      if (piece.on_written) piece.on_written();
    }
    if (batch.aborted) {
      // A client sees that the last chunk is missing; what it has stays readable. Without chunks only a reset tells it.
      if (!answered.chunked) break_off();
      co_return false;
    }
    if (batch.ended) co_return answered.keep_alive && !last_request_;
  }
}

asio::awaitable<bool> Connection::write_all(std::string_view bytes) {
  while (!bytes.empty()) {
    deadline_.arm(core_->options.write_timeout, shared_from_this());
    const auto [error, num_bytes] =
        co_await socket_.async_write_some(asio::buffer(bytes.data(), bytes.size()), kResult);
    if (error) co_return false;
    bytes.remove_prefix(num_bytes);
  }
  deadline_.disarm();
  co_return socket_.is_open();
}

// After the last answer: what the client still sends is read and dropped, since closing with unread bytes resets the
// connection, and a reset may destroy the answer before the client has read it.
asio::awaitable<void> Connection::linger() {
  boost::system::error_code ignored;
  socket_.shutdown(asio::socket_base::shutdown_send, ignored);
  deadline_.arm(kLingerTimeout, shared_from_this());
  char dropped[4096];
  for (;;) {
    const auto [error, num_bytes] = co_await socket_.async_read_some(asio::buffer(dropped), kResult);
    if (error) break;
  }
  deadline_.disarm();
}

void Connection::pull_body(const Exchange* exchange, std::function<void(Result<std::string>)> on_piece) {
  const bool is_over = exchange_.get() != exchange || !pull_ || pull_->is_reading || !socket_.is_open();
  if (is_over) return on_piece(make_error(ErrorCode::kCancelled, "the request is over"));
  pull_->is_reading = true;
  asio::co_spawn(
      socket_.get_executor(), [self = shared_from_this()] { return self->read_piece(); },
      asio::bind_cancellation_slot(pull_->cancel.slot(),
                                   [self = shared_from_this(), on_piece = std::move(on_piece)](
                                       const std::exception_ptr& exception, Result<std::string> piece) {
                                     const bool is_whole = self->pull_->parser.is_done();
                                     self->pull_->is_reading = false;
                                     self->pull_->deadline.stop();
                                     if (exception)
                                       piece = make_error(ErrorCode::kInternal, "reading the request's body failed");
                                     if (is_whole && self->exchange_ && !self->stop_watching_) self->watch_for_close();
                                     self->wake();
                                     on_piece(std::move(piece));
                                   }));
}

asio::awaitable<Result<std::string>> Connection::read_piece() {
  Parser& parser = pull_->parser;
  pull_->deadline.arm(core_->options.body_timeout, shared_from_this());
  boost::system::error_code error;
  while (!error && !parser.is_done() && parser.get().body().empty()) {
    if (buffer_.size() == 0) buffer_.reserve(64 << 10);  // Beast reads as much at once as there is room for
    const auto [read_error, num_read] = co_await bhttp::async_read_some(socket_, buffer_, parser, kResult);
    error = read_error;
  }
  if (error) {
    const RequestFault fault = parse_fault(error, core_->options);
    co_return make_error(fault.status == 413 ? ErrorCode::kTooLarge : ErrorCode::kInvalidArgument, "{}", fault.message);
  }
  co_return std::exchange(parser.get().body(), {});
}

// The answer is out, whether or not anybody has read the rest of the request.
asio::awaitable<void> Connection::stop_pulling() {
  if (!pull_) co_return;
  stop_watching_ = true;
  pull_->cancel.emit(asio::cancellation_type::total);
  while (pull_->is_reading) co_await wait_until_woken();
  pull_.reset();
}

// Reads on while a request is answered: the end of the stream means that the client went away; bytes are the next
// request.
void Connection::watch_for_close() {
  if (watching_ || buffer_.size() >= kMaxPipelinedBytes) return;
  watching_ = true;
  stop_watching_ = false;
  buffer_.shrink_to_fit();  // an answer may take long
  socket_.async_wait(asio::socket_base::wait_read,
                     asio::bind_cancellation_slot(watch_cancel_.slot(),
                                                  [self = shared_from_this()](const boost::system::error_code& error) {
                                                    if (error || self->stop_watching_) return self->stop_watch(error);
                                                    self->read_ahead();
                                                  }));
}

void Connection::read_ahead() {
  socket_.async_read_some(
      buffer_.prepare(2048),
      asio::bind_cancellation_slot(
          watch_cancel_.slot(), [self = shared_from_this()](const boost::system::error_code& error, size_t num_bytes) {
            self->buffer_.commit(num_bytes);
            self->stop_watch(error);
            if (!error && !self->stop_watching_) self->watch_for_close();
          }));
}

void Connection::stop_watch(const boost::system::error_code& error) {
  watching_ = false;
  if (stop_watching_) return wake();
  if (!error) return;
  exchange_->close();
  close_socket();
}

asio::awaitable<void> Connection::stop_watching() {
  stop_watching_ = true;
  watch_cancel_.emit(asio::cancellation_type::total);
  while (watching_) co_await wait_until_woken();
}

asio::awaitable<void> Connection::wait_until_woken() {
  if (!woken_) co_await wake_timer_.async_wait(kResult);
  woken_ = false;
}

void Connection::wake() {
  woken_ = true;
  wake_timer_.cancel();
  // A client that was cut for being slow may hold the connection in a write.
  if (exchange_ && exchange_->closed() && socket_.is_open()) break_off();
}

}  // namespace cachalot::http
