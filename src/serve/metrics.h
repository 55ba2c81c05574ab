#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/generation.h"

namespace cachalot {

// What became of a request so far; kept by the replica beside it.
struct RequestTimer {
  using Time = std::chrono::steady_clock::time_point;
  Time arrival;
  RequestTimes times;
  RequestId parent = 0;
  int num_choices = 1, num_prompt_tokens = 0, num_cached_tokens = 0, num_generated_tokens = 0, max_tokens = 0;
};

// Latencies by size; the last count is of those beyond all bounds.
struct LatencyCounts {
  std::vector<double> bounds;
  std::vector<uint64_t> counts;
};

// Of all requests so far: whoever asks again and again sees rates.
struct ServerCounts {
  uint64_t prompt_tokens = 0, generation_tokens = 0, prefix_queried_tokens = 0, prefix_hit_tokens = 0;
  LatencyCounts first_token_seconds, between_tokens_seconds;
};

struct MetricsOptions {
  std::string model_name;
  int engine = 0;  // the replica's number
  int max_model_len = 131072;
  std::map<std::string, std::string> cache_config;  // what vllm:cache_config_info says
};

// What an operator watches, in Prometheus' text format, under vLLM's names and buckets where vLLM has the metric.
// Thread-safe.
class Metrics {
 public:
  // Model's name and engine are the labels of every metric.
  explicit Metrics(const MetricsOptions& options);
  ~Metrics();

  RequestTimer start_request(const Request& request, RequestTimer::Time now) const;
  // It is part of a round that begins now.
  static void note_admission(RequestTimer& timer, RequestTimer::Time now);
  void observe(RequestTimer& timer, const RequestOutput& output, RequestTimer::Time now);
  // What was observed so far, as /state tells it.
  ServerCounts counts(const ReplicaStats& stats) const;
  // A request that may not wait (check_queue), by the limit's name.
  void observe_rejection(const std::string& limit);
  // A request to the API, by its route ("/v1/chat/completions"; empty: there is none).
  void observe_http(const std::string& method, std::string_view route, int status, double seconds);
  // One round of the engine: how long, and how many token rows it had.
  void observe_round(double seconds, int num_tokens);
  // The text, with the replica's counters as they are now.
  std::string render(const ReplicaStats& stats, bool healthy);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// What every process's exporter tells of it: processor time, memory, descriptors, its start.
std::string render_process_metrics();

// Rates of the last interval for the log; nothing where nothing has happened in it and the one before.
class StatsLine {
 public:
  using Time = std::chrono::steady_clock::time_point;

  StatsLine(Time now, const ReplicaStats& stats) : time_(now), stats_(stats) {}
  std::optional<std::string> next(Time now, const ReplicaStats& stats);

 private:
  Time time_;
  ReplicaStats stats_;
  bool was_busy_ = false;
};

}  // namespace cachalot
