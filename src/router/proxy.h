#pragma once

#include <memory>
#include <vector>

#include "http/client.h"
#include "http/io_threads.h"
#include "http/server.h"
#include "router/request_course.h"
#include "telemetry/tracer.h"

namespace cachalot::router {

// What all requests on their way through the router share, with the ways to the replicas.
struct ProxyContext : RouterState {
  ProxyContext(const http::IoThreads& threads, const RouterOptions& options, std::vector<http::Url> urls);

  const http::IoThreads& threads;
  const std::vector<http::Url> urls;  // of the replicas
  const http::Client client;
  telemetry::Tracer* tracer = nullptr;  // takes a span of each request, and of each replica's part in it
};

// A handler: passes a request on to a replica and its answer back, piece by piece. A request that no byte of an answer
// has come for goes to another replica when the first one fails, refuses it or falls silent; when its connection is
// lost without a word, once. An answer that breaks off later is broken off for the client, too: a stream of events
// after an event that says so.
http::awaitable<void> pass_on(std::shared_ptr<ProxyContext> context, http::ServerCall& client);

}  // namespace cachalot::router
