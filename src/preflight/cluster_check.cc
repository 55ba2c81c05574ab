// Asking the nodes; what is made of their answers is in judge.cc.

#include "preflight/cluster_check.h"

#include <fmt/format.h>

#include <boost/json.hpp>

#include "base/progress.h"
#include "base/text.h"
#include "cluster/up_down.h"
#include "config/json.h"
#include "preflight/node_helper.h"

namespace cachalot {

namespace {

constexpr std::chrono::seconds kPatience{30}, kPatienceForHashes{24 * 3600};

// A node of this machine is asked without a detour.
void inspect_here(const std::vector<NodeQuestion>& questions, CheckedCluster& checked) {
  for (size_t idx = 0; idx < questions.size(); idx++) checked.nodes[idx].report = inspect_node(questions[idx]);
}

Status inspect_there(const ClusterCheckOptions& options, const std::vector<NodeQuestion>& questions,
                     CheckedCluster& checked) {
  std::vector<Words> arguments;
  for (const NodeQuestion& question : questions)
    arguments.push_back({"--log-level=error", "check", "--inspect", to_json_line(question)});
  ASSIGN_OR_RETURN(const std::vector<NodeAnswer> answers,
                   run_on_nodes(options.cluster, options.program, arguments,
                                options.hash_everything ? kPatienceForHashes : kPatience));
  for (size_t idx = 0; idx < answers.size(); idx++) {
    CheckedNode& node = checked.nodes[idx];
    const NodeAnswer& answer = answers[idx];
    Result<NodeReport> report = answer.text.empty() ? make_error(ErrorCode::kUnavailable, "{}", answer.error)
                                                    : from_json_line<NodeReport>(answer.text);
    if (!report) {
      node.silence = report.error().message;
      continue;
    }
    node.clock_difference = report->unix_seconds - answer.unix_seconds;
    node.clock_uncertainty = answer.seconds_to_see;
    node.report = std::move(*report);
  }
  return {};
}

// Whether the nodes can meet, so that it is worth trying.
bool can_meet(const CheckedCluster& checked) {
  for (const CheckedNode& node : checked.nodes) {
    if (!node.report || !node.report->address_fault.empty() || !node.report->interface_fault.empty() ||
        node.report->version != checked.nodes[0].report->version)
      return false;
  }
  return checked.nodes[0].report->taken_ports.empty();
}

Status measure_links_there(const ClusterCheckOptions& options, CheckedCluster& checked) {
  const ClusterFile& cluster = options.cluster;
  const int size = static_cast<int>(cluster.nodes.size());
  std::vector<Words> arguments;
  for (int rank = 0; rank < size; rank++) {
    arguments.push_back({"--log-level=error", "check", "--measure-links",
                         to_json_line(LinkQuestion{.rank = rank,
                                                   .size = size,
                                                   .host = cluster.nodes[0].listen_address(),
                                                   .port = cluster.data_parallel_rpc_port,
                                                   .network_interface = options.parallel.network_interface,
                                                   .group_secret_file = options.parallel.group_secret_file})});
  }
  ASSIGN_OR_RETURN(const std::vector<NodeAnswer> answers,
                   run_on_nodes(cluster, options.program, arguments, kPatience + std::chrono::seconds(2 * size)));
  if (const Result<LinkMatrix> links = parse_link_matrix(answers[0].text, size)) {
    checked.links = *links;
    judge_links(checked);
    return {};
  }
  for (size_t idx = 0; idx < answers.size(); idx++) {
    if (answers[idx].error.empty()) continue;
    checked.findings.error(checked.nodes[idx].address,
                           fmt::format("cannot exchange messages with the others: {}", answers[idx].error),
                           fmt::format("open TCP between the nodes, port {} of {} and those above 1024 (UCX takes free "
                                       "ones), to the nodes only, or name the right `network-interface`",
                                       cluster.data_parallel_rpc_port, cluster.nodes[0].address));
  }
  return {};
}

void check_router_port(const ClusterFile& cluster, const std::vector<PlacedReplica>& replicas,
                       CheckedCluster& checked) {
  if (!cluster.router.enabled || cluster.router.port == 0) return;
  if (const auto fault = router_port_fault(cluster, replicas))
    return checked.findings.error("", *fault, "set `router.port`, or `port`");
  const std::optional<ListenFault> fault = listen_fault(router_host(cluster), cluster.router.port);
  if (!fault) return;
  checked.findings.error("",
                         fmt::format("the router cannot listen at {}:{} on this machine: {}", router_host(cluster),
                                     cluster.router.port, fault->why),
                         fault->is_of_address ? "set `router.host` to an address of this machine, or leave it out"
                                              : "end what has the port, or set `router.port`");
}

}  // namespace

Result<CheckedCluster> check_cluster(const ClusterCheckOptions& options) {
  CheckedCluster checked;
  for (const ClusterNode& node : options.cluster.nodes) checked.nodes.push_back({.address = node.address});
  for (const PlacedReplica& replica : options.replicas)
    checked.nodes[static_cast<size_t>(replica.node)].num_ranks += static_cast<int>(replica.devices.size());
  const std::vector<NodeQuestion> questions =
      questions_for(options.cluster, options.replicas, options.parallel, options.hash_everything);
  const bool here = options.cluster.launcher == Launcher::kLocal;
  int num_ranks = 0;
  for (const CheckedNode& node : checked.nodes) num_ranks += node.num_ranks;
  for (CheckedNode& node : checked.nodes) node.num_sharing = here ? num_ranks : node.num_ranks;
  if (here) {
    inspect_here(questions, checked);
  } else {
    RETURN_IF_ERROR(inspect_there(options, questions, checked));
  }
  check_router_port(options.cluster, options.replicas, checked);
  judge_nodes(options.engine, options.parallel, checked);
  if (!here && checked.nodes.size() > 1 && can_meet(checked)) RETURN_IF_ERROR(measure_links_there(options, checked));
  return checked;
}

std::string check_json(const CheckedCluster& checked) {
  boost::json::array nodes, findings;
  for (const CheckedNode& node : checked.nodes) {
    boost::json::object object{
        {"address", node.address}, {"ranks", node.num_ranks}, {"clock_difference_seconds", node.clock_difference}};
    if (node.report) object["report"] = boost::json::value_from(*node.report);
    if (node.memory) {
      object["rank_bytes"] = node.memory->rank.fixed_bytes();
      object["cache_bytes"] = node.memory->cache_bytes;
    }
    nodes.push_back(std::move(object));
  }
  for (const Finding& finding : checked.findings.all()) {
    findings.push_back({{"severity", finding.severity == Severity::kError ? "error" : "warning"},
                        {"where", finding.where},
                        {"what", finding.what},
                        {"advice", finding.advice}});
  }
  boost::json::object object{{"nodes", std::move(nodes)}, {"findings", std::move(findings)}};
  if (checked.links) object["links"] = boost::json::value_from(*checked.links);
  return boost::json::serialize(object) + "\n";
}

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
  return text + fmt::format("{}, {}{}\n", counted(num_errors, "error"), counted(num_warnings, "warning"),
                            num_errors == 0 ? ": it can start" : "");
}

}  // namespace cachalot
