#pragma once

#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "config/router_options.h"
#include "http/client.h"
#include "http/io_threads.h"
#include "http/server.h"
#include "router/replica_table.h"
#include "router/router_metrics.h"

namespace cachalot::router {

// What all requests on their way through the router share.
struct ProxyContext {
  ProxyContext(const http::IoThreads& threads, const RouterOptions& options, std::vector<http::Url> urls);

  const http::IoThreads& threads;
  const RouterOptions options;
  const std::vector<http::Url> urls;  // of the replicas
  ReplicaTable table;
  RouterMetrics metrics;
  const http::Client client;
  std::stop_source shutdown;  // of what still runs: the drain is over
};

// Passes a request on to a replica and its answer back, piece by piece. A request that no byte of an answer has come
// for goes to another replica when the first one fails, refuses it or falls silent. An answer that breaks off later is
// broken off for the client, too: a stream of events after an event that says so.
void pass_on(std::shared_ptr<ProxyContext> context, http::Request request, http::Responder responder);

}  // namespace cachalot::router
