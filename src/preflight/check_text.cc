#include <fmt/format.h>

#include "base/progress.h"
#include "preflight/cluster_check.h"

namespace cachalot {
namespace {

std::string node_row(const CheckedNode& node) {
  if (!node.report) return fmt::format("{:<18} did not answer\n", node.address);
  const NodeReport& report = *node.report;
  const std::string memory = node.memory ? fmt::format("{} + {} KV", binary_bytes(node.memory->rank.fixed_bytes()),
                                                       binary_bytes(node.memory->cache_bytes))
                                         : "-";
  return fmt::format("{:<18} {:<12} {:<8} {:<9} {:>5} {:>4} {:>11} {:>5}  {:<24} {:>8} {:<10} {}\n", node.address,
                     escaped(report.host, 64), escaped(report.version, 16), escaped(report.isa, 16), report.num_cores,
                     report.num_numa_domains, binary_bytes(static_cast<double>(report.memory_bytes)), node.num_ranks,
                     memory, fmt::format("{:+.2f} s", node.clock_difference),
                     escaped(report.interface, 16) + (report.rdma_devices.empty() ? "" : "+rdma"),
                     report.fingerprint.empty() ? "-" : escaped(report.fingerprint.substr(0, 12)));
}

std::string links_text(const CheckedCluster& checked) {
  const LinkMatrix& links = *checked.links;
  std::string text = "\nlinks, from row to column: microseconds of a small message / GB/s of large ones\n";
  text += fmt::format("{:<18}", "");
  for (const CheckedNode& node : checked.nodes) text += fmt::format(" {:>16}", node.address);
  text += "\n";
  for (int from = 0; from < links.size; from++) {
    text += fmt::format("{:<18}", checked.nodes[static_cast<size_t>(from)].address);
    for (int to = 0; to < links.size; to++) {
      const LinkFigure& link = links.at(from, to);
      text += fmt::format(" {:>16}",
                          from == to ? std::string("-")
                                     : fmt::format("{:.1f} / {:.2f}", link.microseconds, link.bytes_per_second / 1e9));
    }
    text += "\n";
  }
  return text;
}

}  // namespace

std::string check_text(const CheckedCluster& checked) {
  std::string text =
      fmt::format("{:<18} {:<12} {:<8} {:<9} {:>5} {:>4} {:>11} {:>5}  {:<24} {:>8} {:<10} {}\n", "node", "host",
                  "version", "isa", "cores", "NUMA", "memory", "ranks", "a rank plans", "clock", "interface", "model");
  for (const CheckedNode& node : checked.nodes) text += node_row(node);
  if (checked.links) text += links_text(checked);
  text += "\n";
  for (const Severity severity : {Severity::kError, Severity::kWarning}) {
    for (const Finding& finding : checked.findings.all()) {
      if (finding.severity != severity) continue;
      text += fmt::format("{}: {}{}\n    {}\n", severity == Severity::kError ? "error" : "warning",
                          finding.where.empty() ? "" : finding.where + ": ", finding.what, finding.advice);
    }
  }
  const int num_errors = checked.findings.count(Severity::kError),
            num_warnings = checked.findings.count(Severity::kWarning);
  if (num_errors + num_warnings == 0) return text + "nothing stands against a start\n";
  const auto counted = [](int count, const char* thing) {
    return fmt::format("{} {}{}", count, thing, count == 1 ? "" : "s");
  };
  return text + fmt::format("{}, {}{}\n", counted(num_errors, "error"), counted(num_warnings, "warning"),
                            num_errors == 0 ? ": it can start" : "");
}

}  // namespace cachalot
