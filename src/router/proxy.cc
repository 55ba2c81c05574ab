#include "router/proxy.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/json/serialize.hpp>
#include <functional>
#include <random>
#include <stop_token>

#include "base/log.h"
#include "base/text.h"
#include "http/await.h"
#include "http/sse.h"
#include "openai/api_error.h"
#include "router/event_boundary.h"
#include "router/forwarded_headers.h"
#include "router/request_facts.h"

namespace cachalot::router {

namespace asio = boost::asio;
using openai::ApiError;
using std::chrono::steady_clock;

namespace {

constexpr size_t kWindowBytes = 64 << 10;   // of an answer, on their way to a client that may be slow
constexpr size_t kMaxErrorBytes = 1 << 20;  // of an answer that is kept while another replica is asked
constexpr size_t kMaxRequestIdBytes = 128;
constexpr std::string_view kShutDown = "the router is shutting down";
constexpr std::string_view kForcedReplica = "X-data-parallel-rank";

std::string make_request_id() {
  thread_local std::mt19937_64 generator{std::random_device{}()};
  return fmt::format("{:016x}{:016x}", generator(), generator());
}

std::string request_id_of(const http::Request& request) {
  const std::string_view given = request.headers.find("X-Request-Id").value_or("");
  return given.empty() || given.size() > kMaxRequestIdBytes ? make_request_id() : std::string(given);
}

// Another replica may do better.
bool is_worth_another_try(int status) {
  return status == 500 || status == 502 || status == 503 || status == 504;
}

ApiError describe(NoPlace why) {
  switch (why) {
    case NoPlace::kNoneUp:
      return {503, "no replica takes requests at the moment", "service_unavailable"};
    case NoPlace::kForcedIsDown:
      return {503, fmt::format("the replica that {} names takes no requests at the moment", kForcedReplica),
              "service_unavailable"};
    case NoPlace::kAllFull:
      return {429, "every replica has as many requests as it may have", "rate_limit_exceeded"};
    case NoPlace::kRouterFull:
      return {429, "the router has as many requests as it may have", "rate_limit_exceeded"};
  }
  return {500, "unknown", "server_error"};
}

http::Response to_response(const ApiError& error) {
  http::Response response = error.to_response();
  if (error.status == 429) response.headers.set("Retry-After", "1");
  return response;
}

// One request. Everything happens on its strand.
class ProxyCall : public SilenceListener, public std::enable_shared_from_this<ProxyCall> {
 public:
  ProxyCall(std::shared_ptr<ProxyContext> context, http::Request request, http::Responder responder)
      : context_(std::move(context)),
        request_(std::move(request)),
        responder_(std::move(responder)),
        id_(request_id_of(request_)),
        strand_(asio::make_strand(context_->threads.context())),
        wake_timer_(strand_, steady_clock::time_point::max()) {}

  void start() {
    responder_.on_close([self = shared_from_this()] { asio::post(self->strand_, [self] { self->client_left(); }); });
    on_shutdown_.emplace(context_->shutdown.get_token(), [weak = weak_from_this()] {
      const auto self = weak.lock();
      if (!self) return;
      asio::post(self->strand_, [self] {
        self->wake_timer_.cancel();
        if (self->call_) self->call_->cancel();
      });
    });
    asio::co_spawn(
        strand_, [self = shared_from_this()] { return self->run(); },
        [self = shared_from_this()](const std::exception_ptr& exception) {
          try {
            if (exception) std::rethrow_exception(exception);
          } catch (const std::exception& failure) {
            log::error("request {} failed: {}", self->id_, failure.what());
            self->responder_.abort();
          }
        });
  }

  void replica_is_silent(size_t replica) override {
    asio::post(strand_, [self = shared_from_this(), replica] {
      if (self->call_ && self->replica_ == replica) self->wait_for_silent_replica();
    });
  }

 private:
  asio::awaitable<void> run();
  // True: the client has its answer, or needs none.
  asio::awaitable<bool> try_replica(size_t replica);
  asio::awaitable<Result<std::string>> read_piece();
  asio::awaitable<void> keep_failure(http::ResponseHead head);
  asio::awaitable<void> pass_answer(size_t replica, const http::ResponseHead& head, std::string piece);
  asio::awaitable<void> stream_answer(size_t replica, int status, http::Headers fields, std::string piece);
  asio::awaitable<bool> write(std::string bytes);
  void end_broken(size_t replica, bool is_events, const std::string& reason);

  http::ClientRequest make_request(size_t replica);
  Result<std::optional<size_t>> forced_replica() const;
  void answer_failure();
  void refuse(const ApiError& error);
  void client_left();
  void wait_for_silent_replica();
  bool is_shut_down() const { return context_->shutdown.stop_requested(); }
  double seconds() const { return std::chrono::duration<double>(steady_clock::now() - arrival_).count(); }

  const std::shared_ptr<ProxyContext> context_;
  http::Request request_;
  const http::Responder responder_;
  const std::string id_;
  const steady_clock::time_point arrival_ = steady_clock::now();
  const asio::strand<asio::io_context::executor_type> strand_;
  asio::steady_timer wake_timer_;  // of write()
  std::optional<asio::steady_timer> grace_timer_;
  std::shared_ptr<http::ClientCall> call_;  // to the replica
  size_t replica_ = 0;
  size_t num_unwritten_ = 0;  // bytes on their way to the client
  bool client_is_gone_ = false;
  bool body_is_spent_ = false;  // a part of it is gone to a replica and nowhere else
  bool has_answered_ = false;   // something of the answer was passed on
  bool was_silent_ = false;     // the call was given up because its replica was
  uint64_t num_pieces_ = 0;
  std::optional<http::Response> failure_;  // what the last replica said, or what is to be said for it
  std::optional<std::stop_callback<std::function<void()>>> on_shutdown_;
};

asio::awaitable<void> ProxyCall::run() {
  const auto forced = forced_replica();
  if (!forced) co_return refuse(ApiError(400, forced.error().message, "invalid_request_error"));
  const RequestFacts facts = read_request_facts(request_.body);
  std::vector<size_t> sent_to;
  while (!client_is_gone_) {
    if (is_shut_down()) co_return refuse(ApiError(503, std::string(kShutDown), "service_unavailable"));
    auto place = context_->table.admit(facts, sent_to, *forced, weak_from_this(), steady_clock::now());
    if (!place && failure_) co_return answer_failure();
    if (!place) co_return refuse(describe(place.error()));
    const size_t replica = place->replica();
    const bool is_over = co_await try_replica(replica);
    if (is_over) co_return;
    sent_to.push_back(replica);
    if (is_shut_down()) continue;
    const bool is_last_try =
        static_cast<int>(sent_to.size()) >= context_->options.max_tries || *forced || body_is_spent_;
    if (is_last_try) co_return answer_failure();
    context_->metrics.retried(replica);
  }
}

Result<std::optional<size_t>> ProxyCall::forced_replica() const {
  const auto text = request_.headers.find(kForcedReplica);
  if (!text) return std::nullopt;
  const auto number = parse_number<size_t>(*text);
  if (number && *number < context_->urls.size()) return number;
  return make_error(ErrorCode::kInvalidArgument, "{} is \"{}\"; the replicas are 0 to {}", kForcedReplica, *text,
                    context_->urls.size() - 1);
}

http::ClientRequest ProxyCall::make_request(size_t replica) {
  http::ClientRequest request{.method = request_.method,
                              .url = context_->urls[replica],
                              .headers = request_fields(request_, id_, context_->options.server_api_key),
                              .body = request_.body};
  request.url.target = request_.target;
  if (!request_.more_body) return request;
  request.more_body = std::move(request_.more_body);
  request.body_size = parse_number<size_t>(request_.headers.find("Content-Length").value_or(""));
  body_is_spent_ = true;
  return request;
}

asio::awaitable<bool> ProxyCall::try_replica(size_t replica) {
  ReplicaTable& table = context_->table;
  replica_ = replica;
  was_silent_ = false;
  auto start = [&](std::function<void(Result<http::ResponseHead>)> on_head) {
    call_ = context_->client.start(make_request(replica), std::move(on_head));
  };
  Result<http::ResponseHead> head = co_await http::await_callback<Result<http::ResponseHead>>(std::move(start));
  Result<std::string> piece;
  if (head && is_worth_another_try(head->status)) {
    const int status = head->status;
    co_await keep_failure(std::move(*head));
    if (status != 503) table.request_failed(replica, fmt::format("it answers with {}", status), steady_clock::now());
    log::warn("request {}: {} answers with {}", id_, table.url(replica), status);
    co_return client_is_gone_;
  }
  if (head) piece = co_await read_piece();
  if (head && piece) {
    table.request_answered(replica);
    co_await pass_answer(replica, *head, std::move(*piece));
    co_return true;
  }
  if (client_is_gone_) co_return true;
  if (is_shut_down()) co_return false;
  const Error error = head ? piece.error() : head.error();
  log::warn("request {}: {}{}", id_, error.message, was_silent_ ? " because its server is silent" : "");
  if (error.code == ErrorCode::kDeadlineExceeded) {
    refuse(ApiError(504, error.message, "server_error"));
    co_return true;
  }
  if (error.code == ErrorCode::kInvalidArgument || error.code == ErrorCode::kTooLarge) {  // the client's body
    refuse(ApiError(error));
    co_return true;
  }
  if (!was_silent_) table.request_not_taken(replica, error.message);
  failure_ = to_response(ApiError(503, "no replica could answer", "service_unavailable"));
  co_return false;
}

asio::awaitable<Result<std::string>> ProxyCall::read_piece() {
  auto read = [call = call_](std::function<void(Result<std::string>)> on_piece) { call->read(std::move(on_piece)); };
  return http::await_callback<Result<std::string>>(std::move(read));
}

// The answer of a replica that failed is the client's if no other replica does better.
asio::awaitable<void> ProxyCall::keep_failure(http::ResponseHead head) {
  failure_ = http::Response{head.status, response_fields(head.headers, id_), {}};
  failure_->headers.erase("Content-Length");
  for (;;) {
    const Result<std::string> piece = co_await read_piece();
    if (!piece || piece->empty()) co_return;
    if (failure_->body.size() + piece->size() <= kMaxErrorBytes) failure_->body += *piece;
  }
}

asio::awaitable<void> ProxyCall::pass_answer(size_t replica, const http::ResponseHead& head, std::string piece) {
  const size_t num_request_bytes = request_.body.size();
  request_.body = {};
  request_.headers = {};
  has_answered_ = true;
  context_->metrics.answer_began(replica, seconds());
  const auto length = head.headers.find("Content-Length");
  http::Headers fields = response_fields(head.headers, id_);
  const bool is_whole = piece.empty() || (length && parse_number<size_t>(*length) == piece.size());
  context_->metrics.passed_bytes(replica, num_request_bytes, 0);
  if (!is_whole || (request_.method == "HEAD" && length)) {
    co_await stream_answer(replica, head.status, std::move(fields), std::move(piece));
    co_return;
  }
  context_->metrics.passed_bytes(replica, 0, piece.size());
  context_->metrics.answer_ended(replica, head.status, seconds(), true);
  log::debug("request {}: {} {} from {}, {:.1f} ms", id_, request_.target, head.status, context_->table.url(replica),
             seconds() * 1e3);
  responder_.respond({head.status, std::move(fields), std::move(piece)});
}

asio::awaitable<void> ProxyCall::stream_answer(size_t replica, int status, http::Headers fields, std::string piece) {
  const bool is_events = fields.find("Content-Type").value_or("").starts_with("text/event-stream");
  bool is_broken = false;
  EventBoundary boundary;
  responder_.begin(status, std::move(fields));
  while (!piece.empty()) {
    num_pieces_++;
    context_->metrics.passed_bytes(replica, 0, piece.size());
    if (is_events) piece = boundary.pass(std::move(piece));
    const bool written = co_await write(std::move(piece));
    if (!written) break;
    Result<std::string> next = co_await read_piece();
    if (!next) {
      is_broken = !client_is_gone_;
      if (is_broken) end_broken(replica, is_events, next.error().message);
      break;
    }
    piece = std::move(*next);
  }
  if (client_is_gone_) call_->cancel();
  if (!is_broken && !client_is_gone_) {
    if (is_events) responder_.write(boundary.take_rest());
    responder_.end();
  }
  context_->metrics.answer_ended(replica, status, seconds(), !is_broken);
  log::debug("request {}: {} {} from {}, {:.1f} ms{}", id_, request_.target, status, context_->table.url(replica),
             seconds() * 1e3, client_is_gone_ ? ", client gone" : "");
}

// False: the client is gone.
asio::awaitable<bool> ProxyCall::write(std::string bytes) {
  if (bytes.empty()) co_return !client_is_gone_;
  const size_t size = bytes.size();
  num_unwritten_ += size;
  responder_.write(std::move(bytes), [self = shared_from_this(), size] {
    asio::post(self->strand_, [self, size] {
      self->num_unwritten_ -= size;
      self->wake_timer_.cancel();
    });
  });
  while (num_unwritten_ > kWindowBytes && !client_is_gone_ && !is_shut_down())
    co_await wake_timer_.async_wait(asio::as_tuple(asio::use_awaitable));
  co_return !client_is_gone_;
}

void ProxyCall::end_broken(size_t replica, bool is_events, const std::string& reason) {
  log::warn("request {}: {}{}; its answer had begun", id_, is_shut_down() ? kShutDown : reason,
            was_silent_ ? " because its server is silent" : "");
  if (!was_silent_ && !is_shut_down()) context_->table.request_failed(replica, reason, steady_clock::now());
  const ApiError error(502,
                       fmt::format("{}; the answer is incomplete",
                                   is_shut_down() ? kShutDown : "the replica that was answering is gone"),
                       "server_error");
  if (is_events) responder_.write(http::format_sse(boost::json::serialize(error.to_json())));
  responder_.abort();
}

void ProxyCall::answer_failure() {
  context_->metrics.refused(failure_->status);
  if (!failure_->headers.contains("X-Request-Id")) failure_->headers.add("X-Request-Id", id_);
  responder_.respond(std::move(*failure_));
}

void ProxyCall::refuse(const ApiError& error) {
  context_->metrics.refused(error.status);
  log::debug("request {}: {} is refused with {}: {}", id_, request_.target, error.status, error.message);
  http::Response response = to_response(error);
  response.headers.set("X-Request-Id", id_);
  responder_.respond(std::move(response));
}

void ProxyCall::client_left() {
  client_is_gone_ = true;
  wake_timer_.cancel();
  if (call_) call_->cancel();
}

// Nothing of an answer yet: another replica is asked. Else the silence may pass, for a while.
void ProxyCall::wait_for_silent_replica() {
  if (!has_answered_) {
    was_silent_ = true;
    return call_->cancel();
  }
  grace_timer_.emplace(strand_, context_->options.stream_grace);
  grace_timer_->async_wait([weak = weak_from_this(), seen = num_pieces_](const boost::system::error_code& error) {
    const auto self = weak.lock();
    if (error || !self || self->num_pieces_ != seen || !self->context_->table.is_silent(self->replica_)) return;
    self->was_silent_ = true;
    self->call_->cancel();
  });
}

}  // namespace

ProxyContext::ProxyContext(const http::IoThreads& threads, const RouterOptions& options, std::vector<http::Url> urls)
    : threads(threads),
      options(options),
      urls(std::move(urls)),
      table(options.server_urls,
            {.fall = options.health_fall,
             .rise = options.health_rise,
             .eject_after_errors = options.eject_after_errors,
             .eject_time = options.eject_time,
             .slow_start = options.slow_start},
            {.max_in_flight = options.max_in_flight,
             .max_in_flight_per_replica = options.max_in_flight_per_replica,
             .prefix_entries = options.prefix_entries}),
      metrics(options.server_urls, options.model),
      client(threads, {.connect_timeout = options.connect_timeout,
                       .idle_timeout = options.answer_timeout,
                       .max_header_bytes = 64 << 10,
                       .max_idle_connections = 256}) {}

void pass_on(std::shared_ptr<ProxyContext> context, http::Request request, http::Responder responder) {
  std::make_shared<ProxyCall>(std::move(context), std::move(request), std::move(responder))->start();
}

}  // namespace cachalot::router
