#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "http/loopback_test_util.h"
#include "http/server.h"

namespace cachalot::router {

// For tests: a server as a replica is, whose answers to /v1/completions the test says.
class FakeReplica {
 public:
  // Unless told otherwise it answers a completion with its name.
  FakeReplica(const http::IoThreads& threads, std::string name, uint16_t port = 0)
      : server_(threads, {.host = "127.0.0.1", .port = port}) {
    on_completion = [name](const http::Request&, const http::Responder& responder) {
      responder.respond(http::Response::text(200, name));
    };
    for (const char* path : {"/v1/completions", "/v1/responses", "/v1/messages"})
      server_.route("POST", path, http::Responder::of([this](http::Request request, http::Responder responder) {
                      num_requests++;
                      {
                        const std::lock_guard lock(mutex_);
                        last_request_ = request;
                      }
                      on_completion(std::move(request), std::move(responder));
                    }));
    server_.route("GET", "/v1/responses/*", [name](const http::Request&) { return http::Response::text(200, name); });
    server_.route("GET", "/v1/models", [name](const http::Request&) {
      return http::Response::json(200, R"({"object": "list", "data": [{"id": ")" + name + "\"}]}");
    });
    server_.route("GET", "/state", [this](const http::Request&) {
      return state.empty() ? http::Response::text(404, "") : http::Response::json(200, state);
    });
    server_.route("GET", "/load", http::Responder::of([this](const http::Request&, const http::Responder& responder) {
                    num_questions++;
                    if (is_mute) {
                      const std::lock_guard lock(mutex_);
                      return unanswered_.push_back(responder);
                    }
                    responder.respond(http::Response::json(health_status, load));
                  }));
    is_listening = server_.start().has_value();
  }

  std::string url() const { return "http://127.0.0.1:" + std::to_string(server_.port()); }
  uint16_t port() const { return server_.port(); }
  int num_connections() const { return server_.num_connections(); }
  http::Request last_request() {
    const std::lock_guard lock(mutex_);
    return last_request_;
  }

  // Set before requests come.
  std::function<void(http::Request, http::Responder)> on_completion;
  std::string load = R"({"running": 0, "waiting": 0, "pending_tokens": 0, "kv_usage": 0})";
  std::string state;  // empty: it has none to tell
  bool is_listening = false;

  std::atomic<int> health_status{200};
  std::atomic<bool> is_mute{false};  // leaves the health question unanswered, as a process that was stopped
  std::atomic<int> num_requests{0}, num_questions{0};

 private:
  std::mutex mutex_;
  http::Request last_request_;
  std::vector<http::Responder> unanswered_;
  http::Server server_;
};

}  // namespace cachalot::router
