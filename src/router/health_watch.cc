#include "router/health_watch.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <boost/asio/experimental/awaitable_operators.hpp>

#include "base/log.h"

namespace cachalot::router {

namespace asio = boost::asio;
using http::awaitable;
using std::chrono::steady_clock;

namespace {

constexpr auto kRollCallInterval = std::chrono::seconds(10);
constexpr size_t kMaxAnswerBytes = 64 << 10;

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
        client_(context_->threads,
                {.max_body_bytes = kMaxAnswerBytes, .max_idle_connections = 1, .tls = context_->tls}),
        questions_(context_->table, replica, context_->options.model, context_->options.health_timeout) {}

  awaitable<void> ask() {
    auto next = HealthQuestions::Next::kAtOnce;
    while (next == HealthQuestions::Next::kAtOnce) {
      const Result<http::Response> answer = co_await fetch(questions_.ask(steady_clock::now()));
      next = questions_.hear(answer, steady_clock::now());
    }
    if (next != HealthQuestions::Next::kModels) co_return;
    const Result<http::Response> models = co_await fetch("/v1/models");
    questions_.hear_models(models);
  }

 private:
  // The whole answer within the deadline, from the connection to its last byte.
  awaitable<Result<http::Response>> fetch(std::string target) {
    using asio::experimental::awaitable_operators::operator||;
    http::ClientRequest request{.url = context_->urls[replica_]};
    request.url.target = std::move(target);
    const RouterOptions& options = context_->options;
    const std::string key = options.server_api_key.empty() ? context_->keys->any_key() : options.server_api_key;
    if (!key.empty()) request.headers.add("Authorization", "Bearer " + key);
    auto first = co_await (client_.ask(std::move(request)) || pause_patiently(options.health_timeout));
    if (first.index() == 0) co_return std::move(std::get<0>(first));
    co_return make_error(ErrorCode::kDeadlineExceeded, "no answer in time");
  }

  const std::shared_ptr<ProxyContext> context_;
  const size_t replica_;
  const http::Client client_;
  HealthQuestions questions_;
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
