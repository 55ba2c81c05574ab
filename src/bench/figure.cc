#include "bench/figure.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>

#include "base/error.h"

namespace cachalot {
namespace {

constexpr double kMostUneven = 0.05;

double speed(const Sample& sample) {
  return sample.num_tokens / sample.seconds;
}

boost::json::object to_json(const Figure& figure) {
  return {{"phase", figure.phase},
          {"batch", figure.batch},
          {"weights", figure.weights},
          {"isa", figure.isa},
          {"context", figure.context},
          {"tokens_per_s", figure.tokens_per_s},
          {"min", figure.min},
          {"max", figure.max},
          {"limit_tokens_per_s", figure.limit_tokens_per_s},
          {"fraction_of_limit", figure.fraction_of_limit()},
          {"distinct_experts", figure.distinct_experts},
          {"uniform_distinct_experts", figure.uniform_distinct_experts},
          {"bandwidth_gb_s", figure.limits.bandwidth / 1e9},
          {"int8_tops", figure.limits.int8_peak / 1e12}};
}

}  // namespace

bool Figure::counts() const {
  return std::abs(distinct_experts - uniform_distinct_experts) <= kMostUneven * uniform_distinct_experts;
}

void summarize(std::span<const Sample> samples, Figure& figure) {
  CHECK(!samples.empty());
  std::vector<Sample> sorted(samples.begin(), samples.end());
  std::ranges::sort(sorted, {}, speed);
  const Sample& median = sorted[(sorted.size() - 1) / 2];
  figure.tokens_per_s = speed(median);
  figure.min = speed(sorted.front());
  figure.max = speed(sorted.back());
  figure.limit_tokens_per_s = median.num_tokens / median.least_seconds;
  figure.limits = median.limits;
  figure.distinct_experts = 0;
  for (const Sample& sample : samples)
    figure.distinct_experts += sample.distinct_experts / static_cast<double>(samples.size());
}

std::string figures_table(std::span<const Figure> figures) {
  std::string text =
      fmt::format("{:<8}{:>6}{:>10}{:>10}{:>10}{:>10}{:>10}{:>8}{:>11}{:>11}{:>17}\n", "phase", "batch", "tokens/s",
                  "min", "max", "limit", "fraction", "GB/s", "int8 Tops", "fp32 Tops", "experts (even)");
  bool all_count = true;
  for (const Figure& figure : figures) {
    const std::string experts = fmt::format("{:.1f} ({:.1f}){}", figure.distinct_experts,
                                            figure.uniform_distinct_experts, figure.counts() ? " " : "!");
    text += fmt::format("{:<8}{:>6}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.3f}{:>8.1f}{:>11.2f}{:>11.2f}{:>17}\n",
                        figure.phase, figure.batch, figure.tokens_per_s, figure.min, figure.max,
                        figure.limit_tokens_per_s, figure.fraction_of_limit(), figure.limits.bandwidth / 1e9,
                        figure.limits.int8_peak / 1e12, figure.limits.float_peak / 1e12, experts);
    all_count = all_count && figure.counts();
  }
  if (!all_count) text += "! does not count: the distinct experts are more than 5% off what even routing gives\n";
  return text;
}

std::string figures_json(std::span<const Figure> figures) {
  std::string text = "{\"results\": [";
  for (const char* separator = "\n  "; const Figure& figure : figures) {
    text += separator + boost::json::serialize(to_json(figure));
    separator = ",\n  ";
  }
  return text + "\n]}\n";
}

}  // namespace cachalot
