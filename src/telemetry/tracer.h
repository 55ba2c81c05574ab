#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "base/progress.h"
#include "config/options.h"
#include "http/client.h"
#include "telemetry/trace.h"

namespace cachalot::telemetry {

// Sends spans to an OTLP receiver, in batches, by a thread of its own. Nobody waits for it: what it cannot hold is
// dropped and counted. A receiver that is away is asked again, less and less often, while what comes meanwhile is held.
// Thread-safe.
class Tracer {
 public:
  static constexpr size_t kMostHeld = 4096, kBatch = 512;  // spans, of about a KiB

  // Null where there is no endpoint. `resource`: attributes of the process beside those that are always told.
  static Result<std::unique_ptr<Tracer>> create(const TraceOptions& options, std::string service,
                                                std::vector<std::pair<std::string, Span::Value>> resource = {});
  // Sends what is left, for a few seconds at most.
  ~Tracer();

  // Ends it now, unless it has ended.
  void add(Span span);
  // For /metrics: spans by what became of them.
  std::string render_metrics() const;

 private:
  enum class Answer { kTaken, kRefused, kAway };

  Tracer(http::Url url, const TraceOptions& options, std::vector<std::pair<std::string, Span::Value>> resource);
  void run(const std::stop_token& stopped);
  Answer send(const std::vector<Span>& batch);

  const http::Url url_;
  const http::Headers headers_;
  const std::vector<std::pair<std::string, Span::Value>> resource_;
  const http::IoThreads io_thread_;
  const http::Client client_;
  Complaints complaints_;  // the thread's own

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable_any changed_;
  std::deque<Span> held_;
  uint64_t num_sent_ = 0, num_dropped_ = 0, num_refused_ = 0;
  std::jthread thread_;
};

}  // namespace cachalot::telemetry
