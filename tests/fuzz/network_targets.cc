// What comes over a network, with everything real but the stranger: a server that a client talks to, and a router
// between a client and its replicas.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <boost/asio/detached.hpp>
#include <chrono>
#include <list>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "config/options.h"
#include "http/connection.h"
#include "http/message.h"
#include "router/running_router.h"
#include "targets.h"

namespace cachalot::fuzz {
namespace {

namespace asio = boost::asio;
using std::chrono::steady_clock;

constexpr auto kPatience = std::chrono::seconds(60);  // of whoever waits for an answer; libFuzzer has less

uint64_t hash_of(std::string_view bytes) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char byte : bytes) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001b3;
  return hash ^ hash >> 32;
}

// Cuts bytes at places that hang on them alone: whole, or in pieces, the first ones small.
std::vector<std::string_view> pieces_of(std::string_view bytes) {
  uint64_t random = hash_of(bytes);
  std::vector<std::string_view> pieces;
  const uint64_t most_pieces = random % 3 == 0 ? 1 : 8;
  while (!bytes.empty()) {
    random = random * 6364136223846793005 + 1442695040888963407;
    const size_t most = pieces.size() + 1 == most_pieces ? bytes.size() : 1 + (random >> 33) % 64;
    pieces.push_back(bytes.substr(0, most));
    bytes.remove_prefix(pieces.back().size());
  }
  return pieces;
}

// The other end of a connection, on this thread.
class Peer {
 public:
  explicit Peer(FileDescriptor socket) : socket_(std::move(socket)) {
    const int at_once = 1;  // each piece by itself
    setsockopt(fd(), IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof(at_once));
  }
  // From an address of its own each time, so that no number of them uses up the ports.
  static Peer connect(uint16_t port) {
    static uint32_t count = 0;
    Peer peer(FileDescriptor(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)));
    sockaddr_in from{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(0x7f010000 + count++ % 0xfe0000)}};
    const sockaddr_in to{.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    CHECK(bind(peer.fd(), reinterpret_cast<const sockaddr*>(&from), sizeof(from)) == 0);
    CHECK(::connect(peer.fd(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0);
    return peer;
  }

  int fd() const { return socket_.get(); }
  void send(std::string_view bytes) {  // whether or not the other end still listens
    while (!bytes.empty()) {
      const ssize_t num_sent = ::send(fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (num_sent <= 0) return;
      bytes.remove_prefix(static_cast<size_t>(num_sent));
    }
  }
  void close_half() { shutdown(fd(), SHUT_WR); }
  void reset() {
    const linger now{.l_onoff = 1, .l_linger = 0};
    setsockopt(fd(), SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    socket_.reset();
  }
  // What is there; without waiting.
  void receive() {
    std::array<char, 16384> bytes;
    ssize_t num_read;
    while ((num_read = recv(fd(), bytes.data(), bytes.size(), MSG_DONTWAIT)) > 0)
      received.append(bytes.data(), static_cast<size_t>(num_read));
    is_at_end = is_at_end || num_read == 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
    was_reset = was_reset || (num_read < 0 && errno == ECONNRESET);
  }

  std::string received;
  bool is_at_end = false, was_reset = false;

 private:
  FileDescriptor socket_;
};

// An answer, read as the strictest of clients reads it.
struct Answer {
  int status = 0;
  http::Headers headers;
  std::string body;
  bool is_whole = false, lacks_body = false;  // as the answer to a HEAD does
};

std::string_view take_line(std::string_view& bytes) {
  const size_t end = bytes.find("\r\n");
  CHECK(end != bytes.npos, "an answer's line does not end: {}", quoted(bytes));
  const std::string_view line = bytes.substr(0, end);
  bytes.remove_prefix(end + 2);
  for (const char c : line) CHECK(c == '\t' || (static_cast<uint8_t>(c) >= ' ' && c != 0x7f), "{}", quoted(line));
  return line;
}

void take_chunks(std::string_view& bytes, Answer& answer) {
  while (bytes.find("\r\n") != bytes.npos) {
    const std::string_view digits = take_line(bytes);
    size_t length = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), length, 16);
    CHECK(error == std::errc() && end == digits.data() + digits.size(), "a chunk's length is {}", quoted(digits));
    const std::string_view chunk = bytes.substr(0, length);
    answer.body += chunk;
    bytes.remove_prefix(chunk.size());
    if (bytes.size() < 2) break;
    CHECK(bytes.starts_with("\r\n"), "a chunk is longer than it says: {}", quoted(bytes));
    bytes.remove_prefix(2);
    answer.is_whole = length == 0;
    if (answer.is_whole) return;
  }
  bytes = {};
}

// Takes the next answer off the bytes. No body of ours begins as an answer does: so where another one follows a head at
// once, or nothing, it is that to a HEAD.
Answer take_answer(std::string_view& bytes, bool may_be_to_head) {
  const std::string_view all = bytes;
  Answer answer;
  std::string_view line = take_line(bytes);
  answer.status = line.starts_with("HTTP/1.1 ") ? parse_number<int>(line.substr(9, 3)).value_or(0) : 0;
  CHECK(answer.status >= 100 && answer.status < 600 && line.substr(12, 1) == " ", "an answer begins with {}",
        quoted(all));
  int num_lengths = 0, num_codings = 0;
  while (!(line = take_line(bytes)).empty()) {
    const size_t colon = line.find(':');
    CHECK(colon != line.npos && colon > 0 && line.find(' ') > colon, "a field is {}", quoted(line));
    answer.headers.add(std::string(line.substr(0, colon)), std::string(trimmed(line.substr(colon + 1))));
    num_lengths += http::equal_ignoring_case(line.substr(0, colon), "Content-Length");
    num_codings += http::equal_ignoring_case(line.substr(0, colon), "Transfer-Encoding");
  }
  CHECK(num_lengths + num_codings <= 1, "an answer's end is said twice: {}", quoted(all, 2000));
  answer.is_whole = answer.status < 200 || answer.status == 204 || answer.status == 304;
  if (answer.is_whole) return answer;
  const auto length = answer.headers.find("Content-Length");
  answer.lacks_body = may_be_to_head && length != "0" && (bytes.empty() || bytes.starts_with("HTTP/1.1 "));
  if (answer.lacks_body) {
    answer.is_whole = true;
  } else if (num_codings > 0) {
    CHECK(answer.headers.find("Transfer-Encoding") == "chunked");
    take_chunks(bytes, answer);
  } else {
    const auto num_bytes = parse_number<size_t>(length.value_or("18446744073709551615"));
    CHECK(num_bytes, "Content-Length is {}", quoted(*length));
    answer.body = bytes.substr(0, *num_bytes);
    bytes.remove_prefix(answer.body.size());
    answer.is_whole = length ? answer.body.size() == *num_bytes : answer.headers.find("Connection") == "close";
  }
  return answer;
}

// A server on this thread.
class Server {
 public:
  Server()
      : core_(
            std::make_shared<http::ServerCore>(context_, http::ServerOptions{.host = "127.0.0.1",
                                                                             .max_header_bytes = 2048,
                                                                             .max_body_bytes = 4096,
                                                                             .max_buffered_body_bytes = 256,
                                                                             .idle_timeout = std::chrono::hours(1)})) {
    core_->error_format = [](int status, std::string_view message, std::string_view) {
      CHECK(to_valid_utf8(message) == message);
      return http::Response::json(status, "{}");
    };
    add_routes();
    CHECK(core_->listen().has_value());
    asio::co_spawn(core_->acceptor.get_executor(), core_->accept_connections(), asio::detached);
    other_ = std::make_unique<Peer>(Peer::connect(core_->port));
  }

  ~Server() {
    core_->stop_accepting();
    other_.reset();
    context_.run_for(kPatience);
  }

  void hear(std::string_view bytes) {
    Peer client = Peer::connect(core_->port);
    for (const std::string_view piece : pieces_of(bytes)) {
      client.send(piece);
      context_.poll();
      client.receive();
    }
    if (hash_of(bytes) % 8 == 0) {  // gone in the midst of it
      client.reset();
    } else {
      client.close_half();
      wait("an end of the answers", client, [&] { return client.is_at_end; });
      if (!client.was_reset) check_answers(client.received, bytes);
    }
    // Somebody else is served, and nothing is left behind.
    other_->send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    wait("an answer to another client", *other_,
         [&] { return other_->received.find("\r\n\r\n") != std::string::npos; });
    CHECK(other_->received.starts_with("HTTP/1.1 200 ") && other_->received.ends_with("\r\n\r\n"));
    other_->received.clear();
    wait("an end of the connection", *other_,
         [&] { return core_->num_connections() == 1 && core_->num_body_bytes == 0; });
  }

 private:
  template <class Condition>
  void wait(std::string_view what, Peer& peer, Condition is_there) {
    const auto deadline = steady_clock::now() + kPatience;
    for (;;) {
      context_.poll();
      peer.receive();
      if (is_there()) return;
      CHECK(steady_clock::now() < deadline, "there is no {}", what);
      context_.run_one_for(std::chrono::milliseconds(1));
    }
  }

  void check_answers(std::string_view received, std::string_view sent) {
    size_t num_lacking = 0, num_heads = 0;
    for (size_t at = 0; (at = sent.find("HEAD", at)) != sent.npos; at++) num_heads++;
    while (!received.empty()) {
      const Answer answer = take_answer(received, num_heads > num_lacking);
      num_lacking += answer.lacks_body;
      CHECK(answer.is_whole || (answer.body.starts_with("half") && received.empty()), "an answer is not whole: {} {}",
            answer.status, quoted(answer.body));
    }
  }

  void add_routes() {
    const auto say = [](const http::Request& request) {
      for (const std::string_view bad : {"//", "/../", "/./"})
        CHECK((request.path + "/").find(bad) == std::string::npos);
      return http::Response::text(200, "got " + request.path + " " + request.body);
    };
    const auto add = [this](const char* method, const char* path, http::Server::Handler handler, bool pulls = false) {
      core_->routes.push_back({method, path, pulls, std::move(handler), nullptr});
    };
    const auto add_answer = [this](const char* method, const char* path, http::Server::Answerer answerer) {
      core_->routes.push_back({method, path, false, nullptr, std::move(answerer)});
    };
    add_answer("GET", "/health", [](const http::Request&) { return http::Response{}; });
    add_answer("GET", "/v1/models/*", say);
    add_answer("POST", "/tokenize", say);
    add_answer("GET", "/throws", [](const http::Request&) -> http::Response { throw std::runtime_error("no"); });
    add("GET", "/dropped", [](http::ServerCall&) -> http::awaitable<void> { co_return; });
    add("GET", "/half", [](http::ServerCall& call) -> http::awaitable<void> {
      call.begin(200, {});
      co_await call.send("half of it");
    });
    add("POST", "/v1/completions", [](http::ServerCall& call) -> http::awaitable<void> {
      call.begin(200, {{"Content-Type", "text/event-stream"}});
      co_await call.send(http::format_sse(to_valid_utf8(call.request.body)));
      co_await asio::post(co_await asio::this_coro::executor, asio::use_awaitable);
      co_await call.end(http::format_sse("[DONE]"));
    });
    add(
        "POST", "/upload",
        [](http::ServerCall& call) -> http::awaitable<void> {
          size_t num_bytes = call.request.body.size();
          for (;;) {
            const Result<std::string> piece = co_await call.read();
            if (!piece) co_return co_await call.respond(http::Response::text(400, piece.error().message));
            if (piece->empty()) break;
            num_bytes += piece->size();
          }
          co_await call.respond(http::Response::text(200, std::to_string(num_bytes)));
        },
        true);
  }

  asio::io_context context_{1};
  std::shared_ptr<http::ServerCore> core_;
  std::unique_ptr<Peer> other_;
};

// A router with two replicas, which this thread plays.
class Router {
 public:
  Router() {
    RouterOptions options;
    for (FileDescriptor& listener : listeners_) options.server_urls.push_back(listen(listener));
    options.host = "127.0.0.1";
    options.port = 0;
    options.max_connections = 64;
    // Up again at once, and never silent: what counts here is each answer by itself.
    options.health_interval = std::chrono::milliseconds(1);
    options.health_timeout = options.connect_timeout = std::chrono::hours(1);
    options.health_rise = 1;
    options.eject_after_errors = 1 << 20;
    options.slow_start = std::chrono::seconds(0);
    auto started = router::RunningRouter::start(options);
    CHECK(started.has_value(), "{}", started.error().message);
    router_ = std::move(*started);
    other_ = std::make_unique<Peer>(Peer::connect(router_->port()));
  }

  void hear(std::string_view bytes) {
    const uint64_t random = hash_of(bytes) >> 8;
    bytes_ = bytes;
    all_say_it_ = random % 2 == 0;
    is_said_ = false;
    Peer client = Peer::connect(router_->port());
    const Kind kind = static_cast<Kind>(random / 2 % 8);
    client.send(request(kind));
    wait("an end of the answer", client, [&] { return client.is_at_end; });
    if (!client.was_reset) check_answer(client.received, kind);
    is_said_ = true;
    all_say_it_ = false;
    check_other();
  }

 private:
  enum class Kind { kOldClient, kHead, kGet, kPost };  // whatever else: kPost
  // A replica's end of a connection.
  struct Connection {
    Peer peer;
    bool is_over = false;
  };

  static std::string listen(FileDescriptor& listener) {
    listener = FileDescriptor(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_in address{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(address);
    CHECK(bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0);
    CHECK(::listen(listener.get(), SOMAXCONN) == 0);
    CHECK(getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
    return fmt::format("http://127.0.0.1:{}", ntohs(address.sin_port));
  }

  // Its prompt is another one each time: a request with which replicas were lost is remembered.
  std::string request(Kind kind) {
    const std::string body = fmt::format(R"({{"prompt": "{}", "stream": true}})", num_requests_++);
    switch (kind) {
      case Kind::kHead:
        return "HEAD /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
      case Kind::kGet:
        return "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
      case Kind::kOldClient:
        return fmt::format("POST /v1/completions HTTP/1.0\r\nContent-Length: {}\r\n\r\n{}", body.size(), body);
      default:
        return fmt::format(
            "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{}",
            body.size(), body);
    }
  }

  void check_answer(std::string_view received, Kind kind) {
    const Answer answer = take_answer(received, kind == Kind::kHead);
    CHECK(answer.status >= 200 && received.empty(), "more than an answer: {} and {}", answer.status, quoted(received));
    if (answer.is_whole) return;
    // It broke off, and does not look otherwise; whoever reads events is told.
    const bool is_events = answer.headers.find("Content-Type").value_or("").starts_with("text/event-stream");
    if (!is_events || answer.headers.contains("Content-Length")) return;
    CHECK(answer.body.ends_with("\n\n") && answer.body.find("data: {\"error\"") != std::string::npos, "{}",
          quoted(answer.body, 2000));
  }

  // The router serves another client, as soon as a replica is up again.
  void check_other() {
    const auto deadline = steady_clock::now() + kPatience;
    for (bool is_served = false; !is_served;) {
      CHECK(steady_clock::now() < deadline, "no replica is up again");
      const std::string body = fmt::format(R"({{"prompt": "{}"}})", num_requests_++);
      other_->send(fmt::format("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{}",
                               body.size(), body));
      std::optional<Answer> answer;
      wait("an answer to another client", *other_, [&] {
        std::string_view received = other_->received;
        if (received.find("\r\n\r\n") == received.npos) return false;
        answer = take_answer(received, false);
        CHECK(received.empty() && !other_->is_at_end);
        return answer->is_whole;
      });
      other_->received.clear();
      is_served = answer->status == 200 && answer->body == kGood;
      CHECK(is_served || answer->status == 503, "another client gets {}: {}", answer->status, quoted(answer->body));
    }
  }

  template <class Condition>
  void wait(std::string_view what, Peer& client, Condition is_there) {
    const auto deadline = steady_clock::now() + kPatience;
    for (;;) {
      client.receive();
      if (is_there()) return;
      CHECK(steady_clock::now() < deadline, "there is no {}", what);
      std::vector<pollfd> polled{{client.fd(), POLLIN, 0}};
      for (const FileDescriptor& listener : listeners_) polled.push_back({listener.get(), POLLIN, 0});
      for (const Connection& connection : connections_) polled.push_back({connection.peer.fd(), POLLIN, 0});
      poll(polled.data(), polled.size(), 100);
      for (const FileDescriptor& listener : listeners_)
        for (int fd; (fd = accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)) >= 0;)
          connections_.push_back({Peer(FileDescriptor(fd))});
      for (Connection& connection : connections_) answer(connection);
      connections_.remove_if([](const Connection& connection) { return connection.is_over; });
    }
  }

  void answer(Connection& connection) {
    Peer& peer = connection.peer;
    peer.receive();
    connection.is_over = peer.is_at_end;
    const size_t end = peer.received.find("\r\n\r\n");
    if (end == std::string::npos) return;
    const size_t length_at = peer.received.find("Content-Length: ");
    const size_t length =
        length_at < end ? leading_number<size_t>(std::string_view(peer.received).substr(length_at + 16)) : 0;
    if (peer.received.size() < end + 4 + length) return;
    const bool is_of_health = peer.received.starts_with("GET /load ");
    peer.received.erase(0, end + 4 + length);
    if (is_of_health) return peer.send("HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{\"running\": 0}");
    if (std::exchange(is_said_, true) && !all_say_it_)
      return peer.send(fmt::format("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {}\r\n\r\n{}",
                                   kGood.size(), kGood));
    for (const std::string_view piece : pieces_of(bytes_)) peer.send(piece);
    connection.is_over = true;
  }

  static constexpr std::string_view kGood = "data: good\n\n";

  std::array<FileDescriptor, 2> listeners_;
  std::list<Connection> connections_;
  std::unique_ptr<router::RunningRouter> router_;
  std::unique_ptr<Peer> other_;
  std::string_view bytes_;
  bool is_said_ = true, all_say_it_ = false;
  uint64_t num_requests_ = 0;
};

}  // namespace

void talk_to_server(std::string_view bytes) {
  static Server server;
  server.hear(bytes);
}

void answer_router(std::string_view bytes) {
  static Router router;
  router.hear(bytes);
}

}  // namespace cachalot::fuzz
