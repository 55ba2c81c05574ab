#include "router/replica_health.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/json/parse.hpp>

#include "base/log.h"
#include "base/text.h"
#include "router/proxy.h"

namespace cachalot::router {

namespace asio = boost::asio;
using http::awaitable;
using std::chrono::steady_clock;

namespace {

constexpr double kFirstShare = 0.1;  // of a replica that has just come back
constexpr int kMostDoublings = 10;
constexpr int kQuarters = 4;

}  // namespace

void ReplicaHealth::heard_well(Time now) {
  num_refused_ = 0;
  is_silent_ = false;
  if (state_ == State::kUp) return;
  if (ejected_until_ && now < *ejected_until_) return;
  // The first good answer of all tells enough; one that fell has to prove itself.
  if (state_ == State::kDown && ++num_good_ < policy_.rise) return;
  if (state_ == State::kDown) back_since_ = now;
  state_ = State::kUp;
  reason_.clear();
  ejected_until_.reset();
  num_errors_ = 0;
}

void ReplicaHealth::was_refused(const std::string& reason) {
  if (state_ != State::kUp || ++num_refused_ >= policy_.fall) go_down(reason, false);
}

void ReplicaHealth::request_failed(Time now, const std::string& reason, bool has_words) {
  num_errors_ += has_words ? 1 : kQuarters;
  if (state_ != State::kUp || num_errors_ < policy_.eject_after_errors * kQuarters) return;
  const auto time = policy_.eject_time * (1 << std::min(num_ejections_++, kMostDoublings));
  ejected_until_ = now + std::min<std::chrono::milliseconds>(time, policy_.longest_eject_time);
  go_down(reason, false);
}

void ReplicaHealth::go_down(const std::string& reason, bool is_silent) {
  num_good_ = num_refused_ = 0;
  is_silent_ = is_silent;
  reason_ = reason;
  if (state_ != State::kUp) return;  // one that never was up is still starting
  state_ = State::kDown;
  num_falls_++;
}

double ReplicaHealth::ramp(Time now) const {
  if (!back_since_ || policy_.slow_start.count() == 0) return 1;
  const std::chrono::duration<double> back = now - *back_since_;
  const double share = back / std::chrono::duration<double>(policy_.slow_start);
  return std::clamp(share, kFirstShare, 1.0);
}

namespace {

constexpr auto kRollCallInterval = std::chrono::seconds(10);
constexpr size_t kMaxAnswerBytes = 64 << 10;

// The names in the answer of /v1/models.
std::vector<std::string> model_names(const std::string& body) {
  std::vector<std::string> names;
  boost::json::error_code error;
  const boost::json::value json = boost::json::parse(body, error);
  const auto* object = error ? nullptr : json.if_object();
  const auto* data = object ? object->if_contains("data") : nullptr;
  if (!data || !data->is_array()) return names;
  for (const boost::json::value& model : data->get_array())
    if (const auto* of = model.if_object())
      if (const auto* id = of->if_contains("id"); id && id->is_string()) names.emplace_back(id->get_string());
  return names;
}

awaitable<void> pause(std::chrono::nanoseconds duration) {
  asio::steady_timer timer(co_await asio::this_coro::executor, duration);
  co_await timer.async_wait(asio::use_awaitable);
}

// In parts: of the time for which this process is held up itself, with its machine, say, no more than one part counts,
// since it could not have heard an answer.
awaitable<void> pause_patiently(std::chrono::milliseconds duration) {
  constexpr int kParts = 10;
  for (int part = 0; part < kParts; part++) co_await pause(std::chrono::nanoseconds(duration) / kParts);
}

// One replica's.
class Watch {
 public:
  Watch(std::shared_ptr<ProxyContext> context, size_t replica)
      : context_(std::move(context)),
        replica_(replica),
        client_(context_->threads, {.max_body_bytes = kMaxAnswerBytes, .max_idle_connections = 1}) {}

  awaitable<void> ask() {
    ReplicaTable& table = context_->table;
    table.question_asked(replica_);
    const auto asked = steady_clock::now();
    const Result<http::Response> answer = co_await fetch(question_);
    if (!answer) {
      knows_model_ = false;  // it may come back as another one
      if (answer.error().code == ErrorCode::kUnavailable)
        table.was_refused(replica_, answer.error().message, asked);
      else
        table.heard_nothing(
            replica_, fmt::format("no answer to {} within {} ms", question_, context_->options.health_timeout.count()),
            asked);
    } else if (answer->status == 404 && question_ == "/load") {
      question_ = "/health";  // some other server; asked at once
      co_await ask();
    } else if (answer->status != 200) {
      table.heard_ill(replica_, fmt::format("{} answers {}", question_, answer->status));
    } else {
      const auto report = parse_load_report(answer->body);
      const bool is_odd = !report && question_ == "/load";
      if (is_odd && !std::exchange(was_odd_, is_odd))
        log::warn("{}: {}; it gets requests by what the router itself has sent there", table.url(replica_),
                  report.error().message);
      table.heard_well(replica_, report ? std::optional(*report) : std::nullopt, steady_clock::now());
      if (!knows_model_ && !context_->options.model.empty()) co_await check_model();
    }
  }

 private:
  // Requests that name a model get the replica's own word on it; but whoever runs the router should know.
  awaitable<void> check_model() {
    const Result<http::Response> answer = co_await fetch("/v1/models");
    if (!answer) co_return;
    knows_model_ = true;
    if (answer->status != 200) co_return;
    const std::vector<std::string> names = model_names(answer->body);
    if (!names.empty() && std::ranges::find(names, context_->options.model) == names.end())
      log::warn("{} serves {}, not --model {}: requests that name the latter will get a 404",
                context_->table.url(replica_), quoted(names.front()), context_->options.model);
  }

  // The whole answer within the deadline, from the connection to its last byte.
  awaitable<Result<http::Response>> fetch(std::string target) {
    using asio::experimental::awaitable_operators::operator||;
    http::ClientRequest request{.url = context_->urls[replica_]};
    request.url.target = std::move(target);
    const RouterOptions& options = context_->options;
    const std::string& key =
        options.server_api_key.empty() && !options.api_keys.empty() ? options.api_keys.front() : options.server_api_key;
    if (!key.empty()) request.headers.add("Authorization", "Bearer " + key);
    auto first = co_await (client_.ask(std::move(request)) || pause_patiently(options.health_timeout));
    if (first.index() == 0) co_return std::move(std::get<0>(first));
    co_return make_error(ErrorCode::kDeadlineExceeded, "no answer in time");
  }

  const std::shared_ptr<ProxyContext> context_;
  const size_t replica_;
  const http::Client client_;
  std::string question_ = "/load";
  bool knows_model_ = false, was_odd_ = false;
};

// Whatever goes wrong on the way (out of memory, say), the watch goes on.
awaitable<Status> watch(std::shared_ptr<ProxyContext> context, size_t replica) {
  Watch questions(context, replica);
  for (;;) {
    try {
      co_await questions.ask();
    } catch (const boost::system::system_error& error) {
      if (error.code() == asio::error::operation_aborted) throw;  // it is to end
      log::error("asking {} for its health failed: {}", context->table.url(replica), error.what());
    } catch (const std::exception& exception) {
      log::error("asking {} for its health failed: {}", context->table.url(replica), exception.what());
    }
    co_await pause(context->options.health_interval);
  }
}

// Says now and then which replicas have not come yet, until all have.
awaitable<Status> call_the_roll(std::shared_ptr<ProxyContext> context) {
  for (;;) {
    co_await pause(kRollCallInterval);
    std::vector<std::string> missing;
    for (const ReplicaStatus& replica : context->table.status(steady_clock::now()))
      if (replica.health.state() == ReplicaHealth::State::kStarting)
        missing.push_back(fmt::format("{} ({})", replica.url, replica.health.reason()));
    if (missing.empty()) co_return Status{};
    log::info("waiting for {} of {} replicas: {}", missing.size(), context->urls.size(), fmt::join(missing, ", "));
  }
}

}  // namespace

HealthWatch::HealthWatch(const std::shared_ptr<ProxyContext>& context) {
  running_.push_back(context->threads.start(call_the_roll(context)));
  for (size_t replica = 0; replica < context->urls.size(); replica++)
    running_.push_back(context->threads.start(watch(context, replica)));
}

HealthWatch::~HealthWatch() {
  for (const auto& coroutine : running_) coroutine.cancel();
}

}  // namespace cachalot::router
