#include "router/running_router.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/json/array.hpp>
#include <thread>

#include "base/log.h"
#include "base/ports.h"
#include "base/stop_signals.h"
#include "config/json.h"
#include "config/version.h"
#include "http/tls.h"
#include "openai/api_error.h"
#include "page/feed.h"
#include "page/page_files.h"
#include "router/cluster_look.h"
#include "router/health_watch.h"
#include "router/proxy.h"

namespace cachalot::router {

namespace json = boost::json;
using openai::ApiError;
using std::chrono::steady_clock;

namespace {

constexpr std::chrono::seconds kEndMargin{5};  // beyond the drain
constexpr size_t kMostKeptBody = 8 << 20;      // of a request that can be sent more than once
constexpr std::array<std::string_view, 9> kOpenToAll{"/health",  "/live",         "/ping", "/state",         "/version",
                                                     "/metrics", "/openapi.json", "/docs", "/docs/style.css"};

constexpr int kOtherFiles = 128;  // logs, event descriptors, health questions
constexpr int kMostConnections = 32'768, kFewestConnections = 16;

// The number of clients' connections for which the open files that this process may have are enough, each with one to a
// replica: `wanted`, or with 0 as many as fit, up to kMostConnections.
Result<int> fit_connections(int wanted) {
  const int limit = http::raise_file_limit();
  const int fitting = std::max(0, (limit - kOtherFiles) / 2);
  const int needed = wanted == 0 ? kFewestConnections : wanted;
  if (needed > fitting)
    return make_parameter_error(
        "max-connections",
        "{} connections of clients, and as many to replicas, need {} open files, but only {} are "
        "allowed (ulimit -Hn); raise that, or give --max-connections {}",
        needed, 2 * int64_t{needed} + kOtherFiles, limit, fitting);
  return wanted == 0 ? std::min(fitting, kMostConnections) : wanted;
}

Result<RouterParts> read_parts(const RouterOptions& options) {
  RouterParts parts;
  for (const std::string& text : options.server_urls) {
    auto url = http::parse_url(text);
    if (!url) return make_parameter_error("server-urls", "--server-urls: {}", url.error().message);
    if (url->target != "/")
      return make_parameter_error(
          "server-urls", "--server-urls: {} has a path; only http://HOST:PORT or https://HOST:PORT belongs there",
          text);
    if (url->is_https && !parts.tls) {
      ASSIGN_OR_RETURN(parts.tls, http::TlsContext::of_client(options.replica_ca_certs));
    }
    parts.urls.push_back(std::move(*url));
  }
  ASSIGN_OR_RETURN(parts.keys, openai::ApiKeys::open(options.api_keys, options.door.api_key_file));
  if (parts.urls.empty())
    return make_parameter_error("server-urls",
                                "--server-urls is missing: the addresses of the replicas, as http://HOST:PORT");
  return parts;
}

json::object describe(const ReplicaStatus& status, size_t rank, steady_clock::time_point now) {
  json::value ejected_for;
  if (const auto until = status.health.ejected_until(); until && *until > now)
    ejected_for = std::chrono::duration<double>(*until - now).count();
  return {{"rank", rank},
          {"url", status.url},
          {"state", name_of(status.health.state())},
          {"healthy", status.health.is_up()},
          {"reason", status.health.reason().empty() ? json::value() : json::value(status.health.reason())},
          {"in_flight", status.num_in_flight},
          {"running", status.report.num_running},
          {"waiting", status.report.num_waiting},
          {"pending_tokens", status.report.num_pending_tokens},
          {"kv_usage", status.report.kv_usage},
          {"ramp", status.ramp},
          {"ejections", status.health.num_falls()},
          {"ejected_for_seconds", std::move(ejected_for)}};
}

http::Response json_response(const json::value& value) {
  return http::Response::json(200, json_text(value));
}

}  // namespace

// In the order in which they may be taken down again: the last member goes first. Requests on their way hold the
// context until the I/O threads are joined.
struct RunningRouter::Parts {
  explicit Parts(RouterOptions given, RouterParts parts)
      : options(std::move(given)),
        threads(options.io_threads),
        context(std::make_shared<ProxyContext>(threads, options, std::move(parts))),
        http(threads, {.host = options.host,
                       .port = options.port,
                       .max_header_bytes = options.max_header_bytes,
                       .max_body_bytes = options.max_body_bytes,
                       .max_buffered_body_bytes = kMostKeptBody,
                       .max_body_bytes_in_flight = options.max_body_bytes_in_flight,
                       .max_connections = options.max_connections,
                       .idle_timeout = options.idle_timeout,
                       .header_timeout = options.header_timeout,
                       .body_timeout = options.body_timeout,
                       .write_timeout = options.write_timeout,
                       .last_words = "the router is shutting down",
                       .door = options.door}) {}

  void add_routes() {
    const auto at_once = [&](const char* method, const char* path, const std::function<http::Response()>& answer) {
      http.route(method, path, [answer](const http::Request&) { return answer(); });
    };
    for (const auto& [method, path] :
         {std::pair("GET", "/health"), std::pair("GET", "/ping"), std::pair("POST", "/ping")})
      at_once(method, path, [this] { return health(); });
    at_once("GET", "/version", [] { return json_response(json::object{{"version", kVersion}}); });
    at_once("GET", "/live", [] { return http::Response{200, {}, {}}; });
    at_once("GET", "/state", [this] { return state(); });
    at_once("GET", "/replicas", [this] { return replicas(); });
    at_once("GET", "/metrics", [this] {
      return http::Response{
          200,
          {{"Content-Type", "text/plain; version=0.0.4; charset=utf-8"}},
          context->metrics.render(context->table.status(steady_clock::now()), http.num_connections()) +
              context->keys->render_metrics() + (tracer ? tracer->render_metrics() : "")};
    });
    add_passed_routes();
    feed.register_routes(http);
    http.set_head_check([this](const http::Request& head) -> openai::ApiKeys::Entry {
      if (page::is_page(head.path)) return nullptr;
      return context->keys->admit(head, kOpenToAll);
    });
    if (options.log_requests)
      http.set_observer([](const http::ServedRequest& served) {
        const bool is_watching = page::is_page(served.path) || served.path == page::kEventsPath ||
                                 std::ranges::find(kOpenToAll, served.path) != std::end(kOpenToAll);
        if (!is_watching) log::info_of(served.id, "{}", http::access_line(served));
      });
    http.set_error_format([](int status, std::string_view message, std::string_view path) {
      return ApiError(status, std::string(message), status >= 500 ? "server_error" : "invalid_request_error")
          .to_response({}, openai::error_form(path));
    });
  }

  void add_passed_routes() {
    const auto pass = [this](http::ServerCall& call) { return pass_on(context, call); };
    for (const char* method : {"GET", "POST", "DELETE"}) http.route_upload(method, "/v1/*", pass);
    for (const char* path : {"/tokenize", "/detokenize"}) http.route_upload("POST", path, pass);
    for (const char* path : {"/openapi.json", "/docs", "/docs/style.css"}) http.route_upload("GET", path, pass);
  }

  http::Response health() const { return {!is_draining && context->table.any_up() ? 200 : 503, {}, {}}; }

  http::Response replicas() const {
    const auto now = steady_clock::now();
    json::array list;
    for (const ReplicaStatus& status : context->table.status(now)) list.push_back(describe(status, list.size(), now));
    return json_response(json::object{{"model", options.model}, {"replicas", std::move(list)}});
  }

  std::string_view phase(bool any_up) const { return is_draining ? "draining" : any_up ? "ready" : "starting"; }

  // As servers tell it (serve/server_state.h), with replicas in place of ranks. Open to all, so without addresses.
  http::Response state() const {
    json::array list;
    int num_up = 0, num_running = 0;
    for (const ReplicaStatus& status : context->table.status(steady_clock::now())) {
      num_up += status.health.is_up();
      num_running += static_cast<int>(status.num_in_flight);
      list.push_back({{"rank", list.size()}, {"state", name_of(status.health.state())}});
    }
    return json_response(json::object{{"version", 1},
                                      {"kind", "router"},
                                      {"phase", phase(num_up > 0)},
                                      {"percent", list.empty() ? 0 : 100 * num_up / static_cast<int>(list.size())},
                                      {"failure", nullptr},
                                      {"running", num_running},
                                      {"waiting", 0},
                                      {"kv_usage_percent", 0},
                                      {"ranks", json::array()},
                                      {"replicas", std::move(list)}});
  }

  const RouterOptions options;
  std::atomic<bool> is_draining = false;
  std::unique_ptr<telemetry::Tracer> tracer;
  http::IoThreads threads;
  std::shared_ptr<ProxyContext> context;
  http::Server http;
  std::unique_ptr<HealthWatch> watch;
  std::unique_ptr<ClusterLook> look;
  page::Feed feed{{.kind = "router", .version = kVersion, .model = options.model}};
};

Result<std::unique_ptr<RunningRouter>> RunningRouter::start(RouterOptions options) {
  ASSIGN_OR_RETURN(RouterParts named, read_parts(options));
  ASSIGN_OR_RETURN(options.max_connections, fit_connections(options.max_connections));
  auto parts = std::make_unique<Parts>(std::move(options), std::move(named));
  ASSIGN_OR_RETURN(parts->tracer, telemetry::Tracer::create(parts->options.traces, "cachalot-router"));
  parts->context->tracer = parts->tracer.get();
  parts->add_routes();
  RETURN_IF_ERROR(parts->http.start());
  log::info("routing {} to {} replicas, as they come up", parts->http.url(), parts->options.server_urls.size());
  parts->watch = std::make_unique<HealthWatch>(parts->context);
  parts->look = std::make_unique<ClusterLook>(parts->context);
  parts->feed.start([parts = parts.get()] {
    page::ClusterView cluster{.members = parts->look->members()};
    cluster.phase = parts->phase(parts->context->table.any_up());
    return cluster;
  });
  return std::unique_ptr<RunningRouter>(new RunningRouter(std::move(parts)));
}

RunningRouter::RunningRouter(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

RunningRouter::~RunningRouter() = default;

uint16_t RunningRouter::port() const {
  return parts_->http.port();
}

void RunningRouter::stop(Deadline deadline) {
  parts_->is_draining = true;
  parts_->feed.end();
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - steady_clock::now());
  if (parts_->http.drain(std::max(left, std::chrono::milliseconds(0)))) return;
  log::warn("answers that were still running are cut");
}

void RunningRouter::end_answers() {
  parts_->http.cut();
}

Status run_router(const RouterOptions& options) {
  ASSIGN_OR_RETURN(const auto router, RunningRouter::start(options));
  StopSignals signals(std::chrono::seconds(options.drain_seconds) + kEndMargin);
  log::info("{}: no new requests; running ones have {} s", signal_name(signals.wait()), options.drain_seconds);
  std::jthread waiter([&](const std::stop_token& stopped) {
    while (!stopped.stop_requested()) {
      if (signals.wait_for(std::chrono::milliseconds(200)) == 0) continue;
      log::warn("second signal: the running answers are cut");
      return router->end_answers();
    }
  });
  router->stop(steady_clock::now() + std::chrono::seconds(options.drain_seconds));
  waiter.request_stop();
  waiter.join();
  log::info("stopped");
  return {};
}

}  // namespace cachalot::router
