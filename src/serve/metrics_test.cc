#include "serve/metrics.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <regex>

#include "base/text.h"

namespace cachalot {
namespace {

using testing::HasSubstr;

Request request(RequestId parent, int choice, int num_choices) {
  Request request;
  request.id = parent + static_cast<RequestId>(choice);
  request.tokens = {1, 2, 3};
  request.num_prompt_tokens = 3;
  request.parent = parent;
  request.num_choices = num_choices;
  request.sampling.choice = static_cast<uint32_t>(choice);
  return request;
}

// A request of two choices, of which the longer has five tokens.
void serve_one(Metrics& metrics) {
  const auto now = std::chrono::steady_clock::now();
  for (const int choice : {0, 1}) {
    RequestTimer timer = metrics.start_request(request(7, choice, 2), now);
    if (choice == 0) {
      // Both are there before one ends.
      RequestTimer sibling = metrics.start_request(request(7, 1, 2), now);
      metrics.observe(sibling, {.id = 8, .finish = FinishReason::kAborted}, now);
    }
    Metrics::note_admission(timer, now);
    metrics.observe(timer, {.id = 7, .tokens = {{}}, .num_cached_tokens = 2}, now);
    metrics.observe(timer, {.id = 7, .tokens = {{}, {}, {}, {}}, .finish = FinishReason::kStop}, now);
  }
}

// The series, labels and values of labels that vLLM's own dashboards ask for (examples/observability/dashboards/grafana
// and the older ones beside it), but for those of what is not here: docs/observability.md names them.
TEST(Metrics, VllmsDashboardFindsItsSeries) {
  Metrics metrics({.model_name = "m", .engine = 2, .max_model_len = 300, .cache_config = {{"block_size", "64"}}});
  serve_one(metrics);
  metrics.observe_http("POST", "/v1/chat/completions", 200, 0.2);
  metrics.observe_http("GET", "", 404, 0.2);
  for (const char* of_a_stranger : {"AAAA1", "AAAA2"}) metrics.observe_http(of_a_stranger, "", 404, 0.2);
  metrics.observe_rejection("max_num_queued_reqs");
  const std::string text = metrics.render({.num_running = 1, .num_waiting = 4}, true);
  for (const char* name : {"e2e_request_latency_seconds_bucket",
                           "e2e_request_latency_seconds_sum",
                           "e2e_request_latency_seconds_count",
                           "prompt_tokens_total",
                           "generation_tokens_total",
                           "inter_token_latency_seconds_bucket",
                           "inter_token_latency_seconds_sum",
                           "inter_token_latency_seconds_count",
                           "num_requests_running",
                           "num_requests_waiting",
                           "time_to_first_token_seconds_bucket",
                           "time_to_first_token_seconds_sum",
                           "time_to_first_token_seconds_count",
                           "kv_cache_usage_perc",
                           "request_prompt_tokens_bucket",
                           "request_generation_tokens_bucket",
                           "request_success_total",
                           "request_queue_time_seconds_sum",
                           "request_prefill_time_seconds_sum",
                           "request_decode_time_seconds_sum",
                           "request_inference_time_seconds_count",
                           "request_max_num_generation_tokens_sum",
                           "request_params_n_bucket",
                           "request_params_max_tokens_bucket",
                           "prompt_tokens_cached_total",
                           "request_prefill_kv_computed_tokens_sum",
                           "request_prefill_kv_computed_tokens_count",
                           "request_time_per_output_token_seconds_bucket",
                           "request_success_total",
                           "iteration_tokens_total_count",
                           "iteration_tokens_total_sum",
                           "iteration_tokens_total_bucket",
                           "num_preemptions_total",
                           "prefix_cache_queries_total",
                           "prefix_cache_hits_total"})
    EXPECT_TRUE(std::regex_search(
        text, std::regex(std::string("\nvllm:") + name + R"(\{[^}]*engine="2"[^}]*model_name="m"[^}]*\} )")))
        << name << "\n"
        << text;
  EXPECT_THAT(text, HasSubstr(R"(vllm:num_requests_waiting_by_reason{engine="2",model_name="m",reason="capacity"} 4)"));
  EXPECT_THAT(text, HasSubstr(R"(vllm:num_requests_waiting_by_reason{engine="2",model_name="m",reason="deferred"} 0)"));
  EXPECT_THAT(text, HasSubstr(R"(vllm:cache_config_info{block_size="64",engine="2"} 1)"));
  for (const char* series :
       {R"(vllm:prompt_tokens_by_source_total{engine="2",model_name="m",source="local_compute"} 2)",
        R"(vllm:prompt_tokens_by_source_total{engine="2",model_name="m",source="local_cache_hit"} 4)",
        R"(vllm:prompt_tokens_by_source_total{engine="2",model_name="m",source="external_kv_transfer"} 0)",
        R"(vllm:prompt_tokens_cached_by_source_total{engine="2",model_name="m",source="device"} 4)",
        R"(vllm:engine_sleep_state{engine="2",model_name="m",sleep_state="awake"} 1)",
        R"(vllm:engine_sleep_state{engine="2",model_name="m",sleep_state="discard_all"} 0)",
        R"(vllm:admission_rejections_total{engine="2",model_name="m",reason="max_num_queued_reqs"} 1)",
        R"(vllm:admission_rejections_total{engine="2",model_name="m",reason="max_num_queued_tokens"} 0)",
        R"(vllm:request_success_total{engine="2",finished_reason="error",model_name="m"} 0)",
        R"(http_requests_total{handler="/v1/chat/completions",method="POST",status="2xx"} 1)",
        R"(http_requests_total{handler="none",method="GET",status="4xx"} 1)",
        R"(http_requests_total{handler="none",method="other",status="4xx"} 2)",
        R"(http_request_duration_seconds_count{handler="/v1/chat/completions",method="POST"} 1)",
        R"(http_request_duration_seconds_sum{handler="/v1/chat/completions",method="POST"} 0.2)"})
    EXPECT_THAT(text, HasSubstr("\n" + std::string(series) + "\n"));
  // The bounds that the dashboards let people choose from, as they write them.
  for (const char* bound : {"0.1", "0.25", "0.5", "0.75", "1.0", "2.5", "5.0", "10.0"})
    EXPECT_THAT(text, HasSubstr(fmt::format(
                          R"(vllm:time_to_first_token_seconds_bucket{{engine="2",model_name="m",le="{}"}})", bound)));
  for (const char* bound : {"0.025", "0.05", "0.075", "0.1", "0.15", "0.2", "0.3", "0.5"})
    EXPECT_THAT(
        text, HasSubstr(fmt::format(
                  R"(vllm:request_time_per_output_token_seconds_bucket{{engine="2",model_name="m",le="{}"}})", bound)));
}

TEST(Metrics, CountsARequestsChoicesAndItsLongestOnce) {
  Metrics metrics({.model_name = "m"});
  serve_one(metrics);
  const std::string text = metrics.render({}, true);
  const auto value = [&](const std::string& name) {
    std::smatch match;
    EXPECT_TRUE(std::regex_search(text, match, std::regex("\nvllm:" + name + R"(\{[^}]*\} ([^\n]*))"))) << name;
    return match.empty() ? -1 : parse_number<double>(match[1].str()).value_or(-1);
  };
  EXPECT_EQ(value("request_params_n_sum"), 2);
  EXPECT_EQ(value("prompt_tokens_cached_total"), 4);
  EXPECT_EQ(value("request_max_num_generation_tokens_sum"), 10);  // two groups here, of five each
  EXPECT_EQ(value("inter_token_latency_seconds_count"), 8);
}

TEST(Metrics, CountsLatenciesBySize) {
  Metrics metrics({.model_name = "m"});
  serve_one(metrics);
  const ServerCounts counts = metrics.counts({.prefix_hit_tokens = 2, .prompt_tokens = 9, .generation_tokens = 10});
  EXPECT_EQ(counts.generation_tokens, 10);
  EXPECT_EQ(counts.prefix_hit_tokens, 2);
  const auto sum = [](const LatencyCounts& latencies) {
    EXPECT_EQ(latencies.counts.size(), latencies.bounds.size() + 1);
    uint64_t sum = 0;
    for (const uint64_t count : latencies.counts) sum += count;
    return sum;
  };
  EXPECT_EQ(sum(counts.first_token_seconds), 2);
  EXPECT_EQ(sum(counts.between_tokens_seconds), 8);
}

TEST(Metrics, WritesBoundsAsVllmDoes) {
  Metrics metrics({.model_name = "m", .max_model_len = 1'200'000});
  const std::string text = metrics.render({}, true);
  for (const char* bound : {"500000.0", "1e+06", "+Inf"})
    EXPECT_THAT(text,
                HasSubstr(fmt::format(R"(request_prompt_tokens_bucket{{engine="0",model_name="m",le="{}"}})", bound)));
}

TEST(Metrics, BucketsReachTheLongestSequence) {
  Metrics metrics({.model_name = "m", .max_model_len = 300});
  const std::string text = metrics.render({}, true);
  EXPECT_THAT(text, HasSubstr(R"(vllm:request_prompt_tokens_bucket{engine="0",model_name="m",le="200.0"})"));
  EXPECT_THAT(text,
              testing::Not(HasSubstr(R"(vllm:request_prompt_tokens_bucket{engine="0",model_name="m",le="500.0"})")));
}

TEST(Metrics, TellsOfItsProcess) {
  const std::string text = render_process_metrics();
  for (const char* name : {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_virtual_memory_bytes",
                           "process_start_time_seconds", "process_open_fds", "process_max_fds"}) {
    std::smatch match;
    ASSERT_TRUE(std::regex_search(text, match, std::regex(std::string("\n") + name + " ([^\n]*)"))) << text;
    const double value = parse_number<double>(match[1].str()).value_or(-1);
    EXPECT_GE(value, std::string_view(name).contains("cpu") ? 0 : 1) << name;
  }
}

TEST(StatsLine, SaysRatesWhileThereIsWork) {
  const auto start = std::chrono::steady_clock::now();
  const auto after = [&](int seconds) { return start + std::chrono::seconds(seconds); };
  StatsLine line(start, {});
  EXPECT_FALSE(line.next(after(10), {}));
  const ReplicaStats busy{.num_running = 2,
                          .num_waiting = 1,
                          .kv_usage = 0.5,
                          .prefix_queried_tokens = 100,
                          .prefix_hit_tokens = 25,
                          .prompt_tokens = 1000,
                          .generation_tokens = 300};
  const auto text = line.next(after(20), busy);
  ASSERT_TRUE(text);
  for (const char* part : {"2 running", "1 waiting", "100.0 tokens/s", "30.0 tokens/s", "50.0 %", "25.0 %"})
    EXPECT_THAT(*text, HasSubstr(part));
  ReplicaStats idle = busy;
  idle.num_running = idle.num_waiting = 0;
  EXPECT_TRUE(line.next(after(30), idle));  // the line that says that it is over
  EXPECT_FALSE(line.next(after(40), idle));
}

}  // namespace
}  // namespace cachalot
