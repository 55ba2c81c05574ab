#include "router/proxy.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/detached.hpp>
#include <random>

#include "base/log.h"
#include "base/text.h"
#include "config/json.h"
#include "http/message.h"
#include "openai/api_error.h"
#include "openai/response_store.h"
#include "router/forwarding.h"
#include "router/request_facts.h"

namespace cachalot::router {

namespace asio = boost::asio;
using http::awaitable;
using openai::ApiError;
using std::chrono::steady_clock;

namespace {

// Of an answer that is kept while another replica is asked.
constexpr size_t kMaxErrorBytes = 1 << 20;
constexpr std::chrono::milliseconds kErrorPatience{1000};
constexpr size_t kMaxRequestIdBytes = 128;
constexpr std::string_view kForcedReplica = "X-data-parallel-rank";
// A head that came without a body waits so long for its first piece, since until it is passed on another replica may
// be asked; then the client should know that it is being served.
constexpr std::chrono::milliseconds kHeadPatience{500};
constexpr std::string_view kResponses = "/v1/responses";
constexpr int kMostLosses = 2;  // replicas that one request may take with it

std::string make_request_id() {
  thread_local std::mt19937_64 generator{std::random_device{}()};
  return fmt::format("{:016x}{:016x}", generator(), generator());
}

std::string request_id_of(const http::Request& request) {
  const std::string_view given = request.headers.find("X-Request-Id").value_or("");
  const bool is_plain = std::ranges::all_of(given, [](char c) { return c > ' ' && c < 0x7f; });
  return given.empty() || !is_plain || given.size() > kMaxRequestIdBytes ? make_request_id() : std::string(given);
}

// Another replica may do better; unless this one says that it would not (a field that OpenAI's clients know, too).
bool is_worth_another_try(const http::ResponseHead& head) {
  const int status = head.status;
  const bool is_own_fault = status == 429 || status == 500 || status == 502 || status == 503 || status == 504;
  return is_own_fault && head.headers.find("X-Should-Retry") != "false";
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

// What a request to /v1/responses refers to, or whose path it is; empty: nothing that a server of ours has.
std::string stored_id_of(std::string_view path, const RequestFacts& facts) {
  if (!path.starts_with(kResponses)) return {};
  std::string_view id = facts.stored_id;
  if (id.empty() && path.size() > kResponses.size()) {
    id = path.substr(kResponses.size() + 1);
    id = id.substr(0, id.find('/'));
  }
  return openai::response_ids::mark_of(id) ? std::string(id) : std::string();
}

// One request, on the strand of its client's connection.
class ProxyCall : public SilenceListener, public std::enable_shared_from_this<ProxyCall> {
 public:
  ProxyCall(std::shared_ptr<ProxyContext> context, http::ServerCall& client, asio::any_io_executor strand)
      : context_(std::move(context)),
        client_(client),
        id_(request_id_of(client.request)),
        target_(client.request.target),
        error_form_(openai::error_form(client.request.path)),
        strand_(std::move(strand)),
        grace_timer_(strand_) {}

  awaitable<void> run() {
    auto forced = forced_replica();
    if (!forced) co_return co_await refuse(ApiError(400, forced.error().message, "invalid_request_error"));
    if (!context_->suspects.empty()) {
      const uint64_t hash = hash_of(target_, client_.request.body);
      if (const auto seconds = context_->suspects.refused_for(hash, steady_clock::now()))
        co_return co_await refuse(ApiError(503,
                                           fmt::format("replicas were lost each time they had this very request; it "
                                                       "is not sent on for {} s",
                                                       seconds->count()),
                                           "server_error"));
    }
    const std::string_view path = client_.request.path;
    const RequestFacts facts = read_request_facts(client_.request.body, path.starts_with(kResponses));
    stored_id_ = stored_id_of(path, facts);
    if (*forced || !context_->table.any_marks()) stored_id_.clear();
    if (!stored_id_.empty()) {
      *forced = context_->table.holder_of(*openai::response_ids::mark_of(stored_id_));
      if (!*forced) co_return co_await refuse(what_is_gone());
    }
    std::vector<size_t> sent_to;
    for (int num_losses_before = 0;; num_losses_before = num_losses_) {
      auto place = context_->table.admit(facts, sent_to, *forced, weak_from_this(), steady_clock::now());
      if (!place && failure_) break;
      if (!place && place.error() == NoPlace::kForcedIsDown && !stored_id_.empty())
        co_return co_await refuse(what_is_gone());
      if (!place) co_return co_await refuse(describe(place.error()));
      replica_ = place->replica();
      place_.emplace(std::move(*place));
      const bool is_over = co_await try_replica();
      call_.reset();
      place_.reset();
      if (is_over) co_return;
      sent_to.push_back(replica_);
      // A request that may have taken a replica with it gets one more.
      const bool is_last_try = static_cast<int>(sent_to.size()) >= context_->options.max_tries || *forced ||
                               body_is_spent_ || num_losses_before > 0 || num_losses_ >= kMostLosses;
      if (is_last_try) break;
      context_->metrics.retried(replica_);
    }
    context_->metrics.refused(failure_->status);
    if (!failure_->headers.contains("X-Request-Id")) failure_->headers.add("X-Request-Id", id_);
    co_await answer(std::move(*failure_));
  }

  // The handler is over, whether or not it came to its end.
  void end() {
    call_.reset();
    place_.reset();
    grace_timer_.cancel();
    if (status_ != 0) end_metrics(true);
  }

  void replica_is_silent(size_t replica) override {
    asio::post(strand_, [self = shared_from_this(), replica] {
      if (self->call_ && self->replica_ == replica) self->wait_for_silent_replica();
    });
  }

 private:
  http::Response to_response(const ApiError& error) const {
    http::Response response = error.to_response({{"X-Request-Id", id_}}, error_form_);
    if (error.status == 429) response.headers.set("Retry-After", "1");
    return response;
  }

  // In the words of OpenAI, at which a client sends the whole conversation again.
  ApiError what_is_gone() const {
    const bool is_path = target_.contains(stored_id_);
    return {404,
            fmt::format("{}esponse with id {} not found: the replica that had it is gone.",
                        is_path ? "R" : "Previous r", quoted(stored_id_)),
            "invalid_request_error", is_path ? "response_id" : "previous_response_id",
            is_path ? "response_not_found" : "previous_response_not_found"};
  }

  Result<std::optional<size_t>> forced_replica() const {
    const auto text = client_.request.headers.find(kForcedReplica);
    if (!text) return std::nullopt;
    const auto number = parse_number<size_t>(*text);
    if (number && *number < context_->urls.size()) return number;
    return make_error(ErrorCode::kInvalidArgument, "{} is {}; the replicas are 0 to {}", kForcedReplica, quoted(*text),
                      context_->urls.size() - 1);
  }

  http::ClientRequest make_request() {
    const http::Request& given = client_.request;
    http::ClientRequest request{.method = given.method,
                                .url = context_->urls[replica_],
                                .headers = request_fields(given, id_, context_->options.server_api_key),
                                .body = given.body,
                                .more_body = {},
                                .body_size = {}};
    request.url.target = given.target;
    if (client_.body_is_complete()) return request;
    request.more_body = [this]() -> awaitable<Result<std::string>> {
      Result<std::string> piece = co_await client_.read();
      if (!piece) body_error_ = piece.error();
      co_return piece;
    };
    request.body_size = parse_number<size_t>(given.headers.find("Content-Length").value_or(""));
    body_is_spent_ = true;
    return request;
  }

  // True: the client has its answer, or needs none.
  awaitable<bool> try_replica() {
    was_silent_ = loss_is_counted_ = false;
    try_began_ = steady_clock::now();
    call_.emplace(context_->client.call(make_request()));
    Result<http::ResponseHead> head = co_await call_->head();
    if (call_->num_lost() > 0) count_loss();
    if (!head) co_return co_await take_error(std::move(head.error()));
    context_->table.heard(replica_, steady_clock::now());
    if (is_worth_another_try(*head)) {
      co_await keep_failure(std::move(*head));
      co_return false;
    }
    std::optional<std::string> first;
    Result<std::string> piece = co_await call_->read_within(kHeadPatience);
    if (piece) {
      first = std::move(*piece);
    } else if (piece.error().code != ErrorCode::kDeadlineExceeded) {
      if (piece.error().code == ErrorCode::kUnavailable) count_loss();
      co_return co_await take_error(std::move(piece.error()));
    }
    context_->table.request_answered(replica_);
    co_return co_await pass_answer(std::move(*head), std::move(first));
  }

  // No answer. True: the request is over.
  awaitable<bool> take_error(Error error) {
    if (is_given_up(error)) co_return true;
    log::warn("request {}: {}{}", id_, error.message, was_silent_ ? " because its server is silent" : "");
    if (body_error_) {
      const bool is_late = body_error_->code == ErrorCode::kDeadlineExceeded;
      const ApiError refusal =
          is_late ? ApiError(408, body_error_->message, "invalid_request_error") : ApiError(*body_error_);
      co_await refuse(refusal);
      co_return true;
    }
    if (error.code == ErrorCode::kDeadlineExceeded) {
      co_await refuse(ApiError(504, error.message, "server_error"));
      co_return true;
    }
    // Nobody listens, or the connection broke: that is plain. Whom it only took long to reach may be busy.
    const auto now = steady_clock::now();
    const bool took_long = call_->num_lost() == 0 && now - try_began_ >= context_->options.connect_timeout;
    if (!was_silent_) context_->table.request_not_taken(replica_, error.message, took_long ? try_began_ : now);
    failure_ = !stored_id_.empty() ? to_response(what_is_gone())
               : num_losses_ >= kMostLosses
                   ? to_response(ApiError(502,
                                          "the replicas that had this request were lost without an answer; it is "
                                          "not sent to another one",
                                          "server_error"))
                   : to_response(ApiError(503, "no replica could answer", "service_unavailable"));
    co_return false;
  }

  // The answer of a replica that failed is the client's if no other replica does better.
  awaitable<void> keep_failure(http::ResponseHead head) {
    const int status = head.status;
    failure_ = http::Response{status, response_fields(head.headers, id_), {}};
    failure_->headers.erase("Content-Length");
    // Whatever its end, the request is not held up by it.
    bool is_whole = false;
    const auto patience_ends = steady_clock::now() + kErrorPatience;
    while (!is_whole && failure_->body.size() < kMaxErrorBytes && steady_clock::now() < patience_ends) {
      const Result<std::string> piece = co_await call_->read_within(kErrorPatience);
      if (!piece) break;
      is_whole = piece->empty();
      failure_->body += *piece;
    }
    log::warn("request {}: {} answers with {}", id_, context_->table.url(replica_), status);
    if (status == 503 || status == 429) co_return;
    // An error that it puts into words is the work of a server that lives.
    const bool has_words = is_whole && status == 500 && failure_->body.starts_with("{\"error\"");
    context_->table.request_failed(replica_, fmt::format("it answers with {}", status), has_words, steady_clock::now());
  }

  // By the end of the handler, which then throws at its next step.
  bool is_given_up(const Error& error) const { return error.code == ErrorCode::kCancelled && !was_silent_; }

  // A replica that dies may break more than one connection of the request: it is one loss.
  void count_loss() {
    if (std::exchange(loss_is_counted_, true)) return;
    num_losses_++;
    context_->suspects.add(hash_of(target_, client_.request.body), steady_clock::now());
  }

  // It is answered: no other replica will get it.
  void forget_request() {
    if (num_losses_ > 0) context_->suspects.acquit(hash_of(target_, client_.request.body));
    client_.request.body = {};
    client_.request.headers = {};
    client_.request.body_share.reset();
  }

  awaitable<bool> pass_answer(http::ResponseHead head, std::optional<std::string> piece) {
    const auto length = head.headers.find("Content-Length");
    http::Headers fields = response_fields(head.headers, id_);
    if (head_is_passed_) {
      // Another replica's, of whose stream nothing counts so far.
      const bool goes_on =
          head.status == 200 && fields.find("Content-Type").value_or("").starts_with("text/event-stream");
      if (goes_on) co_return co_await stream_answer(std::move(fields), std::move(piece));
      failure_ = to_response(ApiError(502, fmt::format("the replica answers with {}", head.status), "server_error"));
      co_await answer(std::move(*failure_));
      co_return true;
    }
    status_ = head.status;
    context_->metrics.answer_began(replica_, seconds());
    context_->metrics.passed_bytes(replica_, client_.request.body.size(), 0);
    const bool is_whole = piece && (piece->empty() || (length && parse_number<size_t>(*length) == piece->size()));
    if (!is_whole || (client_.request.method == "HEAD" && length))
      co_return co_await stream_answer(std::move(fields), std::move(piece));
    forget_request();
    context_->metrics.passed_bytes(replica_, 0, piece->size());
    http::Response response{head.status, std::move(fields), std::move(*piece)};
    end_metrics(true);
    co_await client_.respond(std::move(response));
    co_return true;
  }

  awaitable<bool> stream_answer(http::Headers fields, std::optional<std::string> piece) {
    const bool is_events = fields.find("Content-Type").value_or("").starts_with("text/event-stream");
    if (!head_is_passed_) client_.begin(status_, std::move(fields));
    head_is_passed_ = true;
    if (!piece) co_await client_.send("");
    EventBoundary boundary;
    for (;;) {
      if (!piece) {
        Result<std::string> next = co_await call_->read();
        if (!next) {
          if (is_given_up(next.error())) co_return true;
          const bool may_go_elsewhere = is_events && !has_answered_ && !body_is_spent_;
          if (may_go_elsewhere) {
            if (next.error().code == ErrorCode::kUnavailable) count_loss();
            co_return co_await take_error(std::move(next.error()));
          }
          co_await end_broken(is_events, next.error().message);
          co_return true;
        }
        piece = std::move(*next);
      }
      if (piece->empty()) break;
      num_pieces_++;
      context_->table.heard(replica_, steady_clock::now());
      context_->metrics.passed_bytes(replica_, 0, piece->size());
      std::string bytes = is_events ? boundary.pass(std::move(*piece)) : std::move(*piece);
      piece.reset();
      if (!has_answered_ && (!is_events || !EventBoundary::are_comments(bytes))) {
        has_answered_ = true;
        forget_request();
      }
      if (call_->is_complete()) {
        bytes += boundary.take_rest();
        end_metrics(true);
        co_await client_.end(std::move(bytes));
        co_return true;
      }
      if (!bytes.empty()) co_await client_.send(std::move(bytes));
    }
    end_metrics(true);
    co_await client_.end(boundary.take_rest());
    co_return true;
  }

  // The handler ends without an end of the answer, so that it does not look complete.
  awaitable<void> end_broken(bool is_events, const std::string& reason) {
    log::warn("request {}: {}{}; its answer had begun", id_, reason,
              was_silent_ ? " because its server is silent" : "");
    if (!was_silent_) context_->table.request_failed(replica_, reason, false, steady_clock::now());
    end_metrics(false);
    const ApiError error(502, "the replica that was answering is gone; the answer is incomplete", "server_error");
    if (is_events) co_await client_.send(error.to_event(error_form_, id_));
  }

  void end_metrics(bool is_whole) {
    place_.reset();
    const int status = std::exchange(status_, 0);
    context_->metrics.answer_ended(replica_, status, seconds(), is_whole);
    log::debug("request {}: {} {} from {}, {:.1f} ms{}", id_, quoted(target_), status, context_->table.url(replica_),
               seconds() * 1e3, client_.client_is_gone() ? ", client gone" : "");
  }

  // What the router itself says; in a stream whose head is out as its last event.
  awaitable<void> answer(http::Response response) {
    if (!head_is_passed_) co_return co_await client_.respond(std::move(response));
    end_metrics(false);
    co_await client_.send(http::format_sse(response.body, error_form_ == openai::ErrorForm::kAnthropic ? "error" : ""));
  }

  awaitable<void> refuse(ApiError error) {
    context_->metrics.refused(error.status);
    log::debug("request {}: {} is refused with {}: {}", id_, quoted(target_), error.status, error.message);
    co_await answer(to_response(error));
  }

  // Nothing of an answer yet: another replica is asked. Else the silence may pass, for a while.
  void wait_for_silent_replica() {
    if (!has_answered_) {
      was_silent_ = true;
      return call_->close();
    }
    asio::co_spawn(
        strand_, [self = shared_from_this()] { return self->give_grace(self->num_pieces_); }, asio::detached);
  }

  awaitable<void> give_grace(uint64_t num_pieces) {
    grace_timer_.expires_after(context_->options.stream_grace);
    const auto [error] = co_await grace_timer_.async_wait(http::kResult);
    if (error || !call_ || num_pieces_ != num_pieces || !context_->table.is_silent(replica_)) co_return;
    was_silent_ = true;
    call_->close();
  }

  double seconds() const { return std::chrono::duration<double>(steady_clock::now() - arrival_).count(); }

  const std::shared_ptr<ProxyContext> context_;
  http::ServerCall& client_;  // until end()
  const std::string id_, target_;
  const openai::ErrorForm error_form_;
  std::string stored_id_;  // of what one replica alone has, and the request is about
  const asio::any_io_executor strand_;
  const steady_clock::time_point arrival_ = steady_clock::now();
  steady_clock::time_point try_began_;
  asio::steady_timer grace_timer_;
  std::optional<http::ClientCall> call_;  // to the replica
  // Given back before the last bytes of an answer go: who has them may ask again at once.
  std::optional<ReplicaTable::Place> place_;
  size_t replica_ = 0;
  int status_ = 0;                                      // of the answer that is passed on
  int num_losses_ = 0;                                  // replicas that were lost without an answer
  bool loss_is_counted_ = false;                        // that of the replica that has it now
  bool body_is_spent_ = false;                          // a part of it is gone to a replica and nowhere else
  bool head_is_passed_ = false, has_answered_ = false;  // its head; something of it that counts
  bool was_silent_ = false;                             // the call was given up because its replica was
  uint64_t num_pieces_ = 0;
  std::optional<Error> body_error_;        // of the client
  std::optional<http::Response> failure_;  // what the last replica said, or what is to be said for it
};

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

awaitable<void> pass_on(std::shared_ptr<ProxyContext> context, http::ServerCall& client) {
  // Others may hold the call for a moment longer.
  struct End {
    explicit End(std::shared_ptr<ProxyCall> ending) : call(std::move(ending)) {}
    ~End() { call->end(); }
    const std::shared_ptr<ProxyCall> call;
  };
  // Step by step: g++ 12 destroys an aggregate twice whose initializer awaits.
  const asio::any_io_executor strand = co_await asio::this_coro::executor;
  const End end(std::make_shared<ProxyCall>(std::move(context), client, strand));
  co_await end.call->run();
}

}  // namespace cachalot::router
