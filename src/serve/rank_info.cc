#include "serve/rank_info.h"

#include <fmt/format.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>

#include "device/memory_info.h"

namespace cachalot {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

ClientMetric of_rank(const RankReport& report, double value) {
  ClientMetric metric;
  metric.label.push_back({.name = "rank", .value = std::to_string(report.rank)});
  metric.gauge.value = value;
  return metric;
}

}  // namespace

std::string render_rank_info(const std::vector<RankReport>& reports, const std::vector<Member>& members) {
  MetricFamily info{.name = "cachalot:rank_info",
                    .help = "Which process a rank is, and the first of its experts",
                    .type = MetricType::Gauge,
                    .metric = {}};
  MetricFamily resident{.name = "cachalot:rank_resident_bytes",
                        .help = "Memory of the rank's process, with what it shares with others",
                        .type = MetricType::Gauge,
                        .metric = {}};
  for (const RankReport& report : reports) {
    const auto member = std::ranges::find(members, report.rank, &Member::rank);
    ClientMetric metric = of_rank(report, 1);
    metric.label.push_back({.name = "pid", .value = std::to_string(report.pid)});
    metric.label.push_back({.name = "host", .value = member == members.end() ? "" : member->host});
    metric.label.push_back({.name = "first_expert", .value = std::to_string(report.first_expert)});
    info.metric.push_back(std::move(metric));
    resident.metric.push_back(of_rank(report, static_cast<double>(resident_bytes(report.pid))));
  }
  return prometheus::TextSerializer().Serialize({info, resident});
}

}  // namespace cachalot
