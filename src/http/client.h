#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/error.h"
#include "http/io_threads.h"
#include "http/message.h"
#include "http/url.h"

namespace cachalot::http {

class ConnectionPool;

struct ClientOptions {
  std::chrono::milliseconds connect_timeout{10'000};
  // Until the response's head, and between two pieces of its body. Generous: an answer may wait for its turn.
  std::chrono::milliseconds idle_timeout{600'000};
  size_t max_header_bytes = 32 << 10;
  size_t max_body_bytes = 64 << 20;  // of fetch()
  // Connections kept for the next request to the same server, and for how long; 0: each request has its own. A kept one
  // that turns out to be closed before its server has said a word is replaced by a new one, unasked.
  int max_idle_connections = 0;
  std::chrono::milliseconds idle_connection_timeout{30'000};  // servers close theirs later: ours after 75 s
};

struct ClientRequest {
  std::string method = "GET";
  Url url;
  Headers headers;  // Host, Content-Length and Connection are the client's business
  std::string body;
  std::shared_ptr<BodySource> more_body;  // what follows it; such a request is sent once, over a new connection
  std::optional<uint64_t> body_size;      // of both together; absent: it goes in chunks
};

struct ResponseHead {
  int status = 0;
  Headers headers;
};

// One request on its way, over a connection that nobody else uses meanwhile. The body is pulled, so that a slow reader
// slows its sender; while the next piece is awaited, nothing is held for it. Thread-safe; callbacks run on an I/O
// thread.
class ClientCall {
 public:
  virtual ~ClientCall() = default;
  // After the head: the next piece of the body as soon as there is one, "" at its end. One read at a time.
  virtual void read(std::function<void(Result<std::string>)> on_piece) = 0;
  // Gives up: what is awaited ends with kCancelled. Dropping a call that nobody awaits closes it, too.
  virtual void cancel() = 0;
};

// A ClientCall for a thread that may wait (never an I/O thread). cancel() may be called from another one.
class BlockingCall {
 public:
  Result<ResponseHead> head();
  Result<std::string> read();
  void cancel() { call_->cancel(); }

 private:
  friend class Client;
  struct HeadPromise;
  std::shared_ptr<HeadPromise> head_;
  std::shared_ptr<ClientCall> call_;
};

// An HTTP/1.1 client for http:// addresses. Thread-safe.
class Client {
 public:
  // Borrows the threads.
  explicit Client(const IoThreads& threads, ClientOptions options = {});

  // kUnavailable: not reached or broken off; kDeadlineExceeded: reached, but no word in time; kCancelled.
  std::shared_ptr<ClientCall> start(ClientRequest request, std::function<void(Result<ResponseHead>)> on_head) const;
  BlockingCall start_blocking(ClientRequest request) const;
  // The whole response; blocks.
  Result<Response> fetch(ClientRequest request) const;

 private:
  const IoThreads& threads_;
  const ClientOptions options_;
  std::shared_ptr<ConnectionPool> pool_;  // shared with the calls under way
};

}  // namespace cachalot::http
