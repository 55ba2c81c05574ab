#include "comm/membership/asio_network.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/rand.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <deque>
#include <utility>

#include "base/log.h"

namespace cachalot::control {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

class TcpConnection : public Connection, public std::enable_shared_from_this<TcpConnection> {
 public:
  explicit TcpConnection(tcp::socket socket);
  void start(Events events) override;
  void send_frame(std::string frame) override;
  bool has_unsent() const override { return !unsent_.empty(); }
  void set_max_receive_bytes(size_t max_bytes) override { max_receive_bytes_ = max_bytes; }
  void set_send_timeout(std::chrono::milliseconds timeout) override;
  void finish() override;
  void close() override;
  bool ended() const override { return ended_; }
  std::string peer() const override { return peer_; }
  std::string peer_address() const override { return peer_address_; }

 private:
  void write_next();
  void read_header();
  void read_payload(FrameHeader header);
  void deliver();
  template <class Body>
  void attempt(Body body);
  void end_read(error_code error);
  void end(const Error& error);
  void shut_down_sending();

  tcp::socket socket_;
  asio::steady_timer finish_timer_;
  size_t max_receive_bytes_ = kMaxHelloBytes;
  std::string peer_, peer_address_;
  std::shared_ptr<Events> events_;  // held by whoever calls one: close() may come from inside
  std::deque<std::string> unsent_;
  std::array<char, kFrameHeaderBytes> header_{};
  Frame frame_;
  bool finishing_ = false, sending_failed_ = false, ended_ = false;
};

TcpConnection::TcpConnection(tcp::socket socket) : socket_(std::move(socket)), finish_timer_(socket_.get_executor()) {
  error_code error;  // a connection that breaks at once is found broken by the first read
  socket_.set_option(tcp::no_delay(true), error);
  fcntl(socket_.native_handle(), F_SETFD, FD_CLOEXEC);  // else a child would keep it open after its owner's death
  const tcp::endpoint remote = socket_.remote_endpoint(error);
  if (!error) {
    peer_address_ = remote.address().to_string();
    peer_ = fmt::format("{}:{}", peer_address_, remote.port());
  }
}

void TcpConnection::set_send_timeout(std::chrono::milliseconds timeout) {
  const auto milliseconds = static_cast<unsigned int>(timeout.count());
  setsockopt(socket_.native_handle(), IPPROTO_TCP, TCP_USER_TIMEOUT, &milliseconds, sizeof milliseconds);
}

void TcpConnection::start(Events events) {
  events_ = std::make_shared<Events>(std::move(events));
  read_header();
}

void TcpConnection::send_frame(std::string frame) {
  if (ended_ || finishing_ || sending_failed_) return;
  unsent_.push_back(std::move(frame));
  if (unsent_.size() == 1) write_next();
}

// A handler that throws ends its connection with a word: it would stay open, and nobody would read it any more.
template <class Body>
void TcpConnection::attempt(Body body) {
  if (ended_) return;
  try {
    body();
  } catch (const std::exception& exception) {
    log::error("a control connection to {} ends: {}", peer_, exception.what());
    if (!ended_) end({.code = ErrorCode::kInternal, .message = exception.what()});
  }
}

void TcpConnection::write_next() {
  asio::async_write(socket_, asio::buffer(unsent_.front()), [self = shared_from_this()](error_code error, size_t) {
    self->attempt([&] {
      if (error) {
        // What the peer said before it went may still lie unread, and says more: the reader ends the connection.
        self->sending_failed_ = true;
        return self->unsent_.clear();
      }
      self->unsent_.pop_front();
      if (!self->unsent_.empty())
        self->write_next();
      else if (self->finishing_)
        self->shut_down_sending();
    });
  });
}

void TcpConnection::read_header() {
  asio::async_read(socket_, asio::buffer(header_), [self = shared_from_this()](error_code error, size_t size) {
    self->attempt([&] {
      const std::string_view bytes(self->header_.data(), size);
      // What a stranger says is worth more than that it went away meanwhile.
      if (error && size == 0) return self->end_read(error);
      Result<FrameHeader> header = decode_header(bytes, self->max_receive_bytes_);
      if (!header) return self->end(header.error());
      self->read_payload(*header);
    });
  });
}

void TcpConnection::read_payload(FrameHeader header) {
  frame_.header = header;
  frame_.payload.resize(header.length);
  asio::async_read(socket_, asio::buffer(frame_.payload), [self = shared_from_this()](error_code error, size_t) {
    self->attempt([&] {
      if (error) return self->end_read(error);
      self->deliver();
      if (!self->ended_) self->read_header();
    });
  });
}

void TcpConnection::deliver() {
  if (finishing_) return;
  const std::shared_ptr<Events> events = events_;
  try {
    events->frame(frame_);
  } catch (const std::exception& exception) {
    // Another one follows; of all other messages there is only one.
    if (frame_.header.type != MessageType::kHeartbeat) throw;
    log::error("a heartbeat from {} is passed over: {}", peer_, exception.what());
  }
}

void TcpConnection::finish() {
  if (ended_ || finishing_) return;
  finishing_ = true;
  finish_timer_.expires_after(std::chrono::milliseconds(500));
  finish_timer_.async_wait([self = shared_from_this()](error_code error) {
    if (!error && !self->ended_) self->end({.code = ErrorCode::kUnavailable, .message = ""});
  });
  if (unsent_.empty()) shut_down_sending();
}

void TcpConnection::shut_down_sending() {
  error_code ignored;
  socket_.shutdown(tcp::socket::shutdown_send, ignored);
}

void TcpConnection::end_read(error_code error) {
  end({.code = ErrorCode::kUnavailable, .message = error == asio::error::eof ? "" : error.message()});
}

void TcpConnection::end(const Error& error) {
  const std::shared_ptr<Events> events = events_;
  close();
  events->closed(error);
}

void TcpConnection::close() {
  ended_ = true;
  events_.reset();
  finish_timer_.cancel();
  error_code ignored;
  socket_.close(ignored);
}

class AsioTimer : public Timer {
 public:
  AsioTimer(asio::io_context& context, std::function<void()> on_time) : timer_(context), on_time_(std::move(on_time)) {}
  void set(Time time) override {
    cancel();
    timer_.expires_at(time);
    timer_.async_wait([this, current = std::weak_ptr(current_ = std::make_shared<int>())](error_code error) {
      if (!error && !current.expired()) on_time_();
    });
  }
  void cancel() override {
    current_.reset();  // its handler may wait to be called already
    timer_.cancel();
  }

 private:
  std::shared_ptr<int> current_;  // while that is there, the wait that has it holds
  asio::steady_timer timer_;
  std::function<void()> on_time_;
};

// One attempt to reach somebody.
struct Attempt : std::enable_shared_from_this<Attempt> {
  Attempt(asio::io_context& context, std::chrono::milliseconds its_timeout,
          std::function<void(Result<ConnectionPtr>)> its_end)
      : resolver(context), socket(context), timer(context), timeout(its_timeout), connected(std::move(its_end)) {}

  void resolve(const std::string& host, uint16_t port) {
    resolver.async_resolve(host, std::to_string(port),
                           [self = shared_from_this()](error_code error, const tcp::resolver::results_type& endpoints) {
                             error ? self->fail(error.message()) : self->connect(endpoints);
                           });
  }
  void connect(const tcp::resolver::results_type& endpoints) {
    timer.expires_after(timeout);
    timer.async_wait([self = shared_from_this()](error_code error) {
      error_code ignored;
      if (!error) self->socket.close(ignored);
    });
    asio::async_connect(socket, endpoints, [self = shared_from_this()](error_code error, const tcp::endpoint&) {
      self->timer.cancel();
      if (!error && self->socket.is_open())
        return self->connected(std::make_shared<TcpConnection>(std::move(self->socket)));
      const bool cut_off = !error || error == asio::error::operation_aborted;
      self->fail(cut_off ? fmt::format("no answer within {} s", self->timeout.count() / 1000.0) : error.message());
    });
  }
  void fail(std::string why) { connected(std::unexpected(Error{ErrorCode::kUnavailable, std::move(why), {}})); }

  tcp::resolver resolver;
  tcp::socket socket;
  asio::steady_timer timer;
  const std::chrono::milliseconds timeout;
  const std::function<void(Result<ConnectionPtr>)> connected;
};

}  // namespace

AsioNetwork::AsioNetwork(asio::io_context& context) : context_(context), acceptor_(context), accept_pause_(context) {}

Nonce AsioNetwork::random_nonce() {
  Nonce nonce{};
  CHECK(RAND_bytes(nonce.data(), static_cast<int>(nonce.size())) == 1, "the system gives no random bytes");
  return nonce;
}

std::unique_ptr<Timer> AsioNetwork::make_timer(std::function<void()> on_time) {
  return std::make_unique<AsioTimer>(context_, std::move(on_time));
}

Status AsioNetwork::listen(const std::string& host, uint16_t port, std::function<void(ConnectionPtr)> taken,
                           std::function<void(const std::string& why)> failed) {
  taken_ = std::move(taken);
  failed_ = std::move(failed);
  error_code error;
  const auto endpoints = tcp::resolver(context_).resolve(host, std::to_string(port), tcp::resolver::passive, error);
  if (!error) {
    const tcp::endpoint endpoint = endpoints.begin()->endpoint();
    acceptor_.open(endpoint.protocol(), error);
    if (!error) fcntl(acceptor_.native_handle(), F_SETFD, FD_CLOEXEC);
    if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(tcp::acceptor::max_listen_connections, error);
  }
  if (error) return make_error(ErrorCode::kUnavailable, "{}", error.message());
  asio::post(context_, [this] { accept(); });
  return {};
}

void AsioNetwork::accept() {
  acceptor_.async_accept([this](error_code error, tcp::socket socket) {
    accepting_ = false;
    if (error == asio::error::operation_aborted) return;
    if (error) {  // no descriptors left, say
      failed_(error.message());
      accept_pause_.expires_after(std::chrono::milliseconds(100));
      accept_pause_.async_wait([this](error_code paused) {
        accepting_ = false;
        if (!paused) accept();
      });
      accepting_ = true;
      return;
    }
    taken_(std::make_shared<TcpConnection>(std::move(socket)));
    accept();
  });
  accepting_ = true;
}

void AsioNetwork::connect(const std::string& host, uint16_t port, std::chrono::milliseconds timeout,
                          std::function<void(Result<ConnectionPtr>)> connected) {
  std::make_shared<Attempt>(context_, timeout, std::move(connected))->resolve(host, port);
}

void AsioNetwork::resume() {
  if (!accepting_ && acceptor_.is_open()) accept();
}

void prefer_this_thread() {
  const sched_param lowest{.sched_priority = sched_get_priority_min(SCHED_RR)}, none{.sched_priority = 0};
  if (sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &lowest) == 0) return;
  sched_setscheduler(0, SCHED_OTHER | SCHED_RESET_ON_FORK, &none);
  constexpr int kNice = -10;
  [[maybe_unused]] const int refused = setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kNice);
}

}  // namespace cachalot::control
