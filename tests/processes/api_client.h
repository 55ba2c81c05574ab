#pragma once

#include <boost/json.hpp>
#include <functional>
#include <string>

#include "http/client.h"

namespace cachalot::test {

// What became of a streamed answer.
struct StreamedAnswer {
  enum class End {
    kComplete,     // finish_reason and [DONE]
    kErrorEvent,   // the last event says what failed
    kRefused,      // no stream: the status says why
    kCut,          // the connection broke: the process is gone
    kUnreachable,  // nobody listens
    kSilent,       // nothing came for the client's idle time
  };
  End end = End::kUnreachable;
  int status = 0;
  bool has_retry_after = false;
  int num_tokens = 0;  // as the server counts them
  std::string text, error;
};

// Asks servers of one host, for threads that may wait.
class ApiClient {
 public:
  explicit ApiClient(std::chrono::milliseconds idle_timeout = std::chrono::seconds(30), std::string host = "127.0.0.1")
      : host_(std::move(host)), io_threads_(1), client_(io_threads_, {.idle_timeout = idle_timeout}) {}

  Result<http::Response> get(uint16_t port, const std::string& target) const;
  Result<http::Response> complete(uint16_t port, boost::json::object body) const;
  // `on_event`, if any, is told the number of tokens after each event; false ends the call, as a client that goes away.
  StreamedAnswer stream(uint16_t port, boost::json::object body, const std::function<bool(int)>& on_event = {}) const;
  // The sum of a metric's values over its labels that hold `labels`; -1 where there is none.
  double metric(uint16_t port, const std::string& name, const std::string& labels = "") const;

 private:
  http::awaitable<Result<StreamedAnswer>> read_stream(http::ClientRequest request,
                                                      const std::function<bool(int)>& on_event) const;
  http::ClientRequest request_to(uint16_t port, const std::string& target, const boost::json::object* body) const;

  const std::string host_;
  http::IoThreads io_threads_;
  http::Client client_;
};

// {"prompt": ..., "max_tokens": ...}, greedy, and never ended by an end-of-sequence token.
boost::json::object completion_body(const boost::json::value& prompt, int max_tokens);

}  // namespace cachalot::test
