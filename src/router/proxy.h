#pragma once

#include <memory>
#include <vector>

#include "http/client.h"
#include "http/io_threads.h"
#include "http/server.h"
#include "openai/keys/api_keys.h"
#include "router/request_course.h"
#include "telemetry/tracer.h"

namespace cachalot::router {

// What a router's options name, once it has been read.
struct RouterParts {
  std::vector<http::Url> urls;
  std::shared_ptr<const openai::ApiKeys> keys;
  std::shared_ptr<const http::TlsContext> tls;  // towards replicas; null: none has https://
};

// What all requests on their way through the router share, with the ways to the replicas.
struct ProxyContext : RouterState {
  ProxyContext(const http::IoThreads& threads, const RouterOptions& options, RouterParts parts);

  const http::IoThreads& threads;
  const std::vector<http::Url> urls;  // of the replicas
  const std::shared_ptr<const openai::ApiKeys> keys;
  const std::shared_ptr<const http::TlsContext> tls;
  const http::Client client;
  telemetry::Tracer* tracer = nullptr;  // takes a span of each request, and of each replica's part in it
};

// A handler: passes a request on to a replica and its answer back, piece by piece. A request that no byte of an answer
// has come for goes to another replica when the first one fails, refuses it or falls silent; when its connection is
// lost without a word, once. An answer that breaks off later is broken off for the client, too: a stream of events
// after an event that says so.
http::awaitable<void> pass_on(std::shared_ptr<ProxyContext> context, http::ServerCall& client);

}  // namespace cachalot::router
