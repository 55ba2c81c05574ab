#include "serve/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <array>
#include <map>
#include <mutex>

namespace cachalot {
namespace {

using prometheus::Counter;
using prometheus::Gauge;
using prometheus::Histogram;
using Buckets = Histogram::BucketBoundaries;

// vLLM's buckets, so that its dashboards work as they are.
const Buckets kFirstToken{0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
                          1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
const Buckets kPerToken{0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80};
const Buckets kRequest{0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
const Buckets kTokens{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};
const Buckets kRoundTokens{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192};
const Buckets kRoundSeconds{0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30};

double seconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

struct Metrics::Impl {
  explicit Impl(const std::string& model_name) : labels{{"model_name", model_name}} {}

  Gauge& gauge(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add(labels);
  }
  Counter& counter(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(labels);
  }
  Histogram& histogram(const char* name, const char* help, const Buckets& buckets) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(labels, buckets);
  }
  Counter& finished(const char* reason) {
    auto& family = prometheus::BuildCounter()
                       .Name("vllm:request_success_total")
                       .Help("Finished requests, by reason")
                       .Register(registry);
    auto with_reason = labels;
    with_reason["finished_reason"] = reason;
    return family.Add(with_reason);
  }

  prometheus::Registry registry;
  std::map<std::string, std::string> labels;
  std::mutex render_mutex;

  Gauge& running = gauge("vllm:num_requests_running", "Requests in the running batch");
  Gauge& waiting = gauge("vllm:num_requests_waiting", "Requests that wait for room");
  Gauge& kv_usage = gauge("vllm:kv_cache_usage_perc", "Used KV blocks; 1 is all of them");
  Gauge& gpu_usage = gauge("vllm:gpu_cache_usage_perc", "The same under vLLM's older name");
  Gauge& healthy = gauge("cachalot:healthy", "1 while the engine steps and takes requests");
  Counter& preemptions =
      counter("vllm:num_preemptions_total", "Requests that gave their blocks back and were computed again");
  Counter& prefix_queries = counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache");
  Counter& prefix_hits = counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache");
  Counter& prompt_tokens = counter("vllm:prompt_tokens_total", "Prompt tokens of the requests so far");
  Counter& generation_tokens = counter("vllm:generation_tokens_total", "Generated tokens so far");
  Counter& rounds = counter("cachalot:rounds_total", "Scheduling decisions");
  Histogram& first_token =
      histogram("vllm:time_to_first_token_seconds", "From arrival to the first token", kFirstToken);
  Histogram& per_token = histogram("vllm:time_per_output_token_seconds", "Between a request's tokens", kPerToken);
  Histogram& request_latency =
      histogram("vllm:e2e_request_latency_seconds", "From arrival to the last token", kRequest);
  Histogram& request_prompt = histogram("vllm:request_prompt_tokens", "Prompt tokens of a request", kTokens);
  Histogram& request_generation = histogram("vllm:request_generation_tokens", "Generated tokens of a request", kTokens);
  Histogram& request_max_tokens = histogram("vllm:request_params_max_tokens", "max_tokens of a request", kTokens);
  Histogram& round_tokens =
      histogram("vllm:iteration_tokens_total", "Token rows of a round's first step", kRoundTokens);
  Histogram& round_seconds = histogram("cachalot:round_seconds", "Time of a round", kRoundSeconds);
  // In the order of FinishReason, from kStop.
  std::array<Counter*, 4> finishes{&finished("stop"), &finished("length"), &finished("abort"), &finished("error")};
};

Metrics::Metrics(const std::string& model_name) : impl_(std::make_unique<Impl>(model_name)) {}
Metrics::~Metrics() = default;

RequestTimer Metrics::start_request(const Request& request) const {
  const auto now = std::chrono::steady_clock::now();
  return {.arrival = now,
          .last_token = now,
          .num_prompt_tokens = request.num_prompt_tokens,
          .max_tokens = request.sampling.max_tokens};
}

void Metrics::observe(RequestTimer& timer, const RequestOutput& output) {
  const auto now = std::chrono::steady_clock::now();
  const auto num_new = static_cast<int>(output.tokens.size());
  if (num_new > 0) {
    if (timer.num_generated_tokens == 0) {
      impl_->first_token.Observe(seconds(now - timer.arrival));
    } else {
      // A round of several steps gives its tokens together.
      for (int token = 0; token < num_new; token++) impl_->per_token.Observe(seconds(now - timer.last_token) / num_new);
    }
    timer.num_generated_tokens += num_new;
    timer.last_token = now;
  }
  if (output.finish == FinishReason::kNone) return;
  impl_->request_latency.Observe(seconds(now - timer.arrival));
  impl_->request_prompt.Observe(timer.num_prompt_tokens);
  impl_->request_generation.Observe(timer.num_generated_tokens);
  impl_->request_max_tokens.Observe(timer.max_tokens);
  impl_->finishes[static_cast<size_t>(output.finish) - 1]->Increment();
}

void Metrics::observe_round(double round_seconds, int num_tokens) {
  impl_->round_seconds.Observe(round_seconds);
  impl_->round_tokens.Observe(num_tokens);
}

std::string Metrics::render(const ReplicaStats& stats, bool healthy) {
  const std::lock_guard lock(impl_->render_mutex);
  impl_->running.Set(stats.num_running);
  impl_->waiting.Set(stats.num_waiting);
  impl_->kv_usage.Set(stats.kv_usage);
  impl_->gpu_usage.Set(stats.kv_usage);
  impl_->healthy.Set(healthy ? 1 : 0);
  const auto raise_to = [](Counter& counter, uint64_t value) {
    counter.Increment(static_cast<double>(value) - counter.Value());
  };
  raise_to(impl_->preemptions, stats.num_preemptions);
  raise_to(impl_->prefix_queries, stats.prefix_queried_tokens);
  raise_to(impl_->prefix_hits, stats.prefix_hit_tokens);
  raise_to(impl_->prompt_tokens, stats.prompt_tokens);
  raise_to(impl_->generation_tokens, stats.generation_tokens);
  raise_to(impl_->rounds, stats.num_rounds);
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

}  // namespace cachalot
