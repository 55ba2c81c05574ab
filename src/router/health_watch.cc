#include "router/health_watch.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/json/parse.hpp>

#include "base/log.h"
#include "base/text.h"

namespace cachalot::router {

namespace asio = boost::asio;
using http::awaitable;
using std::chrono::steady_clock;

namespace {

constexpr auto kRollCallInterval = std::chrono::seconds(10);
constexpr size_t kMaxAnswerBytes = 64 << 10;
constexpr int kTimeoutParts = 10;

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
  for (int part = 0; part < kTimeoutParts; part++) co_await pause(std::chrono::nanoseconds(duration) / kTimeoutParts);
}

// One replica's.
class Watch {
 public:
  Watch(std::shared_ptr<ProxyContext> context, size_t replica)
      : context_(std::move(context)),
        replica_(replica),
        client_(context_->threads, {.max_body_bytes = kMaxAnswerBytes, .max_idle_connections = 1}) {}

  awaitable<void> ask();

 private:
  awaitable<void> check_model();
  awaitable<Result<http::Response>> fetch(std::string target);

  const std::shared_ptr<ProxyContext> context_;
  const size_t replica_;
  const http::Client client_;
  std::string question_ = "/load";
  bool knows_model_ = false, was_odd_ = false;
};

awaitable<void> Watch::ask() {
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

// Requests that name a model get the replica's own word on it; but whoever runs the router should know.
awaitable<void> Watch::check_model() {
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
awaitable<Result<http::Response>> Watch::fetch(std::string target) {
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
