#include "http/client.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <cerrno>
#include <deque>
#include <unordered_map>

#include "http/framing.h"
#include "http/stream.h"

namespace cachalot::http {

namespace asio = boost::asio;
namespace bhttp = boost::beast::http;
using asio::ip::tcp;

namespace {

constexpr size_t kPieceBytes = 16 << 10;
constexpr size_t kAnswerHeadReadBytes = 4 << 10;
constexpr int kMostInterim = 16;  // answers of 1xx before the one that counts

// A connection to a server, and what was read from it and not yet used. Used by one call at a time, on its strand.
struct ClientConnection {
  ClientConnection(asio::io_context& context, size_t max_buffered_bytes)
      : stream(Socket(context)), buffer(max_buffered_bytes) {}

  // Whether nothing speaks against another request: the server has neither closed it nor said anything unasked.
  // While nothing is under way.
  bool is_quiet() {
    if (!stream.socket.is_open() || buffer.size() > 0) return false;
    if (stream.has_tls()) {  // tickets of its session may have come
      boost::system::error_code error;
      char byte;
      return stream.read_now(asio::buffer(&byte, 1), error) == 0 && error == asio::error::would_block;
    }
    char byte;
    const ssize_t num_read = recv(stream.socket.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return num_read < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
  }

  Stream stream;
  boost::beast::flat_buffer buffer;
};

std::string chunk(const std::string& bytes) {
  return bytes.empty() ? bytes : fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes);
}

}  // namespace

// Connections between two requests, by the server's address. What was used last is used next, so that those beyond the
// need grow old; these are closed when the pool is used the next time. Thread-safe.
class ConnectionPool {
 public:
  ConnectionPool(int max_idle_per_server, std::chrono::milliseconds idle_timeout, std::shared_ptr<const TlsContext> tls)
      : max_idle_per_server_(static_cast<size_t>(max_idle_per_server)),
        idle_timeout_(idle_timeout),
        tls_(std::move(tls)) {}

  // The system's authorities are read when they are first asked.
  Result<std::shared_ptr<const TlsContext>> tls() {
    const std::lock_guard lock(mutex_);
    if (!tls_) {
      ASSIGN_OR_RETURN(tls_, TlsContext::of_client(""));
    }
    return tls_;
  }

  bool keeps_any() const { return max_idle_per_server_ > 0; }

  // Null: none is there.
  std::unique_ptr<ClientConnection> take(const std::string& server) {
    const std::lock_guard lock(mutex_);
    const auto found = idle_.find(server);
    if (found == idle_.end()) return nullptr;
    Queue& queue = found->second;
    close_old(queue);
    while (!queue.empty()) {
      std::unique_ptr<ClientConnection> connection = std::move(queue.back().connection);
      queue.pop_back();
      if (connection->is_quiet()) return connection;
    }
    return nullptr;
  }

  void put(const std::string& server, std::unique_ptr<ClientConnection> connection) {
    connection->buffer.shrink_to_fit();
    const std::lock_guard lock(mutex_);
    Queue& queue = idle_[server];
    queue.push_back({std::move(connection), std::chrono::steady_clock::now()});
    if (queue.size() > max_idle_per_server_) queue.pop_front();
    close_old(queue);
  }

 private:
  struct Idle {
    std::unique_ptr<ClientConnection> connection;
    std::chrono::steady_clock::time_point since;
  };
  using Queue = std::deque<Idle>;  // the oldest first

  void close_old(Queue& queue) const {
    const auto oldest = std::chrono::steady_clock::now() - idle_timeout_;
    while (!queue.empty() && queue.front().since < oldest) queue.pop_front();
  }

  const size_t max_idle_per_server_;
  const std::chrono::milliseconds idle_timeout_;
  std::mutex mutex_;
  std::shared_ptr<const TlsContext> tls_;
  std::unordered_map<std::string, Queue> idle_;
};

struct ClientCall::Impl {
  Impl(asio::io_context& context, const ClientOptions& options, std::shared_ptr<ConnectionPool> pool,
       ClientRequest request)
      : context(context),
        options(options),
        pool(std::move(pool)),
        request(std::move(request)),
        server(this->request.url.authority()),
        pool_name(this->request.url.is_https ? "https://" + server : server) {
    expect_head();
  }
  ~Impl() {
    if (timeout) timeout->stop();
  }

  awaitable<Result<ResponseHead>> send() {
    timeout.emplace(co_await asio::this_coro::executor, [this] {
      if (is_patient) return close();
      boost::system::error_code ignored;
      connection->stream.socket.cancel(ignored);
    });
    if (!request.more_body) connection = pool->take(pool_name);
    is_reused = is_connected = connection != nullptr;
    if (!is_reused) make_connection();
    for (;;) {
      if (!is_connected) {
        Status connected = co_await connect();
        if (!connected) co_return std::unexpected(std::move(connected.error()));
      }
      const boost::system::error_code error = co_await exchange_heads();
      if (!error) break;
      const bool nothing_heard = !has_heard && !parser->got_some() && connection->buffer.size() == 0;
      const bool is_lost = nothing_heard && !is_cancelled && !body_error && !timeout->has_expired() &&
                           error != asio::error::operation_aborted;
      if (is_lost) num_lost++;
      if (!is_lost || !is_reused) co_return failure("no answer from", error);
      make_connection();  // the server closed a kept connection as the request was sent
    }
    timeout->disarm();
    request.body = {};
    request.headers = {};
    ResponseHead head{.status = static_cast<int>(parser->get().result_int()), .headers = {}};
    for (const auto& field : parser->get())
      head.headers.add(std::string(field.name_string()), std::string(field.value()));
    if (parser->is_done()) release();
    co_return head;
  }

  awaitable<Result<std::string>> read(std::optional<std::chrono::milliseconds> patience) {
    if (!connection) co_return std::string();
    parser->eager(true);  // all chunks that are there at once
    boost::system::error_code error;
    std::string piece = take_body(error);
    if (!error && piece.empty() && !parser->is_done()) {
      is_patient = !patience;
      timeout->arm(patience.value_or(options.idle_timeout));
      while (!error && piece.empty() && !parser->is_done()) {
        error = co_await fill_buffer();
        if (!error) piece = take_body(error);
      }
      const bool is_unheard = error && timeout->has_expired() && !is_patient;
      timeout->disarm();
      if (is_unheard) co_return make_error(ErrorCode::kDeadlineExceeded, "nothing yet from {}", server);
    }
    if (error) co_return failure("the answer broke off:", error);
    piece.shrink_to_fit();  // it may wait for a slow reader
    if (parser->is_done()) release();
    co_return piece;
  }

  void close() {
    if (resolver) resolver->cancel();
    if (!connection) return;  // the answer is complete
    boost::system::error_code ignored;
    connection->stream.socket.close(ignored);
  }

  awaitable<Status> connect() {
    Socket& socket = connection->stream.socket;
    timeout->arm(options.connect_timeout);
    boost::system::error_code error;
    std::vector<tcp::endpoint> endpoints;
    if (const auto address = asio::ip::make_address(request.url.host, error); !error) {
      endpoints.emplace_back(address, request.url.port);
    } else {
      tcp::resolver working(context);
      resolver = &working;
      const auto [resolve_error, found] =
          co_await working.async_resolve(request.url.host, std::to_string(request.url.port), kResult);
      resolver = nullptr;
      if (resolve_error || is_cancelled) co_return failure("cannot find", resolve_error);
      for (const auto& entry : found) endpoints.push_back(entry.endpoint());
    }
    for (const tcp::endpoint& endpoint : endpoints) {
      if (is_cancelled || timeout->has_expired()) break;
      boost::system::error_code ignored;
      socket.close(ignored);  // the one before did not answer
      const auto [connect_error] = co_await socket.async_connect(endpoint, kResult);
      error = connect_error;
      if (!error) break;
    }
    if (error || is_cancelled || timeout->has_expired()) co_return failure("cannot reach", error);
    is_connected = true;
    socket.set_option(tcp::no_delay(true), error);
    socket.non_blocking(true, error);
    if (!request.url.is_https) co_return Status{};
    auto tls = pool->tls();
    if (!tls) co_return std::unexpected(std::move(tls.error()));
    const boost::system::error_code failed = co_await connection->stream.shake_hands(**tls, false, request.url.host);
    if (failed)
      co_return timeout->has_expired() || is_cancelled
          ? failure("no TLS with", failed)
          : make_error(ErrorCode::kUnavailable, "no TLS with {}: {}", server, connection->stream.why(failed));
    co_return Status{};
  }

  // Sends the request and reads the answer's head.
  awaitable<boost::system::error_code> exchange_heads() {
    timeout->arm(options.idle_timeout);
    const std::string head = format_head();
    if (request.more_body && !request.body_size) request.body = chunk(request.body);
    const auto [first_error, num_written] =
        co_await connection->stream.write(asio::buffer(head), asio::buffer(request.body));
    boost::system::error_code write_error = first_error;
    if (!write_error && request.more_body) write_error = co_await send_more();
    // A server that refuses early answers before it has read everything: the answer says more than the broken pipe.
    for (int num_interim = 0; num_interim <= kMostInterim; num_interim++) {
      boost::system::error_code read_error;
      while (!read_error && !parser->is_header_done())
        read_error = co_await read_into(connection->stream, connection->buffer, *parser, kAnswerHeadReadBytes);
      if (read_error) co_return write_error ? write_error : read_error;
      if (const boost::system::error_code fault = check_answer_head(parser->get())) co_return fault;
      if (parser->get().result_int() >= 200) co_return boost::system::error_code();
      has_heard = true;
      expect_head();
    }
    co_return bhttp::error::bad_status;
  }

  awaitable<boost::system::error_code> send_more() {
    const auto more_body = std::move(request.more_body);
    for (;;) {
      timeout->disarm();  // the sender has a clock of its own
      Result<std::string> piece = co_await more_body();
      if (!piece) {
        body_error = std::move(piece.error());
        close();  // so that the server cannot take it for the whole
        co_return asio::error::operation_aborted;
      }
      const bool is_end = piece->empty();
      if (!request.body_size) *piece = is_end ? "0\r\n\r\n" : chunk(*piece);
      timeout->arm(options.idle_timeout);
      const auto [error, num_written] = co_await connection->stream.write(asio::buffer(*piece));
      if (error || is_end) co_return error;
    }
  }

  std::string format_head() const {
    Headers headers = request.headers;
    headers.set("Host", server);
    if (!pool->keeps_any()) headers.set("Connection", "close");
    const bool may_lack_body = request.method == "GET" || request.method == "HEAD" || request.method == "OPTIONS";
    if (request.more_body && !request.body_size)
      headers.set("Transfer-Encoding", "chunked");
    else if (!request.body.empty() || request.more_body || !may_lack_body)
      headers.set("Content-Length", std::to_string(request.body_size.value_or(request.body.size())));
    return format_request_head(request.method, request.url.target, headers);
  }

  // What the buffer holds of the body.
  std::string take_body(boost::system::error_code& error) {
    boost::beast::flat_buffer& buffer = connection->buffer;
    if (buffer.size() == 0) return {};
    std::string piece(buffer.size(), '\0');
    auto& body = parser->get().body();
    body.data = piece.data();
    body.size = piece.size();
    body.more = true;
    while (buffer.size() > 0 && !error && !parser->is_done()) buffer.consume(parser->put(buffer.data(), error));
    if (error == bhttp::error::need_more || error == bhttp::error::need_buffer) error = {};
    piece.resize(piece.size() - body.size);
    return piece;
  }

  // Waits with no more memory than what is left of the last read.
  awaitable<boost::system::error_code> fill_buffer() {
    boost::beast::flat_buffer& buffer = connection->buffer;
    buffer.shrink_to_fit();
    boost::system::error_code error = co_await connection->stream.read_leanly(buffer, kPieceBytes);
    if (error == asio::error::eof) parser->put_eof(error);  // the body's end, if nothing else says where it is
    co_return error;
  }

  void expect_head() {
    parser.emplace();
    parser->header_limit(static_cast<uint32_t>(options.max_header_bytes));
    parser->body_limit(boost::none);
    parser->skip(request.method == "HEAD");
  }

  void make_connection() {
    connection = std::make_unique<ClientConnection>(context, options.max_header_bytes + kPieceBytes);
    is_reused = is_connected = false;
  }

  // The answer is complete.
  void release() {
    timeout->stop();
    if (pool->keeps_any() && parser->keep_alive() && connection->buffer.size() == 0 && !is_cancelled)
      pool->put(pool_name, std::move(connection));
    connection.reset();
  }

  std::unexpected<Error> failure(std::string_view what, const boost::system::error_code& error) const {
    if (body_error) return std::unexpected(*body_error);
    if (timeout->has_expired())
      return make_error(
          is_connected ? ErrorCode::kDeadlineExceeded : ErrorCode::kUnavailable, "{} {}: no word within {:g} s", what,
          server, std::chrono::duration<double>(is_connected ? options.idle_timeout : options.connect_timeout).count());
    if (is_cancelled || error == asio::error::operation_aborted)
      return make_error(ErrorCode::kCancelled, "the request to {} was given up", server);
    return make_error(ErrorCode::kUnavailable, "{} {}: {}", what, server, error.message());
  }

  asio::io_context& context;
  const ClientOptions options;
  const std::shared_ptr<ConnectionPool> pool;
  ClientRequest request;
  const std::string server, pool_name;
  std::unique_ptr<ClientConnection> connection;  // until the answer is complete
  std::optional<Timeout> timeout;                // of what is awaited
  bool is_reused = false, is_connected = false, is_cancelled = false;
  bool has_heard = false;  // that the server is at work, in interim answers
  bool is_patient = true;  // what takes too long is not to be closed, only to be awaited no more
  int num_lost = 0;
  tcp::resolver* resolver = nullptr;  // while it works
  std::optional<Error> body_error;    // of whoever sends more_body
  std::optional<bhttp::response_parser<bhttp::buffer_body>> parser;
};

ClientCall::ClientCall(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ClientCall::ClientCall(ClientCall&&) noexcept = default;
ClientCall::~ClientCall() = default;

awaitable<Result<ResponseHead>> ClientCall::head() {
  return impl_->send();
}

awaitable<Result<std::string>> ClientCall::read() {
  return impl_->read(std::nullopt);
}

awaitable<Result<std::string>> ClientCall::read_within(std::chrono::milliseconds patience) {
  return impl_->read(patience);
}

bool ClientCall::is_complete() const {
  return !impl_->connection;
}

void ClientCall::close() {
  impl_->is_cancelled = true;
  impl_->close();
}

int ClientCall::num_lost() const {
  return impl_->num_lost;
}

Client::Client(const IoThreads& threads, ClientOptions options)
    : threads_(threads),
      options_(options),
      pool_(std::make_shared<ConnectionPool>(options.max_idle_connections, options.idle_connection_timeout,
                                             options.tls)) {}

ClientCall Client::call(ClientRequest request) const {
  return ClientCall(std::make_unique<ClientCall::Impl>(threads_.context(), options_, pool_, std::move(request)));
}

awaitable<Result<Response>> Client::ask(ClientRequest request) const {
  ClientCall call = this->call(std::move(request));
  Result<ResponseHead> head = co_await call.head();
  if (!head) co_return std::unexpected(std::move(head.error()));
  Response response{head->status, std::move(head->headers), {}};
  for (;;) {
    Result<std::string> piece = co_await call.read();
    if (!piece) co_return std::unexpected(std::move(piece.error()));
    if (piece->empty()) co_return response;
    response.body += *piece;
    if (response.body.size() > options_.max_body_bytes)
      co_return make_error(ErrorCode::kUnavailable, "the answer is larger than {} bytes", options_.max_body_bytes);
  }
}

}  // namespace cachalot::http
