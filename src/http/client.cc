#include "http/client.h"

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <future>
#include <optional>

#include "http/await.h"
#include "http/client_connection.h"

namespace cachalot::http {

namespace asio = boost::asio;
namespace bhttp = boost::beast::http;
using asio::ip::tcp;

namespace {

constexpr auto kResult = asio::as_tuple(asio::use_awaitable);
constexpr size_t kPieceBytes = 16 << 10;

class BeastCall : public ClientCall, public std::enable_shared_from_this<BeastCall> {
 public:
  BeastCall(asio::io_context& context, const ClientOptions& options, std::shared_ptr<ConnectionPool> pool,
            ClientRequest request)
      : options_(options),
        pool_(std::move(pool)),
        request_(std::move(request)),
        server_(request_.url.authority()),
        connection_(request_.more_body ? nullptr : pool_->take(server_)),
        is_reused_(connection_ != nullptr),
        is_connected_(is_reused_),
        strand_(is_reused_ ? connection_->socket.get_executor() : asio::any_io_executor(asio::make_strand(context))) {
    if (!is_reused_) connection_ = make_connection();
    parser_.header_limit(static_cast<uint32_t>(options.max_header_bytes));
    parser_.body_limit(boost::none);
    parser_.skip(request_.method == "HEAD");
  }

  void start(std::function<void(Result<ResponseHead>)> on_head) {
    spawn<ResponseHead>([self = shared_from_this()] { return self->send(); }, std::move(on_head));
  }

  void read(std::function<void(Result<std::string>)> on_piece) override {
    spawn<std::string>([self = shared_from_this()] { return self->read_piece(); }, std::move(on_piece));
  }

  void cancel() override {
    asio::post(strand_, [self = shared_from_this()] {
      self->cancelled_ = true;
      if (self->resolver_) self->resolver_->cancel();
      if (!self->connection_) return;  // the answer is complete
      boost::system::error_code ignored;
      self->connection_->socket.close(ignored);
    });
  }

 private:
  std::shared_ptr<ClientConnection> make_connection() const {
    return std::make_shared<ClientConnection>(strand_, options_.max_header_bytes + kPieceBytes);
  }

  // Runs a step on the strand; the callback hears its result. The step keeps the call alive.
  template <class T, class Step>
  void spawn(Step step, std::function<void(Result<T>)> callback) {
    asio::co_spawn(strand_, std::move(step),
                   [self = shared_from_this(), callback = std::move(callback)](const std::exception_ptr& exception,
                                                                               Result<T> result) {
                     if (self->connection_) self->connection_->deadline.stop();
                     if (!exception) return callback(std::move(result));
                     try {
                       std::rethrow_exception(exception);
                     } catch (const std::exception& failure) {
                       callback(make_error(ErrorCode::kInternal, "{}: {}", self->server_, failure.what()));
                     }
                   });
  }

  asio::awaitable<Result<ResponseHead>> send() {
    for (;;) {
      if (!is_reused_) {
        Status connected = co_await connect();
        if (!connected) co_return std::unexpected(std::move(connected.error()));
      }
      const boost::system::error_code error = co_await exchange_heads();
      if (!error) break;
      const bool nothing_heard = !parser_.got_some() && connection_->buffer.size() == 0;
      if (!is_reused_ || !nothing_heard || cancelled_ || connection_->deadline.expired())
        co_return failure("no answer from", error);
      // The server closed a kept connection as the request was sent.
      connection_->deadline.stop();
      connection_ = make_connection();
      is_reused_ = is_connected_ = false;
    }
    request_.body = {};
    request_.headers = {};
    ResponseHead head{.status = static_cast<int>(parser_.get().result_int()), .headers = {}};
    for (const auto& field : parser_.get())
      head.headers.add(std::string(field.name_string()), std::string(field.value()));
    if (parser_.is_done()) release();
    co_return head;
  }

  asio::awaitable<Status> connect() {
    tcp::socket& socket = connection_->socket;
    connection_->deadline.arm(options_.connect_timeout, connection_);
    boost::system::error_code error;
    const auto address = asio::ip::make_address(request_.url.host, error);
    if (!error) {
      const auto [connect_error] = co_await socket.async_connect({address, request_.url.port}, kResult);
      error = connect_error;
    } else {
      resolver_.emplace(strand_);
      const auto [resolve_error, endpoints] =
          co_await resolver_->async_resolve(request_.url.host, std::to_string(request_.url.port), kResult);
      resolver_.reset();
      if (resolve_error || cancelled_) co_return failure("cannot find", resolve_error);
      const auto [connect_error, endpoint] = co_await asio::async_connect(socket, endpoints, kResult);
      error = connect_error;
    }
    if (error || cancelled_ || connection_->deadline.expired()) co_return failure("cannot reach", error);
    is_connected_ = true;
    socket.set_option(tcp::no_delay(true), error);
    co_return Status{};
  }

  // Sends the request and reads the answer's head.
  asio::awaitable<boost::system::error_code> exchange_heads() {
    ClientConnection& connection = *connection_;
    connection.deadline.arm(options_.idle_timeout, connection_);
    std::string head = format_head();
    if (request_.more_body && !request_.body_size) request_.body = chunk(request_.body);
    const std::array<asio::const_buffer, 2> bytes{asio::buffer(head), asio::buffer(request_.body)};
    auto [write_error, num_written] = co_await asio::async_write(connection.socket, bytes, kResult);
    if (!write_error && request_.more_body) write_error = co_await send_more();
    // A server that refuses early answers before it has read everything: the answer says more than the broken pipe.
    const auto [read_error, num_read] =
        co_await bhttp::async_read_header(connection.socket, connection.buffer, parser_, kResult);
    co_return !read_error ? read_error : write_error ? write_error : read_error;
  }

  asio::awaitable<boost::system::error_code> send_more() {
    const std::shared_ptr<BodySource> source = std::move(request_.more_body);
    for (;;) {
      auto read = [&](std::function<void(Result<std::string>)> on_piece) { source->read(std::move(on_piece)); };
      Result<std::string> piece = co_await await_callback<Result<std::string>>(std::move(read));
      if (!piece) {
        body_error_ = std::move(piece.error());
        boost::system::error_code ignored;
        connection_->socket.close(ignored);  // so that the server cannot take it for the whole
        co_return asio::error::operation_aborted;
      }
      const bool is_end = piece->empty();
      if (!request_.body_size) *piece = is_end ? "0\r\n\r\n" : chunk(*piece);
      connection_->deadline.arm(options_.idle_timeout, connection_);
      const auto [error, num_written] = co_await asio::async_write(connection_->socket, asio::buffer(*piece), kResult);
      if (error || is_end) co_return error;
    }
  }

  static std::string chunk(const std::string& bytes) {
    return bytes.empty() ? bytes : fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes);
  }

  std::string format_head() const {
    Headers headers = request_.headers;
    headers.set("Host", server_);
    if (!pool_->keeps_any()) headers.set("Connection", "close");
    const bool may_lack_body = request_.method == "GET" || request_.method == "HEAD" || request_.method == "OPTIONS";
    if (request_.more_body && !request_.body_size)
      headers.set("Transfer-Encoding", "chunked");
    else if (!request_.body.empty() || request_.more_body || !may_lack_body)
      headers.set("Content-Length", std::to_string(request_.body_size.value_or(request_.body.size())));
    return format_request_head(request_.method, request_.url.target, headers);
  }

  asio::awaitable<Result<std::string>> read_piece() {
    if (!connection_) co_return std::string();
    connection_->deadline.arm(options_.idle_timeout, connection_);
    parser_.eager(true);  // all chunks that are there at once
    boost::system::error_code error;
    std::string piece = take_body(error);
    while (!error && piece.empty() && !parser_.is_done()) {
      error = co_await fill_buffer();
      if (!error) piece = take_body(error);
    }
    if (error) co_return failure("the answer broke off:", error);
    piece.shrink_to_fit();  // it may wait for a slow reader
    if (parser_.is_done()) release();
    co_return piece;
  }

  // What the buffer holds of the body.
  std::string take_body(boost::system::error_code& error) {
    boost::beast::flat_buffer& buffer = connection_->buffer;
    std::string piece(buffer.size(), '\0');
    auto& body = parser_.get().body();
    body.data = piece.data();
    body.size = piece.size();
    body.more = true;
    while (buffer.size() > 0 && !error && !parser_.is_done()) buffer.consume(parser_.put(buffer.data(), error));
    if (error == bhttp::error::need_more || error == bhttp::error::need_buffer) error = {};
    piece.resize(piece.size() - body.size);
    return piece;
  }

  // Waits with no more memory than what is left of the last read.
  asio::awaitable<boost::system::error_code> fill_buffer() {
    ClientConnection& connection = *connection_;
    connection.buffer.shrink_to_fit();
    const auto [wait_error] = co_await connection.socket.async_wait(tcp::socket::wait_read, kResult);
    if (wait_error) co_return wait_error;
    auto [error, num_read] =
        co_await connection.socket.async_read_some(connection.buffer.prepare(kPieceBytes), kResult);
    connection.buffer.commit(num_read);
    if (error != asio::error::eof) co_return error;
    parser_.put_eof(error);  // the body's end, if nothing else says where it is
    co_return error;
  }

  // The answer is complete.
  void release() {
    connection_->deadline.stop();
    if (pool_->keeps_any() && parser_.keep_alive() && connection_->buffer.size() == 0 && !cancelled_)
      pool_->put(server_, std::move(connection_));
    connection_.reset();
  }

  std::unexpected<Error> failure(std::string_view what, const boost::system::error_code& error) const {
    if (body_error_) return std::unexpected(*body_error_);
    if (cancelled_) return make_error(ErrorCode::kCancelled, "the request to {} was given up", server_);
    if (connection_->deadline.expired())
      return make_error(is_connected_ ? ErrorCode::kDeadlineExceeded : ErrorCode::kUnavailable,
                        "{} {}: no word in time", what, server_);
    return make_error(ErrorCode::kUnavailable, "{} {}: {}", what, server_, error.message());
  }

  const ClientOptions options_;
  const std::shared_ptr<ConnectionPool> pool_;
  ClientRequest request_;
  const std::string server_;
  std::shared_ptr<ClientConnection> connection_;  // until the answer is complete
  bool is_reused_, is_connected_;
  const asio::any_io_executor strand_;
  std::optional<tcp::resolver> resolver_;
  bool cancelled_ = false;
  std::optional<Error> body_error_;  // of whoever sends more_body
  bhttp::response_parser<bhttp::buffer_body> parser_;
};

// Blocks until the callback that it gives out has been called.
template <class T>
class Waiter {
 public:
  std::function<void(Result<T>)> callback() {
    return [promise = promise_](Result<T> result) { promise->set_value(std::move(result)); };
  }
  Result<T> wait() { return promise_->get_future().get(); }

 private:
  std::shared_ptr<std::promise<Result<T>>> promise_ = std::make_shared<std::promise<Result<T>>>();
};

}  // namespace

struct BlockingCall::HeadPromise : Waiter<ResponseHead> {};

Result<ResponseHead> BlockingCall::head() {
  return head_->wait();
}

Result<std::string> BlockingCall::read() {
  Waiter<std::string> piece;
  call_->read(piece.callback());
  return piece.wait();
}

Client::Client(const IoThreads& threads, ClientOptions options)
    : threads_(threads),
      options_(options),
      pool_(std::make_shared<ConnectionPool>(options.max_idle_connections, options.idle_connection_timeout)) {}

std::shared_ptr<ClientCall> Client::start(ClientRequest request,
                                          std::function<void(Result<ResponseHead>)> on_head) const {
  auto call = std::make_shared<BeastCall>(threads_.context(), options_, pool_, std::move(request));
  call->start(std::move(on_head));
  return call;
}

BlockingCall Client::start_blocking(ClientRequest request) const {
  BlockingCall call;
  call.head_ = std::make_shared<BlockingCall::HeadPromise>();
  call.call_ = start(std::move(request), call.head_->callback());
  return call;
}

Result<Response> Client::fetch(ClientRequest request) const {
  BlockingCall call = start_blocking(std::move(request));
  ASSIGN_OR_RETURN(ResponseHead head, call.head());
  Response response{head.status, std::move(head.headers), {}};
  for (;;) {
    ASSIGN_OR_RETURN(const std::string piece, call.read());
    if (piece.empty()) return response;
    response.body += piece;
    if (response.body.size() > options_.max_body_bytes)
      return make_error(ErrorCode::kUnavailable, "the answer is larger than {} bytes", options_.max_body_bytes);
  }
}

}  // namespace cachalot::http
