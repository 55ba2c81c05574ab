#include "bench/collective_table.h"

#include <fmt/format.h>

#include "config/version.h"

namespace cachalot {
namespace {

constexpr char kColumns[] = "{:>12}{:>14}{:>10}{:>12}{:>9}{:>9}{:>8}\n";

std::string comment(const std::string& columns) {
  return "#" + columns.substr(1);
}

}  // namespace

std::string CollectiveTable::header(const std::vector<Rank>& ranks, const CollectiveBenchOptions& options) const {
  std::string text = fmt::format(
      "# cachalot {} bench {}: ranks {} sizes {} to {} {} step {} warmup iters: {} iters: {} validation: {}\n#\n"
      "# Ranks\n",
      kVersion, name, ranks.size(), options.min_size, options.max_size, size_unit,
      options.step_size > 0 ? fmt::format("{}({})", options.step_size, size_unit)
                            : fmt::format("{}(factor)", options.step_factor),
      options.warmup, options.iterations, options.checks);
  for (size_t rank = 0; rank < ranks.size(); rank++) {
    text += fmt::format("#  Rank {:>3} Pid {:>7} on {}{}\n", rank, ranks[rank].pid, ranks[rank].host,
                        ranks[rank].transport.empty() ? "" : " through " + ranks[rank].transport);
  }
  text += "#\n";
  text += comment(fmt::format(kColumns, "size", "count", "type", "time", "algbw", "busbw", "#wrong"));
  text += comment(fmt::format(kColumns, "(B)", size_unit == "B" ? "(elements)" : "(" + std::string(size_unit) + ")", "",
                              "(us)", "(GB/s)", "(GB/s)", ""));
  return text;
}

std::string CollectiveTable::row(const CollectiveFigure& figure) const {
  return fmt::format(kColumns, figure.size.bytes, figure.size.count, type, fmt::format("{:.2f}", figure.seconds * 1e6),
                     fmt::format("{:.3f}", figure.algorithm_bandwidth() / 1e9),
                     fmt::format("{:.3f}", figure.bus_bandwidth() / 1e9),
                     figure.was_checked ? fmt::to_string(figure.num_wrong) : "N/A");
}

std::string CollectiveTable::footer(const std::vector<CollectiveFigure>& figures) {
  uint64_t num_wrong = 0;
  double bandwidth = 0;
  for (const CollectiveFigure& figure : figures) {
    num_wrong += figure.num_wrong;
    bandwidth += figure.bus_bandwidth() / 1e9 / static_cast<double>(figures.size());
  }
  return fmt::format("# Wrong values      : {} {}\n# Avg bus bandwidth : {:.4g}\n", num_wrong,
                     num_wrong == 0 ? "OK" : "FAILED", bandwidth);
}

}  // namespace cachalot
