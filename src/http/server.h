#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "config/door_options.h"
#include "http/io_threads.h"
#include "http/message.h"

namespace cachalot::http {

class Connection;
struct ServerCore;

struct ServerOptions {
  std::string host = "0.0.0.0";  // an address or a name; "::" listens on IPv6 and IPv4
  uint16_t port = 0;             // 0: the system picks one
  size_t max_header_bytes = 32 << 10;
  size_t max_body_bytes = 32 << 20;
  size_t max_buffered_body_bytes = 1 << 20;  // of route_upload()
  // Of all requests' bodies that are held at a time; the first 64 KiB of each do not count. Beyond it reading waits for
  // budget_patience, then the request is refused with 503.
  size_t max_body_bytes_in_flight = 256 << 20;
  std::chrono::milliseconds budget_patience{5'000};
  // Connections. Beyond max_connections those that have not sent a whole head make room, the oldest first; where there
  // is none, requests are refused with 503, but for those for reserved_paths, for which there is always room.
  int max_connections = 4096, num_reserved_connections = 64;
  std::vector<std::string> reserved_paths{"/health", "/live", "/ping", "/metrics", "/load", "/state"};
  std::chrono::milliseconds idle_timeout{75'000};  // between requests of a connection
  std::chrono::milliseconds header_timeout{15'000};
  std::chrono::milliseconds body_timeout{120'000};
  std::chrono::milliseconds write_timeout{60'000};         // a client that takes nothing for so long is cut
  std::string last_words = "the server is shutting down";  // to those that a drain does not wait for
  DoorOptions door;
};

// What a request that was let in holds until its answer has ended, and what it adds to it.
class Visit {
 public:
  virtual ~Visit() = default;
  // Before the answer's last bytes go: who has them may come again at once.
  virtual void end() {}
  virtual void add_fields(Headers& answer) const = 0;
};

// One request that was answered, for whoever counts requests or writes them down. Views hold while the observer runs.
struct ServedRequest {
  std::string_view method, path, peer;
  std::string_view route;  // "/v1/responses/*"; empty: there is none
  int status = 0;
  size_t num_body_bytes = 0;   // of the answer
  double seconds = 0;          // from its head to the answer's end
  bool is_whole = false;       // all of the answer was written
  std::string_view id, story;  // what the handler told of it
};
// "10.0.0.7:53412 POST '/v1/chat/completions' 200, 512 bytes in 0.250 s; 12 prompt tokens, ..."
std::string access_line(const ServedRequest& request);

// One request and its answer, of the coroutine that handles it. If the client goes away, the coroutine ends: what it
// awaits throws. A handler that ends without an answer costs a 500 or, if the answer had begun, a broken connection:
// never something that looks complete.
class ServerCall {
 public:
  ServerCall(Connection& connection, Request request) : request(std::move(request)), connection_(connection) {}
  ServerCall(const ServerCall&) = delete;
  ServerCall& operator=(const ServerCall&) = delete;

  Request request;               // the handler may take what it needs
  std::string id, story;         // of the request, which the handler may tell for ServedRequest
  std::shared_ptr<Visit> visit;  // null: nobody counts it

  // Of what follows `request.body` (only of route_upload()) the next piece, "" at the end. kTooLarge: all of it is more
  // than the server takes.
  awaitable<Result<std::string>> read();
  // Whether nothing follows it.
  bool body_is_complete() const;

  // The whole answer.
  awaitable<void> respond(Response response);

  // Begins a streamed one; its head goes out with its first part. With a Content-Length exactly so many bytes must
  // follow, else they go in chunks; Transfer-Encoding is the server's business.
  void begin(int status, Headers headers);
  // Until the system has taken the bytes, so that a slow client slows its handler. "": the head alone.
  awaitable<void> send(std::string bytes);
  awaitable<void> end(std::string last_bytes = {});

  // From any thread.
  bool client_is_gone() const { return client_is_gone_; }

 private:
  friend class Connection;
  Connection& connection_;
  std::atomic<bool> client_is_gone_{false};
};

// An HTTP/1.1 server: routes of method and path. Routes and hooks are set before start(); everything else is
// thread-safe.
class Server {
 public:
  // On an I/O thread; long work belongs elsewhere (run_on).
  using Handler = std::function<awaitable<void>(ServerCall& call)>;
  // For an answer that needs no waiting.
  using Answerer = std::function<Response(const Request& request)>;
  // Sees a request's head before its body is read; a response refuses it.
  using HeadCheck = std::function<std::expected<std::shared_ptr<Visit>, Response>(const Request& head)>;
  // Hears of each request when it is over, on an I/O thread; must not block.
  using Observer = std::function<void(const ServedRequest& request)>;
  // The body of an error that the server itself finds (404, 413, ...). `path`: of the request; empty: it has none yet.
  using ErrorFormat = std::function<Response(int status, std::string_view message, std::string_view path)>;

  // Borrows the threads.
  Server(const IoThreads& threads, ServerOptions options);
  // Closes every connection.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // A path that ends in "/*" stands for every path below it. GET routes also answer HEAD.
  void route(std::string method, std::string path, Handler handler);
  void route(std::string method, std::string path, Answerer answerer);
  // The same for large bodies: what goes beyond max_buffered_body_bytes is left to the handler's read().
  void route_upload(std::string method, std::string path, Handler handler);
  void set_head_check(HeadCheck check);
  void set_error_format(ErrorFormat format);
  void set_observer(Observer observer);

  // Takes the address: clients that come before start() wait until then. start() does it where nobody has.
  Status listen();
  Status start();
  uint16_t port() const;    // after listen(); 0: a Unix domain socket
  std::string url() const;  // "https://0.0.0.0:8000", "unix:/run/cachalot.sock"
  int num_connections() const;

  // Stops accepting, closes idle connections, lets running requests finish until the deadline, then breaks off the
  // rest: a stream of events ends with one that holds the error, and not as if it were complete. Blocks; true if
  // everything finished.
  bool drain(std::chrono::milliseconds deadline);
  // While another thread waits in drain(): breaks off what runs now.
  void cut();

 private:
  std::shared_ptr<ServerCore> core_;
};

// Lets this process open as many files, each connection being one, as the system allows it; how many.
int raise_file_limit();

}  // namespace cachalot::http
