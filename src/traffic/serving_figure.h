#pragma once

#include <boost/json/object.hpp>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "traffic/traffic.h"

// What a server made of some traffic, in the terms, the table and the JSON of `vllm bench serve`.
namespace cachalot {

// Of a latency; milliseconds.
struct Spread {
  double mean = 0, median = 0, deviation = 0;
  std::vector<std::pair<double, double>> percentiles;  // which, and its value
};

enum class LatencyKind { kTtft, kTpot, kItl, kE2el, kQueue };
inline constexpr size_t kNumLatencyKinds = 5;

// Bounds that a request must keep to be a good one, in milliseconds; infinite: any.
struct Goodput {
  double ttft, tpot, e2el;
};

struct ServingFigure {
  int completed = 0, failed = 0;
  int64_t input_tokens = 0, output_tokens = 0;
  double seconds = 0;
  double requests_per_s = 0, output_tokens_per_s = 0, tokens_per_s = 0;
  std::optional<double> good_requests_per_s;
  double most_output_tokens_per_s = 0;  // of the seconds since the first start
  int most_concurrent = 0;
  Spread latencies[kNumLatencyKinds];  // by kind, of the requests that were answered

  const Spread& latency(LatencyKind kind) const { return latencies[static_cast<size_t>(kind)]; }
};

struct FigureOptions {
  std::vector<double> percentiles{99};
  std::vector<LatencyKind> shown{LatencyKind::kTtft, LatencyKind::kTpot, LatencyKind::kItl};
  std::optional<Goodput> goodput;
};

// "ttft", "tpot", "itl", "e2el", "client_queue_time".
std::optional<LatencyKind> latency_kind(std::string_view name);

ServingFigure summarize(const TrafficResult& result, const FigureOptions& options);

// vLLM's table. Without a bound or a rate their lines are left out.
std::string serving_table(const ServingFigure& figure, const FigureOptions& options, const TrafficOptions& traffic);
// vLLM's keys; with `detailed`, every request's numbers and texts.
boost::json::object serving_json(const ServingFigure& figure, const FigureOptions& options, const TrafficResult& result,
                                 bool detailed);

// A point of a sweep: how it was loaded ("concurrency 8"), and what came of it.
struct SweepPoint {
  std::string label;
  ServingFigure figure;
};
std::string sweep_table(std::span<const SweepPoint> points);
// A picture (SVG) of throughput over latency: a panel for the time to the first token and one for that of each further
// one, medians as dots, to the 99th percentile as lines.
std::string sweep_picture(std::span<const SweepPoint> points, const std::string& title);

}  // namespace cachalot
