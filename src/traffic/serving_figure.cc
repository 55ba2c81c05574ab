#include "traffic/serving_figure.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <numeric>

namespace cachalot {

namespace json = boost::json;

namespace {

struct LatencyName {
  std::string_view key, name, header;
};
constexpr LatencyName kLatencyNames[kNumLatencyKinds] = {
    {"ttft", "TTFT", "Time to First Token"},
    {"tpot", "TPOT", "Time per Output Token (excl. 1st token)"},
    {"itl", "ITL", "Inter-token Latency"},
    {"e2el", "E2EL", "End-to-end Latency"},
    {"client_queue_time", "Client Queue Time", "Client-side Queueing"},
};

// Between the two nearest, as NumPy does.
double percentile(const std::vector<double>& sorted, double percent) {
  if (sorted.empty()) return 0;
  const double place = percent / 100 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place), above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (place - static_cast<double>(below));
}

Spread spread_of(std::vector<double> seconds, std::vector<double> percentiles) {
  for (double& value : seconds) value *= 1000;
  std::ranges::sort(seconds);
  const double count = std::max<double>(static_cast<double>(seconds.size()), 1);
  Spread spread{.mean = std::accumulate(seconds.begin(), seconds.end(), 0.0) / count,
                .median = percentile(seconds, 50)};
  for (const double value : seconds) spread.deviation += (value - spread.mean) * (value - spread.mean) / count;
  spread.deviation = std::sqrt(spread.deviation);
  for (const double percent : percentiles) spread.percentiles.emplace_back(percent, percentile(seconds, percent));
  return spread;
}

double time_per_token(const Timing& timing) {
  return timing.output_tokens > 1 ? (timing.latency - timing.ttft) / (timing.output_tokens - 1) : 0;
}

bool is_good(const Timing& timing, const Goodput& bounds) {
  return timing.ttft * 1000 <= bounds.ttft && time_per_token(timing) * 1000 <= bounds.tpot &&
         timing.latency * 1000 <= bounds.e2el;
}

// Second by second since the first start: pieces of answers, and requests under way.
void find_peaks(const std::vector<const Timing*>& answered, ServingFigure& figure) {
  if (answered.empty()) return;
  double first = answered[0]->start, last = 0;
  for (const Timing* timing : answered) {
    first = std::min(first, timing->start);
    last = std::max(last, timing->start + timing->latency);
  }
  const auto num_seconds = static_cast<size_t>(last - first) + 1;
  std::vector<double> pieces(num_seconds);
  std::vector<int> running(num_seconds);
  for (const Timing* timing : answered) {
    double time = timing->start - first + timing->ttft;
    const auto count = [&] { pieces[std::min(static_cast<size_t>(time), num_seconds - 1)]++; };
    count();
    for (const double gap : timing->gaps) {
      time += gap;
      count();
    }
    const double start = timing->start - first;
    for (auto second = static_cast<size_t>(start); second <= static_cast<size_t>(start + timing->latency); second++)
      running[std::min(second, num_seconds - 1)]++;
  }
  figure.most_output_tokens_per_s = *std::ranges::max_element(pieces);
  figure.most_concurrent = *std::ranges::max_element(running);
}

// "99", "99.9"
std::string percent_text(double percent) {
  return fmt::format("{:g}", percent);
}

}  // namespace

std::optional<LatencyKind> latency_kind(std::string_view name) {
  for (size_t kind = 0; kind < kNumLatencyKinds; kind++)
    if (kLatencyNames[kind].key == name) return static_cast<LatencyKind>(kind);
  return std::nullopt;
}

ServingFigure summarize(const TrafficResult& result, const FigureOptions& options) {
  ServingFigure figure{.seconds = result.seconds};
  std::vector<double> seconds[kNumLatencyKinds];
  std::vector<const Timing*> answered;
  int num_good = 0;
  for (const Timing& timing : result.timings) {
    if (!timing.error.empty()) {
      figure.failed++;
      continue;
    }
    answered.push_back(&timing);
    figure.input_tokens += timing.prompt_tokens;
    figure.output_tokens += timing.output_tokens;
    const auto add = [&](LatencyKind kind, double value) { seconds[static_cast<size_t>(kind)].push_back(value); };
    add(LatencyKind::kTtft, timing.ttft);
    if (timing.output_tokens > 1) add(LatencyKind::kTpot, time_per_token(timing));
    for (const double gap : timing.gaps) add(LatencyKind::kItl, gap);
    add(LatencyKind::kE2el, timing.latency);
    add(LatencyKind::kQueue, timing.queued);
    if (options.goodput && is_good(timing, *options.goodput)) num_good++;
  }
  figure.completed = static_cast<int>(answered.size());
  const double duration = std::max(result.seconds, 1e-9);
  figure.requests_per_s = figure.completed / duration;
  figure.output_tokens_per_s = static_cast<double>(figure.output_tokens) / duration;
  figure.tokens_per_s = static_cast<double>(figure.input_tokens + figure.output_tokens) / duration;
  if (options.goodput) figure.good_requests_per_s = num_good / duration;
  for (size_t kind = 0; kind < kNumLatencyKinds; kind++)
    figure.latencies[kind] = spread_of(std::move(seconds[kind]), options.percentiles);
  find_peaks(answered, figure);
  return figure;
}

std::string serving_table(const ServingFigure& figure, const FigureOptions& options, const TrafficOptions& traffic) {
  std::string text = fmt::format("{:=^50}\n", " Serving Benchmark Result ");
  const auto whole = [&](std::string_view name, int64_t value) { text += fmt::format("{:<40} {:<10}\n", name, value); };
  const auto real = [&](std::string_view name, double value) {
    text += fmt::format("{:<40} {:<10.2f}\n", name, value);
  };
  whole("Successful requests:", figure.completed);
  whole("Failed requests:", figure.failed);
  if (traffic.max_concurrency > 0) whole("Maximum request concurrency:", traffic.max_concurrency);
  if (std::isfinite(traffic.arrivals.rate)) real("Request rate configured (RPS):", traffic.arrivals.rate);
  real("Benchmark duration (s):", figure.seconds);
  whole("Total input tokens:", figure.input_tokens);
  whole("Total generated tokens:", figure.output_tokens);
  real("Request throughput (req/s):", figure.requests_per_s);
  if (figure.good_requests_per_s) real("Request goodput (req/s):", *figure.good_requests_per_s);
  real("Output token throughput (tok/s):", figure.output_tokens_per_s);
  real("Peak output token throughput (tok/s):", figure.most_output_tokens_per_s);
  real("Peak concurrent requests:", figure.most_concurrent);
  real("Total token throughput (tok/s):", figure.tokens_per_s);
  for (const LatencyKind kind : options.shown) {
    const LatencyName& name = kLatencyNames[static_cast<size_t>(kind)];
    const Spread& spread = figure.latency(kind);
    text += fmt::format("{:-^50}\n", name.header);
    real(fmt::format("Mean {} (ms):", name.name), spread.mean);
    real(fmt::format("Median {} (ms):", name.name), spread.median);
    for (const auto& [percent, value] : spread.percentiles)
      real(fmt::format("P{} {} (ms):", percent_text(percent), name.name), value);
  }
  return text + std::string(50, '=') + "\n";
}

json::object serving_json(const ServingFigure& figure, const FigureOptions& options, const TrafficResult& result,
                          bool detailed) {
  json::object object{
      {"duration", figure.seconds},
      {"completed", figure.completed},
      {"failed", figure.failed},
      {"total_input_tokens", figure.input_tokens},
      {"total_output_tokens", figure.output_tokens},
      {"request_throughput", figure.requests_per_s},
      {"request_goodput", nullptr},
      {"output_throughput", figure.output_tokens_per_s},
      {"total_token_throughput", figure.tokens_per_s},
      {"max_output_tokens_per_s", figure.most_output_tokens_per_s},
      {"max_concurrent_requests", figure.most_concurrent},
  };
  if (figure.good_requests_per_s) object["request_goodput"] = *figure.good_requests_per_s;
  for (const LatencyKind kind : options.shown) {
    const std::string key(kLatencyNames[static_cast<size_t>(kind)].key);
    const Spread& spread = figure.latency(kind);
    object["mean_" + key + "_ms"] = spread.mean;
    object["median_" + key + "_ms"] = spread.median;
    object["std_" + key + "_ms"] = spread.deviation;
    for (const auto& [percent, value] : spread.percentiles)
      object[fmt::format("p{}_{}_ms", percent_text(percent), key)] = value;
  }
  if (!detailed) return object;
  const auto list = [&](const char* key, auto value_of) {
    json::array values;
    for (const Timing& timing : result.timings) values.push_back(value_of(timing));
    object[key] = std::move(values);
  };
  list("input_lens", [](const Timing& timing) { return json::value(timing.prompt_tokens); });
  list("output_lens", [](const Timing& timing) { return json::value(timing.output_tokens); });
  list("ttfts", [](const Timing& timing) { return json::value(timing.ttft); });
  list("itls", [](const Timing& timing) { return json::value(json::array(timing.gaps.begin(), timing.gaps.end())); });
  list("latencies", [](const Timing& timing) { return json::value(timing.latency); });
  list("start_times", [](const Timing& timing) { return json::value(timing.start); });
  list("queue_times", [](const Timing& timing) { return json::value(timing.queued); });
  list("generated_texts", [](const Timing& timing) { return json::value(timing.text); });
  list("errors", [](const Timing& timing) { return json::value(timing.error); });
  return object;
}

std::string sweep_table(std::span<const SweepPoint> points) {
  std::string text = fmt::format("{:<20} {:>8} {:>10} {:>12} {:>12} {:>12} {:>12} {:>12}\n", "load", "failed", "req/s",
                                 "output tok/s", "TTFT median", "TTFT p99", "TPOT median", "TPOT p99");
  for (const auto& [label, figure] : points) {
    const auto worst = [&](LatencyKind kind) {
      const Spread& spread = figure.latency(kind);
      return spread.percentiles.empty() ? spread.median : spread.percentiles.back().second;
    };
    text +=
        fmt::format("{:<20} {:>8} {:>10.2f} {:>12.1f} {:>12.1f} {:>12.1f} {:>12.2f} {:>12.2f}\n", label, figure.failed,
                    figure.requests_per_s, figure.output_tokens_per_s, figure.latency(LatencyKind::kTtft).median,
                    worst(LatencyKind::kTtft), figure.latency(LatencyKind::kTpot).median, worst(LatencyKind::kTpot));
  }
  return text;
}

namespace {

std::string escaped_xml(std::string_view text) {
  std::string escaped;
  for (const char byte : text) {
    switch (byte) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      default:
        escaped += byte;
    }
  }
  return escaped;
}

// 1, 2 or 5 times a power of ten, so that about `count` of them reach `most`.
double tick_step(double most, int count) {
  const double rough = std::max(most, 1e-9) / count, power = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= rough) return factor * power;
  return 10 * power;
}

constexpr double kWidth = 340, kHeight = 260, kLeft = 70, kTop = 60, kGap = 90;

// A panel of the picture: a latency to the right, throughput upwards.
std::string panel(std::span<const SweepPoint> points, LatencyKind kind, double left) {
  const auto worst = [&](const SweepPoint& point) {
    const Spread& spread = point.figure.latency(kind);
    return std::max(spread.median, spread.percentiles.empty() ? 0 : spread.percentiles.back().second);
  };
  double most_latency = 0, most_tokens = 0;
  for (const SweepPoint& point : points) {
    most_latency = std::max(most_latency, worst(point));
    most_tokens = std::max(most_tokens, point.figure.output_tokens_per_s);
  }
  const double x_step = tick_step(most_latency, 5), y_step = tick_step(most_tokens, 5);
  const double x_most = std::max(std::ceil(most_latency * 1.05 / x_step), 1.0) * x_step;
  const double y_most = std::max(std::ceil(most_tokens * 1.05 / y_step), 1.0) * y_step;
  const auto x_of = [&](double value) { return left + value / x_most * kWidth; };
  const auto y_of = [&](double value) { return kTop + kHeight - value / y_most * kHeight; };
  std::string text;
  for (double x = 0; x <= x_most * 1.0001; x += x_step)
    text += fmt::format(
        "<line class='grid' x1='{0:.1f}' x2='{0:.1f}' y1='{1}' y2='{2}'/><text class='tick' "
        "x='{0:.1f}' y='{3}' text-anchor='middle'>{4:g}</text>\n",
        x_of(x), kTop, kTop + kHeight, kTop + kHeight + 18, x);
  for (double y = 0; y <= y_most * 1.0001; y += y_step)
    text += fmt::format(
        "<line class='grid' x1='{1}' x2='{2}' y1='{0:.1f}' y2='{0:.1f}'/><text class='tick' x='{3}' "
        "y='{4:.1f}' text-anchor='end'>{5:g}</text>\n",
        y_of(y), left, left + kWidth, left - 8, y_of(y) + 4, y);
  text += fmt::format("<text class='axis' x='{}' y='{}' text-anchor='middle'>{} (ms): median, and to the {}</text>\n",
                      left + kWidth / 2, kTop + kHeight + 42, kLatencyNames[static_cast<size_t>(kind)].name,
                      points[0].figure.latency(kind).percentiles.empty()
                          ? "median"
                          : fmt::format("p{:g}", points[0].figure.latency(kind).percentiles.back().first));
  std::string path;
  for (const SweepPoint& point : points) {
    const double x = x_of(point.figure.latency(kind).median), y = y_of(point.figure.output_tokens_per_s);
    path += fmt::format("{}{:.1f},{:.1f}", path.empty() ? "M" : " L", x, y);
    text += fmt::format("<line class='spread' x1='{:.1f}' x2='{:.1f}' y1='{:.1f}' y2='{:.1f}'/>\n", x,
                        x_of(worst(point)), y, y);
    text += fmt::format("<circle cx='{:.1f}' cy='{:.1f}' r='4'/><text class='label' x='{:.1f}' y='{:.1f}'>{}</text>\n",
                        x, y, x + 6, y - 7, escaped_xml(point.label));
  }
  return text + fmt::format("<path d='{}'/>\n", path);
}

}  // namespace

std::string sweep_picture(std::span<const SweepPoint> points, const std::string& title) {
  const double width = kLeft + 2 * kWidth + kGap + 40, height = kTop + kHeight + 60;
  std::string text = fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {0} {1}' width='{0}' height='{1}' "
      "font-family='sans-serif'>\n"
      "<style>.grid{{stroke:#d8dde3}}.tick{{font-size:11px;fill:#556}}.axis{{font-size:12px;fill:#223}}"
      ".label{{font-size:11px;fill:#123}}.spread{{stroke:#7aa6d8;stroke-width:2}}circle{{fill:#1f5fa8}}"
      "path{{fill:none;stroke:#1f5fa8;stroke-width:1.5}}</style>\n"
      "<rect width='100%' height='100%' fill='white'/>\n<text x='{2}' y='24' font-size='15'>{3}</text>\n"
      "<text class='axis' x='{2}' y='46'>output tokens/s</text>\n",
      width, height, kLeft, escaped_xml(title));
  text += panel(points, LatencyKind::kTtft, kLeft);
  text += panel(points, LatencyKind::kTpot, kLeft + kWidth + kGap);
  return text + "</svg>\n";
}

}  // namespace cachalot
