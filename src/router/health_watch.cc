#include "router/health_watch.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/json/parse.hpp>

#include "base/log.h"
#include "http/await.h"

namespace cachalot::router {

namespace asio = boost::asio;
using std::chrono::steady_clock;

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

}  // namespace

// One replica's. On its strand.
class HealthWatch::Watch : public std::enable_shared_from_this<Watch> {
 public:
  Watch(std::shared_ptr<ProxyContext> context, size_t replica)
      : context_(std::move(context)),
        replica_(replica),
        strand_(asio::make_strand(context_->threads.context())),
        client_(context_->threads, {.max_idle_connections = 1}),  // fetch() has its own deadline
        pause_(strand_),
        deadline_(strand_) {}

  void start() {
    asio::co_spawn(strand_, [self = shared_from_this()] { return self->run(); }, asio::detached);
  }

  void stop() {
    asio::post(strand_, [self = shared_from_this()] {
      self->is_stopped_ = true;
      self->pause_.cancel();
      self->deadline_.cancel();
      if (self->call_) self->call_->cancel();
    });
  }

 private:
  asio::awaitable<void> run();
  asio::awaitable<void> ask();
  asio::awaitable<void> check_model();
  asio::awaitable<Result<http::Response>> fetch(std::string target);

  const std::shared_ptr<ProxyContext> context_;
  const size_t replica_;
  const asio::strand<asio::io_context::executor_type> strand_;
  const http::Client client_;
  asio::steady_timer pause_, deadline_;
  std::shared_ptr<http::ClientCall> call_;
  std::string question_ = "/load";
  uint64_t num_fetches_ = 0;
  bool is_late_ = false, is_stopped_ = false, knows_model_ = false;
};

asio::awaitable<void> HealthWatch::Watch::run() {
  while (!is_stopped_) {
    co_await ask();
    if (is_stopped_) break;
    pause_.expires_after(context_->options.health_interval);
    co_await pause_.async_wait(asio::as_tuple(asio::use_awaitable));
  }
}

asio::awaitable<void> HealthWatch::Watch::ask() {
  ReplicaTable& table = context_->table;
  table.question_asked(replica_);
  const Result<http::Response> answer = co_await fetch(question_);
  if (is_stopped_) co_return;
  if (!answer) {
    knows_model_ = false;  // it may come back as another one
    if (answer.error().code == ErrorCode::kUnavailable)
      table.was_refused(replica_, answer.error().message);
    else
      table.heard_nothing(
          replica_, fmt::format("no answer to {} within {} ms", question_, context_->options.health_timeout.count()));
  } else if (answer->status == 404 && question_ == "/load") {
    question_ = "/health";  // some other server; asked at once
    co_await ask();
  } else if (answer->status != 200) {
    table.heard_ill(replica_, fmt::format("{} answers {}", question_, answer->status));
  } else {
    const auto report = parse_load_report(answer->body);
    table.heard_well(replica_, report ? std::optional(*report) : std::nullopt, steady_clock::now());
    if (!knows_model_ && !context_->options.model.empty()) co_await check_model();
  }
}

// Requests that name a model get the replica's own word on it; but whoever runs the router should know.
asio::awaitable<void> HealthWatch::Watch::check_model() {
  const Result<http::Response> answer = co_await fetch("/v1/models");
  if (!answer || is_stopped_) co_return;
  knows_model_ = true;
  if (answer->status != 200) co_return;
  const std::vector<std::string> names = model_names(answer->body);
  if (!names.empty() && std::ranges::find(names, context_->options.model) == names.end())
    log::warn("{} serves {}, not --model {}: requests that name the latter will get a 404",
              context_->table.url(replica_), names.front(), context_->options.model);
}

// The whole answer within the deadline, from the connection to its last byte.
asio::awaitable<Result<http::Response>> HealthWatch::Watch::fetch(std::string target) {
  http::ClientRequest request{.url = context_->urls[replica_]};
  request.url.target = std::move(target);
  const RouterOptions& options = context_->options;
  const std::string& key =
      options.server_api_key.empty() && !options.api_keys.empty() ? options.api_keys.front() : options.server_api_key;
  if (!key.empty()) request.headers.add("Authorization", "Bearer " + key);
  is_late_ = false;
  deadline_.expires_after(options.health_timeout);
  deadline_.async_wait([weak = weak_from_this(), fetch = ++num_fetches_](const boost::system::error_code& error) {
    const auto self = weak.lock();
    if (error || !self || !self->call_ || self->num_fetches_ != fetch) return;
    self->is_late_ = true;
    self->call_->cancel();
  });
  const auto late_or = [this](Error error) {
    if (is_late_) error.code = ErrorCode::kDeadlineExceeded;
    return std::unexpected(std::move(error));
  };
  auto start = [&](std::function<void(Result<http::ResponseHead>)> on_head) {
    call_ = client_.start(std::move(request), std::move(on_head));
  };
  Result<http::ResponseHead> head = co_await http::await_callback<Result<http::ResponseHead>>(std::move(start));
  http::Response response;
  Result<std::string> piece;
  if (head) response.status = head->status;
  while (head && response.body.size() < kMaxAnswerBytes) {
    auto read = [this](std::function<void(Result<std::string>)> on_piece) { call_->read(std::move(on_piece)); };
    piece = co_await http::await_callback<Result<std::string>>(std::move(read));
    if (!piece || piece->empty()) break;
    response.body += *piece;
  }
  deadline_.cancel();
  call_.reset();
  if (!head) co_return late_or(std::move(head.error()));
  if (!piece) co_return late_or(std::move(piece.error()));
  co_return response;
}

// Says now and then which replicas have not come yet, until all have.
class HealthWatch::RollCall : public std::enable_shared_from_this<RollCall> {
 public:
  explicit RollCall(std::shared_ptr<ProxyContext> context)
      : context_(std::move(context)), strand_(asio::make_strand(context_->threads.context())), timer_(strand_) {}

  void wait() {
    timer_.expires_after(kRollCallInterval);
    timer_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
      if (!error && !self->is_stopped_ && self->call()) self->wait();
    });
  }
  void stop() {
    asio::post(strand_, [self = shared_from_this()] {
      self->is_stopped_ = true;
      self->timer_.cancel();
    });
  }

 private:
  // Whether any is missing.
  bool call() const {
    std::vector<std::string> missing;
    for (const ReplicaStatus& replica : context_->table.status(steady_clock::now()))
      if (replica.health.state() == ReplicaHealth::State::kStarting)
        missing.push_back(fmt::format("{} ({})", replica.url, replica.health.reason()));
    if (!missing.empty())
      log::info("waiting for {} of {} replicas: {}", missing.size(), context_->urls.size(), fmt::join(missing, ", "));
    return !missing.empty();
  }

  const std::shared_ptr<ProxyContext> context_;
  const asio::strand<asio::io_context::executor_type> strand_;
  asio::steady_timer timer_;
  bool is_stopped_ = false;
};

HealthWatch::HealthWatch(const std::shared_ptr<ProxyContext>& context)
    : roll_call_(std::make_shared<RollCall>(context)) {
  roll_call_->wait();
  for (size_t replica = 0; replica < context->urls.size(); replica++) {
    watches_.push_back(std::make_shared<Watch>(context, replica));
    watches_.back()->start();
  }
}

HealthWatch::~HealthWatch() {
  for (const auto& watch : watches_) watch->stop();
  roll_call_->stop();
}

}  // namespace cachalot::router
