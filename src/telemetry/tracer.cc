#include "telemetry/tracer.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <optional>

#include "base/log.h"
#include "base/text.h"
#include "config/version.h"

namespace cachalot::telemetry {

namespace {

constexpr std::chrono::seconds kPause{1}, kLongestPause{30};  // between batches; while the receiver is away
constexpr std::chrono::seconds kPatience{2};
constexpr std::string_view kPath = "/v1/traces";

std::string host_name() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "";
}

}  // namespace

Result<std::unique_ptr<Tracer>> Tracer::create(const TraceOptions& options, std::string service,
                                               std::vector<std::pair<std::string, Span::Value>> resource) {
  if (options.endpoint.empty()) return nullptr;
  auto url = http::parse_url(options.endpoint);
  if (!url)
    return make_parameter_error("otlp-traces-endpoint",
                                "--otlp-traces-endpoint {}: spans go to an OTLP receiver over HTTP: http://HOST:4318{} "
                                "or https://; for another one, let a collector on this machine pass them on",
                                quoted(options.endpoint), kPath);
  if (url->target == "/") url->target = kPath;
  resource.insert(resource.begin(), {{"service.name", options.service_name.empty() ? service : options.service_name},
                                     {"service.version", std::string(kVersion)},
                                     {"host.name", host_name()},
                                     {"process.pid", int64_t{getpid()}}});
  return std::unique_ptr<Tracer>(new Tracer(std::move(*url), options, std::move(resource)));
}

Tracer::Tracer(http::Url url, const TraceOptions& options, std::vector<std::pair<std::string, Span::Value>> resource)
    : url_(std::move(url)),
      headers_([&] {
        http::Headers headers{{"Content-Type", "application/json"}};
        for (const auto& [name, value] : options.headers) headers.set(name, value);
        return headers;
      }()),
      resource_(std::move(resource)),
      io_thread_(1),
      client_(io_thread_, {.connect_timeout = kPatience, .idle_timeout = kPatience, .max_idle_connections = 1}),
      thread_([this](const std::stop_token& stopped) { run(stopped); }) {}

Tracer::~Tracer() {
  thread_.request_stop();
  thread_.join();
}

void Tracer::add(Span span) {
  if (span.end == Span::Time{}) span.end = std::chrono::steady_clock::now();
  const std::lock_guard lock(mutex_);
  if (held_.size() >= kMostHeld) {
    num_dropped_++;
    return;
  }
  held_.push_back(std::move(span));
  if (held_.size() == kBatch) changed_.notify_all();
}

std::string Tracer::render_metrics() const {
  const std::lock_guard lock(mutex_);
  return fmt::format(
      "# HELP cachalot:trace_spans_total Spans, by what became of them: sent, dropped for want of room, refused by the "
      "receiver\n"
      "# TYPE cachalot:trace_spans_total counter\n"
      "cachalot:trace_spans_total{{state=\"sent\"}} {}\ncachalot:trace_spans_total{{state=\"dropped\"}} {}\n"
      "cachalot:trace_spans_total{{state=\"refused\"}} {}\n",
      num_sent_, num_dropped_, num_refused_);
}

// A batch stays at the front until the receiver has answered.
void Tracer::run(const std::stop_token& stopped) {
  auto pause = std::chrono::steady_clock::duration(kPause);
  std::optional<std::chrono::steady_clock::time_point> end;
  for (;;) {
    std::vector<Span> batch;
    {
      std::unique_lock lock(mutex_);
      const bool is_waiting = pause == kPause;
      changed_.wait_for(lock, stopped, pause, [&] { return is_waiting && held_.size() >= kBatch; });
      if (stopped.stop_requested() && !end) end = std::chrono::steady_clock::now() + kPatience;
      if (end && (held_.empty() || std::chrono::steady_clock::now() >= *end)) return;
      const auto last = held_.begin() + static_cast<ptrdiff_t>(std::min(held_.size(), kBatch));
      batch.assign(held_.begin(), last);
    }
    if (batch.empty()) continue;
    const Answer answer = send(batch);
    const std::lock_guard lock(mutex_);
    if (answer == Answer::kAway && stopped.stop_requested()) return;
    pause = answer == Answer::kAway ? std::min<std::chrono::steady_clock::duration>(2 * pause, kLongestPause) : kPause;
    if (answer == Answer::kAway) continue;
    (answer == Answer::kTaken ? num_sent_ : num_refused_) += batch.size();
    held_.erase(held_.begin(), held_.begin() + static_cast<ptrdiff_t>(batch.size()));
  }
}

Tracer::Answer Tracer::send(const std::vector<Span>& batch) {
  const Result<http::Response> answer =
      client_.fetch({.method = "POST", .url = url_, .headers = headers_, .body = to_otlp(batch, resource_)});
  if (answer && answer->status / 100 == 2) return Answer::kTaken;
  const std::string why = answer ? fmt::format("it answers with {}", answer->status) : answer.error().message;
  if (const auto line =
          complaints_.add(std::chrono::steady_clock::now(),
                          fmt::format("the OTLP receiver at {} takes no spans: {}", url_.authority(), why)))
    log::warn("{}", *line);
  const bool may_try_again = !answer || answer->status == 429 || answer->status >= 502;
  return may_try_again ? Answer::kAway : Answer::kRefused;
}

}  // namespace cachalot::telemetry
