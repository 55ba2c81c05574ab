#include "http/client.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <future>

#include "http/deadline.h"

namespace cachalot::http {

namespace asio = boost::asio;
namespace bhttp = boost::beast::http;
using asio::ip::tcp;

namespace {

constexpr auto kResult = asio::as_tuple(asio::use_awaitable);
constexpr size_t kPieceBytes = 16 << 10;

class BeastCall : public ClientCall, public std::enable_shared_from_this<BeastCall> {
 public:
  BeastCall(asio::io_context& context, const ClientOptions& options, ClientRequest request)
      : options_(options),
        url_(request.url),
        resolver_(asio::make_strand(context)),
        socket_(resolver_.get_executor()),
        deadline_(socket_),
        buffer_(options.max_header_bytes + kPieceBytes) {
    parser_.header_limit(static_cast<uint32_t>(options.max_header_bytes));
    parser_.body_limit(boost::none);
    parser_.skip(request.method == "HEAD");
    request_.method_string(request.method);
    request_.target(url_.target);
    for (const auto& [name, value] : request.headers) request_.insert(name, value);
    request_.set(bhttp::field::host, url_.authority());
    request_.set(bhttp::field::connection, "close");
    request_.body() = std::move(request.body);
    request_.prepare_payload();
  }

  void start(std::function<void(Result<ResponseHead>)> on_head) {
    spawn<ResponseHead>([self = shared_from_this()] { return self->send(); }, std::move(on_head));
  }

  void read(std::function<void(Result<std::string>)> on_piece) override {
    spawn<std::string>([self = shared_from_this()] { return self->read_piece(); }, std::move(on_piece));
  }

  void cancel() override {
    asio::post(socket_.get_executor(), [self = shared_from_this()] {
      self->cancelled_ = true;
      self->resolver_.cancel();
      boost::system::error_code ignored;
      self->socket_.close(ignored);
    });
  }

 private:
  // Runs a step on the strand; the callback hears its result. The step keeps the call alive.
  template <class T, class Step>
  void spawn(Step step, std::function<void(Result<T>)> callback) {
    asio::co_spawn(socket_.get_executor(), std::move(step),
                   [self = shared_from_this(), callback = std::move(callback)](const std::exception_ptr& exception,
                                                                               Result<T> result) {
                     self->deadline_.stop();
                     if (!exception) return callback(std::move(result));
                     try {
                       std::rethrow_exception(exception);
                     } catch (const std::exception& failure) {
                       callback(make_error(ErrorCode::kInternal, "{}: {}", self->url_.authority(), failure.what()));
                     }
                   });
  }

  asio::awaitable<Result<ResponseHead>> send() {
    deadline_.arm(options_.connect_timeout, shared_from_this());
    const auto [resolve_error, endpoints] =
        co_await resolver_.async_resolve(url_.host, std::to_string(url_.port), kResult);
    if (resolve_error || cancelled_) co_return failure("cannot find", resolve_error);
    const auto [connect_error, endpoint] = co_await asio::async_connect(socket_, endpoints, kResult);
    if (connect_error || deadline_.expired()) co_return failure("cannot reach", connect_error);
    boost::system::error_code ignored;
    socket_.set_option(tcp::no_delay(true), ignored);
    deadline_.arm(options_.idle_timeout, shared_from_this());
    const auto [write_error, num_written] = co_await bhttp::async_write(socket_, request_, kResult);
    request_.body() = {};
    // A server that refuses early answers before it has read everything: the answer says more than the broken pipe.
    const auto [read_error, num_read] = co_await bhttp::async_read_header(socket_, buffer_, parser_, kResult);
    if (read_error) co_return failure("no answer from", write_error ? write_error : read_error);
    ResponseHead head{.status = static_cast<int>(parser_.get().result_int()), .headers = {}};
    for (const auto& field : parser_.get())
      head.headers.add(std::string(field.name_string()), std::string(field.value()));
    co_return head;
  }

  asio::awaitable<Result<std::string>> read_piece() {
    deadline_.arm(options_.idle_timeout, shared_from_this());
    while (!parser_.is_done()) {
      if (buffer_.size() == 0) {
        buffer_.shrink_to_fit();
        const auto [wait_error] = co_await socket_.async_wait(tcp::socket::wait_read, kResult);
        if (wait_error) co_return failure("the answer broke off:", wait_error);
      }
      buffer_.reserve(kPieceBytes);  // Beast reads as much as there is room for
      std::string piece(kPieceBytes, '\0');
      auto& body = parser_.get().body();
      body.data = piece.data();
      body.size = piece.size();
      body.more = true;
      const auto [error, num_read] = co_await bhttp::async_read_some(socket_, buffer_, parser_, kResult);
      if (error && error != bhttp::error::need_buffer) co_return failure("the answer broke off:", error);
      piece.resize(piece.size() - body.size);
      if (!piece.empty()) co_return piece;
    }
    co_return std::string();
  }

  std::unexpected<Error> failure(std::string_view what, const boost::system::error_code& error) const {
    if (cancelled_) return make_error(ErrorCode::kCancelled, "the request to {} was given up", url_.authority());
    if (deadline_.expired())
      return make_error(ErrorCode::kDeadlineExceeded, "{} {}: no word in time", what, url_.authority());
    return make_error(ErrorCode::kUnavailable, "{} {}: {}", what, url_.authority(), error.message());
  }

  const ClientOptions options_;
  const Url url_;
  tcp::resolver resolver_;
  tcp::socket socket_;
  Deadline deadline_;
  bool cancelled_ = false;
  bhttp::request<bhttp::string_body> request_;
  boost::beast::flat_buffer buffer_;
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

std::shared_ptr<ClientCall> Client::start(ClientRequest request,
                                          std::function<void(Result<ResponseHead>)> on_head) const {
  auto call = std::make_shared<BeastCall>(threads_.context(), options_, std::move(request));
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
