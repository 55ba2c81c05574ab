#include "serve/metrics.h"

#include <fmt/format.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <mutex>
#include <sstream>
#include <unordered_map>

#include "base/file.h"

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
const Buckets kChoices{1, 2, 5, 10, 20};
const Buckets kHttpSeconds{0.1, 0.5, 1};
const Buckets kRoundTokens{1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
const Buckets kRoundSeconds{0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30};

// 1, 2, 5, 10, ... up to the longest sequence.
Buckets token_buckets(int max_model_len) {
  Buckets buckets;
  for (double unit = 1;; unit *= 10)
    for (const double factor : {1, 2, 5}) {
      if (unit * factor > max_model_len) return buckets;
      buckets.push_back(unit * factor);
    }
}

double seconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

// Bounds as vLLM writes them, le="1.0" and le="1e+06": queries name them, and Prometheus 2 compares them as text.
std::string with_float_bounds(const std::string& text) {
  constexpr std::string_view kBound = "le=\"";
  std::string changed;
  size_t done = 0;
  for (size_t at = text.find(kBound); at != text.npos; at = text.find(kBound, done)) {
    const size_t begin = at + kBound.size(), end = text.find('"', begin);
    const std::string_view bound = std::string_view(text).substr(begin, end - begin);
    changed.append(text, done, begin - done);
    done = end;
    const bool is_whole = bound.find_first_not_of("0123456789") == bound.npos;
    if (is_whole && bound.size() > 6) {
      const size_t last = bound.find_last_not_of('0');
      changed += fmt::format("{}{}{}e+{:02}", bound[0], last > 0 ? "." : "", bound.substr(1, last), bound.size() - 1);
    } else {
      changed += fmt::format("{}{}", bound, is_whole ? ".0" : "");
    }
  }
  return changed.append(text, done);
}

}  // namespace

struct Metrics::Impl {
  explicit Impl(const MetricsOptions& options)
      : labels{{"model_name", options.model_name}, {"engine", std::to_string(options.engine)}},
        token_counts(token_buckets(options.max_model_len)) {
    auto config = options.cache_config;
    config["engine"] = labels["engine"];
    prometheus::BuildGauge()
        .Name("vllm:cache_config_info")
        .Help("1, with the KV cache's settings as labels")
        .Register(registry)
        .Add(config)
        .Set(1);
    for (const char* limit : {"max_num_queued_reqs", "max_num_queued_tokens"}) rejected(limit);
    for (const char* state : {"weights_offloaded", "discard_all"}) sleep_state(state).Set(0);
    sleep_state("awake").Set(1);
  }

  using Labels = std::map<std::string, std::string>;
  Labels with_more(Labels more) const {
    more.insert(labels.begin(), labels.end());
    return more;
  }
  Gauge& gauge(const char* name, const char* help, Labels more = {}) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add(with_more(std::move(more)));
  }
  Counter& counter(const char* name, const char* help, Labels more = {}) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(with_more(std::move(more)));
  }
  Histogram& histogram(const char* name, const char* help, const Buckets& buckets) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(labels, buckets);
  }
  Histogram& token_histogram(const char* name, const char* help) { return histogram(name, help, token_counts); }
  Counter& finished(const char* reason) {
    return counter("vllm:request_success_total", "Finished requests, by reason", {{"finished_reason", reason}});
  }
  Counter& prompt_tokens_from(const char* source) {
    return counter("vllm:prompt_tokens_by_source_total",
                   "Prompt tokens, computed or found; from other servers (external_kv_transfer) none ever come",
                   {{"source", source}});
  }
  Counter& rejected(const char* limit) {
    return counter("vllm:admission_rejections_total",
                   "Requests that might not even wait, by the limit that was reached", {{"reason", limit}});
  }
  Gauge& sleep_state(const char* state) {
    return gauge("vllm:engine_sleep_state", "A server never sleeps: awake is always 1", {{"sleep_state", state}});
  }
  Gauge& waiting_because(const char* reason) {
    return gauge("vllm:num_requests_waiting_by_reason",
                 "Requests that wait, for room (capacity) or for something else (deferred: never here)",
                 {{"reason", reason}});
  }

  // Of a prompt with several choices: the longest so far, and how many are still running.
  struct Siblings {
    int num_left = 0, longest = 0;
  };
  std::mutex siblings_mutex;
  std::unordered_map<RequestId, Siblings> siblings;

  prometheus::Registry registry;
  Labels labels;
  const Buckets token_counts;
  std::mutex render_mutex;

  Gauge& running = gauge("vllm:num_requests_running", "Requests in the running batch");
  Gauge& waiting = gauge("vllm:num_requests_waiting", "Requests that wait for room");
  Gauge& waiting_for_room = waiting_because("capacity");
  Gauge& waiting_for_else = waiting_because("deferred");
  Gauge& waiting_tokens = gauge("cachalot:waiting_prompt_tokens", "Tokens of the requests that wait for room");
  Gauge& pending_tokens =
      gauge("cachalot:pending_tokens", "Tokens of all requests, known and not computed: what is left to prefill");
  Gauge& kv_usage = gauge("vllm:kv_cache_usage_perc", "Used KV blocks; 1 is all of them");
  Gauge& gpu_usage = gauge("vllm:gpu_cache_usage_perc", "The same under vLLM's older name");
  Gauge& healthy = gauge("cachalot:healthy", "1 while the engine steps and takes requests");
  Counter& preemptions =
      counter("vllm:num_preemptions_total", "Requests that gave their blocks back and were computed again");
  Counter& prefix_queries = counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache");
  Counter& prefix_hits = counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache");
  Counter& prompt_tokens = counter("vllm:prompt_tokens_total", "Prompt tokens of the requests so far");
  Counter& prompt_tokens_cached =
      counter("vllm:prompt_tokens_cached_total", "Prompt tokens that were found in the prefix cache");
  Counter& prompt_computed = prompt_tokens_from("local_compute");
  Counter& prompt_from_cache = prompt_tokens_from("local_cache_hit");
  Counter& prompt_from_elsewhere = prompt_tokens_from("external_kv_transfer");
  Counter& cached_on_device = counter("vllm:prompt_tokens_cached_by_source_total",
                                      "Prompt tokens that were found, by where their KV was: here always with the rank",
                                      {{"source", "device"}});
  Counter& generation_tokens = counter("vllm:generation_tokens_total", "Generated tokens so far");
  Counter& rounds = counter("cachalot:rounds_total", "Scheduling decisions");
  Histogram& first_token =
      histogram("vllm:time_to_first_token_seconds", "From arrival to the first token", kFirstToken);
  Histogram& between_tokens = histogram("vllm:inter_token_latency_seconds", "Between a request's tokens", kPerToken);
  Histogram& per_token = histogram("vllm:time_per_output_token_seconds", "The same under vLLM's older name", kPerToken);
  Histogram& request_per_token =
      histogram("vllm:request_time_per_output_token_seconds", "Between a request's tokens, its mean", kPerToken);
  Histogram& request_latency =
      histogram("vllm:e2e_request_latency_seconds", "From arrival to the last token", kRequest);
  Histogram& request_queue =
      histogram("vllm:request_queue_time_seconds", "From arrival until its prompt was computed on", kRequest);
  Histogram& request_prefill = histogram("vllm:request_prefill_time_seconds", "From then to the first token", kRequest);
  Histogram& request_decode =
      histogram("vllm:request_decode_time_seconds", "From the first to the last token", kRequest);
  Histogram& request_inference =
      histogram("vllm:request_inference_time_seconds", "Prefill and decode together", kRequest);
  Histogram& request_prompt = token_histogram("vllm:request_prompt_tokens", "Prompt tokens of a request");
  Histogram& request_computed = token_histogram("vllm:request_prefill_kv_computed_tokens",
                                                "Prompt tokens of a request that were not found in the prefix cache");
  Histogram& request_generation = token_histogram("vllm:request_generation_tokens", "Generated tokens of a request");
  Histogram& request_max_generation = token_histogram("vllm:request_max_num_generation_tokens",
                                                      "Generated tokens of the longest of a request's choices");
  Histogram& request_max_tokens = token_histogram("vllm:request_params_max_tokens", "max_tokens of a request");
  Histogram& request_choices = histogram("vllm:request_params_n", "n of a request", kChoices);
  Histogram& round_tokens =
      histogram("vllm:iteration_tokens_total", "Token rows of a round's first step", kRoundTokens);
  Histogram& round_seconds = histogram("cachalot:round_seconds", "Time of a round", kRoundSeconds);
  // Their series come with the requests.
  prometheus::Family<Counter>& http_requests = prometheus::BuildCounter()
                                                   .Name("http_requests_total")
                                                   .Help("Requests to the API, by route and class of status")
                                                   .Register(registry);
  prometheus::Family<Histogram>& http_seconds = prometheus::BuildHistogram()
                                                    .Name("http_request_duration_seconds")
                                                    .Help("From a request's head to its answer's end, by route")
                                                    .Register(registry);
  // In the order of FinishReason, from kStop.
  std::array<Counter*, 4> finishes{&finished("stop"), &finished("length"), &finished("abort"), &finished("error")};

  void observe_end(const RequestTimer& timer, FinishReason reason, RequestTimer::Time now);
};

// A request that ends before a phase has no time in it.
void Metrics::Impl::observe_end(const RequestTimer& timer, FinishReason reason, RequestTimer::Time now) {
  const RequestTimer::Time admission = timer.times.admission.value_or(now);
  const RequestTimer::Time first = timer.times.first_token.value_or(now);
  const RequestTimer::Time last = timer.times.last_token.value_or(now);
  request_latency.Observe(seconds(now - timer.arrival));
  request_queue.Observe(seconds(admission - timer.arrival));
  request_prefill.Observe(seconds(first - admission));
  request_decode.Observe(seconds(last - first));
  request_inference.Observe(seconds(last - admission));
  if (timer.num_generated_tokens > 1)
    request_per_token.Observe(seconds(last - first) / (timer.num_generated_tokens - 1));
  request_prompt.Observe(timer.num_prompt_tokens);
  if (timer.times.first_token) request_computed.Observe(timer.num_prompt_tokens - timer.num_cached_tokens);
  request_generation.Observe(timer.num_generated_tokens);
  request_max_tokens.Observe(timer.max_tokens);
  finishes[static_cast<size_t>(reason) - 1]->Increment();
  int longest = timer.num_generated_tokens;
  if (timer.num_choices > 1) {
    const std::lock_guard lock(siblings_mutex);
    const auto entry = siblings.find(timer.parent);
    longest = entry->second.longest = std::max(entry->second.longest, longest);
    if (--entry->second.num_left > 0) return;
    siblings.erase(entry);
  }
  request_max_generation.Observe(longest);
}

Metrics::Metrics(const MetricsOptions& options) : impl_(std::make_unique<Impl>(options)) {}
Metrics::~Metrics() = default;

RequestTimer Metrics::start_request(const Request& request, RequestTimer::Time now) const {
  // Where it came in; what it waited for before it came here counts, too.
  const RequestTimer::Time arrival =
      request.arrival_ns > 0 ? RequestTimer::Time(std::chrono::nanoseconds(request.arrival_ns)) : now;
  if (request.sampling.choice == 0) impl_->request_choices.Observe(request.num_choices);
  if (request.num_choices > 1) {
    const std::lock_guard lock(impl_->siblings_mutex);
    impl_->siblings[request.parent].num_left++;
  }
  return {.arrival = arrival,
          .times = {},
          .parent = request.parent,
          .num_choices = request.num_choices,
          .num_prompt_tokens = request.num_prompt_tokens,
          .max_tokens = request.sampling.max_tokens};
}

void Metrics::note_admission(RequestTimer& timer, RequestTimer::Time now) {
  if (!timer.times.admission) timer.times.admission = now;
}

void Metrics::observe(RequestTimer& timer, const RequestOutput& output, RequestTimer::Time now) {
  const auto num_new = static_cast<int>(output.tokens.size());
  if (num_new > 0) {
    if (!timer.times.first_token) {
      timer.times.first_token = now;
      impl_->first_token.Observe(seconds(now - timer.arrival));
      timer.num_cached_tokens = output.num_cached_tokens;
      for (Counter* counter : {&impl_->prompt_tokens_cached, &impl_->prompt_from_cache, &impl_->cached_on_device})
        counter->Increment(output.num_cached_tokens);
      impl_->prompt_computed.Increment(timer.num_prompt_tokens - output.num_cached_tokens);
    } else {
      // A round of several steps gives its tokens together.
      const double between = seconds(now - *timer.times.last_token) / num_new;
      for (int token = 0; token < num_new; token++) {
        impl_->between_tokens.Observe(between);
        impl_->per_token.Observe(between);
      }
    }
    timer.num_generated_tokens += num_new;
    timer.times.last_token = now;
  }
  if (output.finish != FinishReason::kNone) impl_->observe_end(timer, output.finish, now);
}

ServerCounts Metrics::counts(const ReplicaStats& stats) const {
  // Prometheus' own counts are of all observations up to a bound.
  const auto latencies = [](const Histogram& histogram) {
    LatencyCounts latencies;
    uint64_t below = 0;
    for (const auto& bucket : histogram.Collect().histogram.bucket) {
      if (std::isfinite(bucket.upper_bound)) latencies.bounds.push_back(bucket.upper_bound);
      latencies.counts.push_back(bucket.cumulative_count - std::exchange(below, bucket.cumulative_count));
    }
    return latencies;
  };
  return {.prompt_tokens = stats.prompt_tokens,
          .generation_tokens = stats.generation_tokens,
          .prefix_queried_tokens = stats.prefix_queried_tokens,
          .prefix_hit_tokens = stats.prefix_hit_tokens,
          .first_token_seconds = latencies(impl_->first_token),
          .between_tokens_seconds = latencies(impl_->between_tokens)};
}

void Metrics::observe_rejection(const std::string& limit) {
  impl_->rejected(limit.c_str()).Increment();
}

void Metrics::observe_http(const std::string& method, std::string_view route, int status, double seconds) {
  // A client may name any method; each name would be kept for ever.
  constexpr std::array<std::string_view, 5> kMethods{"GET", "POST", "HEAD", "OPTIONS", "DELETE"};
  const std::string handler(route.empty() ? "none" : route);
  const std::string known = std::ranges::find(kMethods, method) != kMethods.end() ? method : "other";
  impl_->http_requests.Add({{"handler", handler}, {"method", known}, {"status", fmt::format("{}xx", status / 100)}})
      .Increment();
  impl_->http_seconds.Add({{"handler", handler}, {"method", known}}, kHttpSeconds).Observe(seconds);
}

void Metrics::observe_round(double round_seconds, int num_tokens) {
  impl_->round_seconds.Observe(round_seconds);
  impl_->round_tokens.Observe(num_tokens);
}

std::string Metrics::render(const ReplicaStats& stats, bool healthy) {
  const std::lock_guard lock(impl_->render_mutex);
  impl_->running.Set(stats.num_running);
  impl_->waiting.Set(stats.num_waiting);
  impl_->waiting_for_room.Set(stats.num_waiting);
  impl_->waiting_for_else.Set(0);
  impl_->waiting_tokens.Set(static_cast<double>(stats.num_waiting_tokens));
  impl_->pending_tokens.Set(static_cast<double>(stats.num_pending_tokens));
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
  return with_float_bounds(prometheus::TextSerializer().Serialize(impl_->registry.Collect()));
}

std::string render_process_metrics() {
  using prometheus::MetricType;
  std::vector<prometheus::MetricFamily> families;
  const auto add = [&](const char* name, const char* help, MetricType type, double value) {
    prometheus::ClientMetric metric;
    metric.gauge.value = metric.counter.value = value;
    families.push_back({.name = name, .help = help, .type = type, .metric = {metric}});
  };
  // Fields 14, 15, 22 and 23 of /proc/self/stat, counted behind the name in brackets: user and system time, start,
  // size.
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const auto page = static_cast<double>(sysconf(_SC_PAGESIZE));
  const std::string stat = read_file("/proc/self/stat").value_or("");
  std::istringstream fields(stat.substr(std::min(stat.rfind(')') + 1, stat.size())));
  std::vector<double> values;
  std::string state;
  fields >> state;
  for (double value; fields >> value;) values.push_back(value);
  if (values.size() > 20) {
    timespec now{}, since_boot{};
    clock_gettime(CLOCK_REALTIME, &now);
    clock_gettime(CLOCK_BOOTTIME, &since_boot);
    const double booted = static_cast<double>(now.tv_sec - since_boot.tv_sec) +
                          static_cast<double>(now.tv_nsec - since_boot.tv_nsec) * 1e-9;
    add("process_cpu_seconds_total", "Processor time, user's and system's", MetricType::Counter,
        (values[10] + values[11]) / ticks);
    add("process_start_time_seconds", "Start, in seconds since 1970", MetricType::Gauge, booted + values[18] / ticks);
    add("process_virtual_memory_bytes", "Size of the address space", MetricType::Gauge, values[19]);
    add("process_resident_memory_bytes", "Memory in use", MetricType::Gauge, values[20] * page);
  }
  std::error_code error;
  double num_open = 0;
  for (std::filesystem::directory_iterator entry("/proc/self/fd", error), end; !error && entry != end;
       entry.increment(error))
    num_open++;
  add("process_open_fds", "Open descriptors", MetricType::Gauge, num_open);
  if (rlimit limit{}; getrlimit(RLIMIT_NOFILE, &limit) == 0)
    add("process_max_fds", "Descriptors that may be open", MetricType::Gauge, static_cast<double>(limit.rlim_cur));
  return prometheus::TextSerializer().Serialize(families);
}

std::optional<std::string> StatsLine::next(Time now, const ReplicaStats& stats) {
  const double interval = std::max(seconds(now - time_), 1e-9);
  const ReplicaStats before = std::exchange(stats_, stats);
  time_ = now;
  const uint64_t num_prompt = stats.prompt_tokens - before.prompt_tokens;
  const uint64_t num_generated = stats.generation_tokens - before.generation_tokens;
  const bool is_busy = num_prompt > 0 || num_generated > 0 || stats.num_running > 0 || stats.num_waiting > 0;
  if (!std::exchange(was_busy_, is_busy) && !is_busy) return std::nullopt;
  const uint64_t num_queried = stats.prefix_queried_tokens - before.prefix_queried_tokens;
  const uint64_t num_hit = stats.prefix_hit_tokens - before.prefix_hit_tokens;
  return fmt::format(
      "requests: {} running, {} waiting; prompts {:.1f} tokens/s, answers {:.1f} tokens/s; KV cache {:.1f} % used, "
      "{:.1f} "
      "% of prompts found in it",
      stats.num_running, stats.num_waiting, static_cast<double>(num_prompt) / interval,
      static_cast<double>(num_generated) / interval, 100 * stats.kv_usage,
      num_queried > 0 ? 100 * static_cast<double>(num_hit) / static_cast<double>(num_queried) : 0.0);
}

}  // namespace cachalot
