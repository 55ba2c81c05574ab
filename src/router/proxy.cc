#include "router/proxy.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/detached.hpp>
#include <random>

#include "base/log.h"
#include "base/text.h"
#include "config/json.h"
#include "http/message.h"
#include "openai/answer/answer_log.h"
#include "openai/api_error.h"
#include "router/forwarding.h"
#include "router/request_course.h"

namespace cachalot::router {

namespace asio = boost::asio;
using http::awaitable;
using openai::ApiError;
using std::chrono::steady_clock;

namespace {

constexpr size_t kMaxRequestIdBytes = 128;
// A head that came without a body waits so long for its first piece, since until it is passed on another replica may
// be asked; then the client should know that it is being served.
constexpr std::chrono::milliseconds kHeadPatience{500};
constexpr size_t kMostHeld = 64 << 20;  // that a server tells at once

std::string make_request_id() {
  thread_local std::mt19937_64 generator{std::random_device{}()};
  return fmt::format("{:016x}{:016x}", generator(), generator());
}

std::string request_id_of(const http::Request& request) {
  const std::string_view given = request.headers.find("X-Request-Id").value_or("");
  const bool is_plain = std::ranges::all_of(given, [](char c) { return c > ' ' && c < 0x7f; });
  return given.empty() || !is_plain || given.size() > kMaxRequestIdBytes ? make_request_id() : std::string(given);
}

// One request, on the strand of its client's connection: carries the bytes of its course.
class ProxyCall : public SilenceListener, public std::enable_shared_from_this<ProxyCall> {
 public:
  ProxyCall(std::shared_ptr<ProxyContext> context, http::ServerCall& client, asio::any_io_executor strand)
      : context_(std::move(context)),
        client_(client),
        course_(*context_, client.request, request_id_of(client.request), steady_clock::now()),
        strand_(std::move(strand)),
        grace_timer_(strand_),
        guest_(std::static_pointer_cast<openai::ApiKeys::Guest>(client.visit)) {
    if (context_->options.log_requests) client_.id = course_.id();
    if (!context_->tracer) return;
    span_ = telemetry::begin_request("router", client_.request.headers);
    if (span_)
      span_->attributes = {{"http.request.method", client_.request.method},
                           {"url.path", client_.request.path},
                           {"gen_ai.request.id", course_.id()}};
  }

  awaitable<void> run() {
    if (const auto refusal = course_.check(steady_clock::now())) co_return co_await refuse(*refusal);
    for (;;) {
      if (const auto pause = course_.pause(); pause.count() > 0) {
        asio::steady_timer timer(strand_, pause);
        co_await timer.async_wait(asio::use_awaitable);
      }
      const auto replica = course_.next_replica(weak_from_this(), steady_clock::now());
      if (!replica && course_.is_waiting()) continue;
      if (!replica && course_.goes_on() && !course_.last_words().empty()) co_return co_await say_last_words();
      if (!replica && replica.error()) co_return co_await refuse(*replica.error());
      if (!replica) co_return co_await answer(course_.take_failure());
      begin_try();
      const bool is_over = co_await try_replica();
      call_.reset();
      if (!is_over) end_try("it did not answer");
      if (is_over) co_return course_.give_place_back();
    }
  }

  // The handler is over, whether or not it came to its end.
  void end() {
    call_.reset();
    course_.give_place_back();
    grace_timer_.cancel();
    if (status_ != 0) end_metrics(true);
    end_try();
    if (num_tries_ > 0 && context_->options.log_requests)
      client_.story = fmt::format("from {}{}", context_->table.url(course_.replica()),
                                  num_tries_ > 1 ? fmt::format(" as the {}. that was asked", num_tries_) : "");
    if (span_) end_span(*std::exchange(span_, std::nullopt));
    if (guest_) charge();
  }

  void replica_is_silent(size_t replica) override {
    asio::post(strand_, [self = shared_from_this(), replica] {
      if (self->call_ && self->course_.replica() == replica) self->wait_for_silent_replica();
    });
  }
  void replica_is_new(size_t replica, const std::string& mark, bool was_older) override {
    asio::post(strand_, [self = shared_from_this(), replica, mark, was_older] {
      if (self->call_ && self->course_.replica() == replica) self->hear_start(mark, was_older);
    });
  }

 private:
  http::ClientRequest make_request() {
    const http::Request& given = client_.request;
    http::ClientRequest request{.method = given.method,
                                .url = context_->urls[course_.replica()],
                                .headers = request_fields(given, course_.id(), context_->options.server_api_key,
                                                          context_->options.door.tls.is_on()),
                                .body = given.body,
                                .more_body = {},
                                .body_size = {}};
    request.url.target = given.target;
    if (guest_) {
      request.headers.add(std::string(openai::kUsageField), "1");
      request.headers.add(std::string(openai::kPrioritiesField), guest_->priorities());
    }
    if (try_span_)
      request.headers.set(std::string(telemetry::kTraceparent), telemetry::to_traceparent(try_span_->context));
    if (client_.body_is_complete()) {
      if (!course_.wants_log()) return request;
      request.headers.set(std::string(openai::answer_log::kField), std::to_string(course_.log().size()));
      request.body.insert(0, course_.log());
      return request;
    }
    request.more_body = [this]() -> awaitable<Result<std::string>> {
      Result<std::string> piece = co_await client_.read();
      if (!piece) body_error_ = piece.error();
      co_return piece;
    };
    request.body_size = parse_number<size_t>(given.headers.find("Content-Length").value_or(""));
    course_.spend_body();
    return request;
  }

  // A replica after the first takes the request over.
  void begin_try() {
    num_tries_++;
    if (!span_) return;
    try_span_ =
        telemetry::begin_span(num_tries_ == 1 ? "replica" : "takeover", telemetry::Span::Kind::kClient, span_->context);
    try_span_->attributes = {{"url.full", context_->table.url(course_.replica())},
                             {"cachalot.replica", static_cast<int64_t>(course_.replica())}};
  }
  void end_try(const char* failure = nullptr) {
    if (!try_span_) return;
    if (failure) try_span_->fail(failure);
    end_span(*std::exchange(try_span_, std::nullopt));
  }
  void end_span(telemetry::Span span) {
    if (last_status_ != 0) span.attributes.emplace_back("http.response.status_code", int64_t{last_status_});
    if (!span.failure && last_status_ >= 500) span.fail("");
    context_->tracer->add(std::move(span));
  }

  // True: the client has its answer, or needs none.
  awaitable<bool> try_replica() {
    course_.begin_try(steady_clock::now());
    call_.emplace(context_->client.call(make_request()));
    Result<http::ResponseHead> head = co_await call_->head();
    if (call_->num_lost() > 0) course_.lose_connection(steady_clock::now());
    if (!head) co_return co_await take_error(std::move(head.error()));
    last_status_ = head->status;
    if (!course_.take_head(*head, steady_clock::now())) {
      co_await keep_failure();
      co_return false;
    }
    if (course_.is_logged()) {
      course_.begin_answer();
      co_return co_await pass_logged(std::move(*head));
    }
    std::optional<std::string> first;
    Result<std::string> piece = co_await call_->read_within(kHeadPatience);
    if (piece) {
      first = std::move(*piece);
    } else if (piece.error().code != ErrorCode::kDeadlineExceeded) {
      if (piece.error().code == ErrorCode::kUnavailable) course_.lose_connection(steady_clock::now());
      co_return co_await take_error(std::move(piece.error()));
    }
    course_.begin_answer();
    co_return co_await pass_answer(std::move(*head), std::move(first));
  }

  // No answer. True: the request is over.
  awaitable<bool> take_error(Error error) {
    if (is_given_up(error)) co_return true;
    const auto refusal = course_.take_error(error, call_->num_lost(), body_error_, steady_clock::now());
    if (refusal) co_await refuse(*refusal);
    co_return refusal.has_value();
  }

  // The answer of a replica that failed is the client's if no other replica does better.
  awaitable<void> keep_failure() {
    bool is_whole = false;
    while (!is_whole && course_.wants_more_of_failure(steady_clock::now())) {
      const Result<std::string> piece = co_await call_->read_within(RequestCourse::kErrorPatience);
      if (!piece) break;
      is_whole = piece->empty();
      course_.add_to_failure(*piece);
    }
    course_.end_failure(is_whole, steady_clock::now());
  }

  // By the end of the handler, which then throws at its next step.
  bool is_given_up(const Error& error) const { return error.code == ErrorCode::kCancelled && !course_.was_closed(); }

  // With its log, which is kept.
  awaitable<bool> pass_logged(http::ResponseHead head) {
    http::Headers fields = response_fields(head.headers, course_.id());
    if (std::exchange(status_, head.status) == 0) {
      context_->metrics.answer_began(course_.replica(), seconds());
      context_->metrics.passed_bytes(course_.replica(), client_.request.body.size(), 0);
    }
    call_was_answered_ = true;
    LogReader reader;
    for (;;) {
      Result<std::string> piece = co_await call_->read();
      if (piece && piece->empty()) piece = make_error(ErrorCode::kUnavailable, "the answer broke off");
      if (!piece) {
        const bool has_died = piece.error().code == ErrorCode::kUnavailable;
        co_return co_await lose_stream(std::move(piece.error()), has_died);
      }
      course_.take_piece(steady_clock::now());
      context_->metrics.passed_bytes(course_.replica(), 0, piece->size());
      LogReader::Step step = reader.pass(*piece);
      course_.take_step(step, steady_clock::now());
      if (reader.num_held() > kMostHeld) {
        Error error{ErrorCode::kCorrupt, "the answer's log tells nothing", {}};  // g++ 12: not where it is awaited
        co_return co_await lose_stream(std::move(error), false);
      }
      if (course_.is_whole()) {
        if (step.is_whole) co_return co_await end_whole(std::move(fields));
      } else {
        if (!course_.head_is_passed()) client_.begin(status_, fields);
        course_.pass_head();
        if (guest_) take_usage(step.events);
        course_.pass(step.events, true);
        if (step.is_whole) {
          end_metrics(true);
          co_await client_.end(std::move(step.events));
          co_return true;
        }
        co_await client_.send(std::move(step.events));
      }
      if (step.is_given_up) {
        Error error{ErrorCode::kInternal, "the server gives the answer up", {}};
        co_return co_await lose_stream(std::move(error), step.has_failed);
      }
    }
  }

  awaitable<bool> end_whole(http::Headers fields) {
    Result<http::Response> response = openai::parse_whole(course_.whole_text());
    if (!response) response = course_.to_response(ApiError(502, response.error().message, "server_error"));
    fields.erase("Content-Type");
    fields.erase("Cache-Control");
    call_was_answered_ = response->status == 200;
    usage_ = response->headers.find(openai::kUsageField).value_or("");
    response->headers.erase(openai::kUsageField);
    for (const auto& [name, value] : response->headers) fields.set(name, value);
    response->headers = std::move(fields);
    status_ = response->status;
    course_.forget_request();
    end_metrics(true);
    co_await client_.respond(std::move(*response));
    co_return true;
  }

  // Another replica is to go on. True: none can, and the request is over.
  awaitable<bool> lose_stream(Error error, bool has_died) {
    if (is_given_up(error)) co_return true;
    if (course_.may_go_on()) {
      course_.lose_stream(error.message, has_died, steady_clock::now());
      co_return false;
    }
    if (course_.is_whole() || course_.may_go_elsewhere(true)) {
      if (has_died) course_.lose_connection(steady_clock::now());
      co_return co_await take_error(std::move(error));
    }
    if (course_.last_words().empty()) {
      co_await end_broken(true, error.message);
    } else {
      course_.break_off(error.message, steady_clock::now());
      co_await say_last_words();
    }
    co_return true;
  }

  // What the server that gave the answer up has said of it.
  awaitable<void> say_last_words() {
    end_metrics(false);
    if (course_.head_is_passed()) co_return co_await client_.send(course_.last_words());
    Result<http::Response> response = openai::parse_whole(course_.last_words());
    if (!response) response = course_.to_response(ApiError(502, response.error().message, "server_error"));
    call_was_answered_ = false;
    co_await client_.respond(std::move(*response));
  }

  awaitable<bool> pass_answer(http::ResponseHead head, std::optional<std::string> piece) {
    const auto length = head.headers.find("Content-Length");
    http::Headers fields = response_fields(head.headers, course_.id());
    call_was_answered_ = head.status == 200;
    usage_ = head.headers.find(openai::kUsageField).value_or("");
    if (course_.head_is_passed()) {
      // Another replica's, of whose stream nothing counts so far.
      const bool goes_on =
          head.status == 200 && fields.find("Content-Type").value_or("").starts_with("text/event-stream");
      if (goes_on) co_return co_await stream_answer(std::move(fields), std::move(piece));
      co_await answer(
          course_.to_response(ApiError(502, fmt::format("the replica answers with {}", head.status), "server_error")));
      co_return true;
    }
    status_ = last_status_ = head.status;
    context_->metrics.answer_began(course_.replica(), seconds());
    context_->metrics.passed_bytes(course_.replica(), client_.request.body.size(), 0);
    const bool is_whole = piece && (piece->empty() || (length && parse_number<size_t>(*length) == piece->size()));
    if (!is_whole || (client_.request.method == "HEAD" && length))
      co_return co_await stream_answer(std::move(fields), std::move(piece));
    course_.forget_request();
    context_->metrics.passed_bytes(course_.replica(), 0, piece->size());
    http::Response response{head.status, std::move(fields), std::move(*piece)};
    end_metrics(true);
    co_await client_.respond(std::move(response));
    co_return true;
  }

  awaitable<bool> stream_answer(http::Headers fields, std::optional<std::string> piece) {
    const bool is_events = fields.find("Content-Type").value_or("").starts_with("text/event-stream");
    if (!course_.head_is_passed()) client_.begin(status_, std::move(fields));
    course_.pass_head();
    if (!piece) co_await client_.send("");
    EventBoundary boundary;
    for (;;) {
      if (!piece) {
        Result<std::string> next = co_await call_->read();
        if (!next) {
          if (is_given_up(next.error())) co_return true;
          if (course_.may_go_elsewhere(is_events)) {
            if (next.error().code == ErrorCode::kUnavailable) course_.lose_connection(steady_clock::now());
            co_return co_await take_error(std::move(next.error()));
          }
          co_await end_broken(is_events, next.error().message);
          co_return true;
        }
        piece = std::move(*next);
      }
      if (piece->empty()) break;
      course_.take_piece(steady_clock::now());
      context_->metrics.passed_bytes(course_.replica(), 0, piece->size());
      std::string bytes = is_events ? boundary.pass(std::move(*piece)) : std::move(*piece);
      piece.reset();
      if (is_events && guest_) take_usage(bytes);
      course_.pass(bytes, is_events);
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
    course_.break_off(reason, steady_clock::now());
    if (try_span_) try_span_->fail(reason);
    end_metrics(false);
    const ApiError error(502, "the replica that was answering is gone; the answer is incomplete", "server_error");
    if (is_events) co_await client_.send(error.to_event(course_.error_form(), course_.id()));
  }

  void end_metrics(bool is_whole) {
    course_.give_place_back();
    const int status = std::exchange(status_, 0);
    context_->metrics.answer_ended(course_.replica(), status, seconds(), is_whole);
    log::debug("request {}: {} {} from {}, {:.1f} ms{}", course_.id(), quoted(course_.target()), status,
               context_->table.url(course_.replica()), seconds() * 1e3,
               client_.client_is_gone() ? ", client gone" : "");
  }

  // What the router itself says; in a stream whose head is out as its last event.
  awaitable<void> answer(http::Response response) {
    last_status_ = response.status;
    if (!course_.head_is_passed()) co_return co_await client_.respond(std::move(response));
    end_metrics(false);
    co_await client_.send(
        http::format_sse(response.body, course_.error_form() == openai::ErrorForm::kAnthropic ? "error" : ""));
  }

  awaitable<void> refuse(ApiError error) {
    context_->metrics.refused(error.status);
    log::debug("request {}: {} is refused with {}: {}", course_.id(), quoted(course_.target()), error.status,
               error.message);
    co_await answer(course_.to_response(error));
  }

  void wait_for_silent_replica() {
    if (course_.hear_silence()) return call_->close();
    begin_grace(false);
  }
  void hear_start(const std::string& mark, bool was_older) {
    const auto means = course_.hear_start(mark, was_older);
    if (means == RequestCourse::StartMeans::kEnd) return call_->close();
    if (means == RequestCourse::StartMeans::kGrace) begin_grace(true);
  }

  void begin_grace(bool second_alone) {
    asio::co_spawn(
        strand_,
        [self = shared_from_this(), second_alone] {
          return self->give_grace(self->course_.num_pieces(), second_alone);
        },
        asio::detached);
  }
  awaitable<void> give_grace(uint64_t num_pieces, bool second_alone) {
    for (const bool is_second : {false, true}) {
      if (second_alone && !is_second) continue;
      if (!call_) co_return;  // nobody would cancel the timer
      const RouterOptions& options = context_->options;
      grace_timer_.expires_after(is_second ? options.revival_grace : options.stream_grace);
      const auto [error] = co_await grace_timer_.async_wait(http::kResult);
      if (error || !call_) co_return;
      if (course_.grace_is_over(num_pieces, is_second)) co_return call_->close();
    }
  }

  // A replica's last event, which is not the client's.
  void take_usage(std::string& events) {
    const size_t begin = events.rfind(openai::kUsageComment);
    if (begin == events.npos || !(begin == 0 || events[begin - 1] == '\n') || !events.ends_with("\n\n")) return;
    usage_ = events.substr(begin + openai::kUsageComment.size());
    events.resize(begin);
  }
  // By the replica's word, or by what can be seen: the prompt's length, and a token for each piece.
  void charge() {
    const size_t space = std::min(usage_.find(' '), usage_.size());
    if (!usage_.empty())
      guest_->charge(leading_number<int64_t>(usage_),
                     leading_number<int64_t>(std::string_view(usage_).substr(std::min(space + 1, usage_.size()))));
    else if (call_was_answered_)
      guest_->charge(static_cast<int64_t>(course_.num_prompt_tokens()), static_cast<int64_t>(course_.num_pieces()));
  }

  double seconds() const { return course_.seconds(steady_clock::now()); }

  const std::shared_ptr<ProxyContext> context_;
  http::ServerCall& client_;  // until end()
  RequestCourse course_;
  const asio::any_io_executor strand_;
  asio::steady_timer grace_timer_;
  std::optional<http::ClientCall> call_;                       // to the replica
  int status_ = 0;                                             // of the answer that is passed on
  int last_status_ = 0, num_tries_ = 0;                        // of the last answer that came; replicas that were asked
  std::optional<telemetry::Span> span_, try_span_;             // of the request, and of the replica's part in it
  std::optional<Error> body_error_;                            // of the client
  const std::shared_ptr<const openai::ApiKeys::Guest> guest_;  // null: nobody counts
  bool call_was_answered_ = false;
  std::string usage_;  // "12 34", as the replica told it; empty: not yet
};

}  // namespace

ProxyContext::ProxyContext(const http::IoThreads& threads, const RouterOptions& options, RouterParts parts)
    : RouterState(options),
      threads(threads),
      urls(std::move(parts.urls)),
      keys(std::move(parts.keys)),
      tls(std::move(parts.tls)),
      client(threads, {.connect_timeout = options.connect_timeout,
                       .idle_timeout = options.answer_timeout,
                       .max_header_bytes = 64 << 10,
                       .max_idle_connections = 256,
                       .tls = tls}) {}

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
