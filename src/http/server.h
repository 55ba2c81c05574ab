#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "http/io_threads.h"
#include "http/message.h"

namespace cachalot::http {

class Exchange;
struct ServerCore;

struct ServerOptions {
  std::string host = "0.0.0.0";  // an address or a name; "::" listens on IPv6 and IPv4
  uint16_t port = 0;             // 0: the system picks one
  size_t max_header_bytes = 32 << 10;
  size_t max_body_bytes = 32 << 20;
  size_t max_buffered_body_bytes = 1 << 20;  // of route_upload()
  int max_connections = 4096;
  size_t max_queued_bytes =
      4 << 20;  // of one streamed answer, not yet taken by the client; beyond it the client is cut
  std::chrono::milliseconds idle_timeout{75'000};  // between requests of a connection
  std::chrono::milliseconds header_timeout{15'000};
  std::chrono::milliseconds body_timeout{120'000};
  std::chrono::milliseconds write_timeout{60'000};  // a client that takes nothing for so long is cut
  std::string allowed_origin = "*";                 // CORS; empty: no such headers
};

// With it a handler answers one request, from any thread and without ever blocking: whole by respond(), or streamed by
// begin(), write()s and end(). A copyable handle; when the last copy goes without an end, the client gets a 500, or, if
// the answer had begun, a broken connection: never something that looks complete.
class Responder {
 public:
  explicit Responder(std::shared_ptr<Exchange> exchange);

  void respond(Response response) const;

  // Starts a streamed answer. With a Content-Length exactly so many bytes must follow, else they go in chunks;
  // Transfer-Encoding is the server's business.
  void begin(int status, Headers headers) const;
  // Queues bytes. False if the client is gone or was cut for being slow; then nothing more needs to be written.
  // `on_written` is called on an I/O thread when the system has taken the bytes (not if the client goes away before).
  bool write(std::string bytes, std::function<void()> on_written = {}) const;
  void end() const;
  // Breaks the connection, so that the client cannot take the answer for complete.
  void abort() const;

  // Called once, on an I/O thread, if the client goes away before the end of the answer; also while nothing is written.
  // At once if it has gone already.
  void on_close(std::function<void()> callback) const;
  bool closed() const;

 private:
  struct Handle;
  std::shared_ptr<Handle> handle_;
};

// An HTTP/1.1 server: routes of method and path. Routes and hooks are set before start(); everything else is
// thread-safe.
class Server {
 public:
  // Called on an I/O thread; long work belongs elsewhere.
  using Handler = std::function<void(Request request, Responder responder)>;
  // Sees a request's head before its body is read; a response refuses it.
  using HeadCheck = std::function<std::optional<Response>(const Request& head)>;
  // The body of an error that the server itself finds (404, 413, ...).
  using ErrorFormat = std::function<Response(int status, std::string_view message)>;

  // Borrows the threads.
  Server(const IoThreads& threads, ServerOptions options);
  // Closes every connection.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // A path that ends in "/*" stands for every path below it. GET routes also answer HEAD.
  void route(std::string method, std::string path, Handler handler);
  // The same for large bodies: what goes beyond max_buffered_body_bytes is left to the handler, in Request::more_body.
  void route_upload(std::string method, std::string path, Handler handler);
  void set_head_check(HeadCheck check);
  void set_error_format(ErrorFormat format);

  // Takes the address: clients that come before start() wait until then. start() does it where nobody has.
  Status listen();
  Status start();
  uint16_t port() const;  // after listen()
  int num_connections() const;

  // Stops accepting, closes idle connections, lets running requests finish until the deadline, then calls
  // `end_answers`, which has a moment to end them in an orderly way, then closes the rest. Blocks; true if everything
  // finished by itself.
  bool drain(std::chrono::milliseconds deadline, const std::function<void()>& end_answers = {});

 private:
  std::shared_ptr<ServerCore> core_;
};

}  // namespace cachalot::http
