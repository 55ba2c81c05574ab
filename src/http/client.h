#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/error.h"
#include "http/io_threads.h"
#include "http/message.h"

namespace cachalot::http {

class ConnectionPool;
class TlsContext;

struct ClientOptions {
  std::chrono::milliseconds connect_timeout{10'000};
  // Until the response's head, and between two pieces of its body. Generous: an answer may wait for its turn.
  std::chrono::milliseconds idle_timeout{600'000};
  size_t max_header_bytes = 32 << 10;
  size_t max_body_bytes = 64 << 20;  // of ask()
  // Connections kept for the next request to the same server, and for how long; 0: each request has its own. A kept one
  // that turns out to be closed before its server has said a word is replaced by a new one, unasked.
  int max_idle_connections = 0;
  std::chrono::milliseconds idle_connection_timeout{30'000};  // servers close theirs later: ours after 75 s
  std::shared_ptr<const TlsContext> tls{};                    // of https://; null: the system's authorities are trusted
};

struct ClientRequest {
  std::string method = "GET";
  Url url;
  Headers headers;  // Host, Content-Length and Connection are the client's business
  std::string body;
  // What follows it, piece by piece, "" at the end; such a request is sent once, over a new connection.
  std::function<awaitable<Result<std::string>>()> more_body;
  std::optional<uint64_t> body_size;  // of both together; absent: it goes in chunks
};

struct ResponseHead {
  int status = 0;
  Headers headers;
};

// One request on its way, over a connection that nobody else uses meanwhile. Belongs to one strand, on which its
// coroutines run and it is dropped; to drop it, or to give up a coroutine that awaits it, closes the connection. The
// body is pulled, so that a slow reader slows its sender; while the next piece is awaited, nothing is held for it.
// Errors: kUnavailable: not reached or broken off; kDeadlineExceeded: reached, but no word in time; kCancelled.
class ClientCall {
 public:
  ClientCall(ClientCall&&) noexcept;
  ClientCall& operator=(ClientCall&&) = delete;
  ~ClientCall();

  // Sends the request. Once.
  awaitable<Result<ResponseHead>> head();
  // After the head: the next piece of the body as soon as there is one, "" at its end.
  awaitable<Result<std::string>> read();
  // The same for one who waits less long: kDeadlineExceeded with the call as it was.
  awaitable<Result<std::string>> read_within(std::chrono::milliseconds patience);
  // All of the body was read.
  bool is_complete() const;
  // On the strand, while another coroutine awaits something: that ends with kCancelled.
  void close();
  // How often the request was sent over a connection that then broke without a word.
  int num_lost() const;

 private:
  friend class Client;
  struct Impl;
  explicit ClientCall(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// An HTTP/1.1 client for http:// and https:// addresses. Thread-safe.
class Client {
 public:
  // Borrows the threads.
  explicit Client(const IoThreads& threads, ClientOptions options = {});

  ClientCall call(ClientRequest request) const;
  // The whole response.
  awaitable<Result<Response>> ask(ClientRequest request) const;
  // The same for those outside of coroutines: on its way, and at once, for a thread that may wait.
  Running<Result<Response>> start(ClientRequest request) const { return threads_.start(ask(std::move(request))); }
  Result<Response> fetch(ClientRequest request) const { return start(std::move(request)).wait(); }

 private:
  const IoThreads& threads_;
  const ClientOptions options_;
  std::shared_ptr<ConnectionPool> pool_;  // shared with the calls under way
};

}  // namespace cachalot::http
