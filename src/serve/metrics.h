#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "core/generation.h"

namespace cachalot {

// When a request came and when it last gave a token; kept by the replica beside the request.
struct RequestTimer {
  std::chrono::steady_clock::time_point arrival, last_token;
  int num_prompt_tokens = 0, num_generated_tokens = 0;
  int max_tokens = 0;
};

// What an operator watches, in Prometheus' text format, under vLLM's names and buckets where vLLM has the metric.
// Thread-safe.
class Metrics {
 public:
  // `model_name` is the label of every metric.
  explicit Metrics(const std::string& model_name);
  ~Metrics();

  RequestTimer start_request(const Request& request) const;
  void observe(RequestTimer& timer, const RequestOutput& output);
  // One round of the engine: how long, and how many token rows it had.
  void observe_round(double seconds, int num_tokens);
  // The text, with the replica's counters as they are now.
  std::string render(const ReplicaStats& stats, bool healthy);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace cachalot
