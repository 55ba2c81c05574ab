#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "base/math.h"
#include "base/progress.h"
#include "engine/placement.h"
#include "preflight/cluster_check.h"
#include "weights/weight_catalog.h"

namespace cachalot {
namespace {

constexpr uint64_t kFewOpenFiles = 4096;  // a thousand clients, and every rank's connections
constexpr double kFarClock = 1;           // seconds
constexpr double kSlowLink = 0.5;         // of the median link's bandwidth
constexpr double kLateLink = 4;           // times the median link's latency

// The first value that anybody has, and who differs from it.
void expect_equal(const CheckedCluster& checked, std::string NodeReport::* value,
                  const std::function<void(const CheckedNode& first, const CheckedNode& other)>& tell) {
  const CheckedNode* first = nullptr;
  for (const CheckedNode& node : checked.nodes) {
    if (!node.report || ((*node.report).*value).empty()) continue;
    if (!first) first = &node;
    if ((*node.report).*value != (*first->report).*value) tell(*first, node);
  }
}

void judge_alike(CheckedCluster& checked) {
  Findings& findings = checked.findings;
  expect_equal(checked, &NodeReport::version, [&](const CheckedNode& first, const CheckedNode& other) {
    findings.error(
        other.address,
        fmt::format("runs Cachalot {}, {} runs {}", other.report->version, first.address, first.report->version),
        "install the same program on every node, or name its path there by `program`");
  });
  expect_equal(checked, &NodeReport::isa, [&](const CheckedNode& first, const CheckedNode& other) {
    findings.warning(other.address,
                     fmt::format("its CPU runs {}, that of {} {}", other.report->isa, first.address, first.report->isa),
                     "all ranks run at the lowest level of the group: leave slow nodes out, or live with it");
  });
  expect_equal(checked, &NodeReport::fingerprint, [&](const CheckedNode& first, const CheckedNode& other) {
    findings.error(
        other.address,
        fmt::format("its model has the fingerprint {}, that of {} {}", other.report->fingerprint.substr(0, 12),
                    first.address, first.report->fingerprint.substr(0, 12)),
        "copy the same files to every node (rsync --checksum)");
  });
}

void judge_network(const CheckedNode& node, bool many_nodes, Findings& findings) {
  const NodeReport& report = *node.report;
  if (!report.address_fault.empty())
    findings.error(node.address, fmt::format("nobody can listen at this address there: {}", report.address_fault),
                   "give an address that the node itself has (`ip addr` there), not one that is translated on the way");
  for (const PortFault& port : report.taken_ports)
    findings.error(
        node.address, fmt::format("port {} cannot be listened on: {}", port.port, port.why),
        fmt::format("end what has it (`cachalot down`; `ss -ltnp sport = :{}` there), or choose another port",
                    port.port));
  if (!many_nodes) return;
  if (!report.interface_fault.empty()) {
    findings.error(node.address, report.interface_fault,
                   "set `network-interface` in the section `serve` to one that reaches the other nodes");
  } else if (report.own_interface == "lo") {
    findings.error(
        node.address, "there this is an address of its loopback, which no other node reaches",
        "give the address under which the others reach it (`ip addr` there), or take its name off the line of "
        "127.0.1.1 in its /etc/hosts");
  } else if (report.interface == "lo") {
    findings.error(node.address, "reaches the first node through its loopback",
                   "give each node the address under which the others reach it");
  } else if (!report.own_interface.empty() && report.own_interface != report.interface) {
    findings.warning(node.address,
                     fmt::format("reaches the first node through {}, while its address is on {}", report.interface,
                                 report.own_interface),
                     fmt::format("if {} is the fast one, set `network-interface: {}` in the section `serve`, or route "
                                 "through it",
                                 report.own_interface, report.own_interface));
  }
}

void judge_limits(const CheckedNode& node, Findings& findings) {
  const NodeReport& report = *node.report;
  if (!report.shared_memory_fault.empty())
    findings.error(node.address, fmt::format("ranks cannot share memory: {}", report.shared_memory_fault),
                   "allow memfd_create in the container's seccomp profile");
  if (report.open_files < kFewOpenFiles)
    findings.warning(node.address,
                     fmt::format("a process may open {} files (at most {})", report.open_files, report.most_open_files),
                     fmt::format("raise it to {} or more (ulimit -n, LimitNOFILE=, docker --ulimit nofile=): each "
                                 "client is one",
                                 kFewOpenFiles));
  const uint64_t needed = node.memory ? node.memory->rank.model.comm_bytes() : 0;
  if (!report.rdma_devices.empty() && report.locked_bytes < needed)
    findings.error(node.address,
                   fmt::format("a process may lock {} of memory, and RDMA ({}) locks its buffers of {}",
                               binary_bytes(static_cast<double>(report.locked_bytes)), report.rdma_devices,
                               binary_bytes(static_cast<double>(needed))),
                   "lift the limit (ulimit -l unlimited, LimitMEMLOCK=infinity, docker --ulimit memlock=-1)");
  if (report.num_cores < node.num_sharing)
    findings.warning(node.address, fmt::format("{} ranks share {} cores", node.num_sharing, report.num_cores),
                     "give it fewer `devices`; it works, but ranks wait for each other");
  if (report.isa == "reference")
    findings.warning(node.address, "its CPU has neither AVX-512 nor AVX2", "it will be very slow");
}

void judge_clock(const CheckedNode& node, Findings& findings) {
  if (std::abs(node.clock_difference) < kFarClock + node.clock_uncertainty) return;
  findings.warning(node.address,
                   fmt::format("its clock is {:.1f} s {} this machine's", std::abs(node.clock_difference),
                               node.clock_difference > 0 ? "ahead of" : "behind"),
                   "run chrony or systemd-timesyncd on all nodes: logs are compared by their times");
}

void judge_model(const CheckedNode& node, Findings& findings) {
  const NodeReport& report = *node.report;
  if (!report.model_fault.empty())
    findings.error(node.address, report.model_fault, "put the whole model there, in the same folder on every node");
  if (!report.tokenizer_fault.empty())
    findings.error(node.address, report.tokenizer_fault,
                   "servers need the model's tokenizer.json and the small files beside it, whole");
}

int threads_of_rank(const EngineOptions& engine, const CheckedNode& node) {
  return engine.threads > 0 ? engine.threads : std::max(node.report->num_cores / node.num_sharing, 1);
}

void plan_node_memory(const EngineOptions& engine, const ModelConfig& config, const RankMemory& rank, CheckedNode& node,
                      Findings& findings) {
  const NodeReport& report = *node.report;
  const auto memory = plan_memory(engine, config, rank, {report.memory_bytes, report.memory_source}, node.num_sharing);
  if (!memory) {
    findings.error(node.address, memory.error().message, "`cachalot check --plan` tells what another layout takes");
    return;
  }
  node.memory = *memory;
  const auto planned = static_cast<double>(rank.fixed_bytes() + memory->cache_bytes) * node.num_sharing;
  if (planned > static_cast<double>(report.available_bytes))
    findings.warning(node.address,
                     fmt::format("its {} ranks plan {}, and {} are available now", node.num_sharing,
                                 binary_bytes(planned), binary_bytes(static_cast<double>(report.available_bytes))),
                     "end what else holds memory there, or lower --gpu-memory-utilization");
}

// The rank that has most slots for experts, and so the largest share: which node it is on, nobody knows as yet.
ParallelOptions with_most_slots(ParallelOptions parallel, const ExpertPlacement* placement) {
  if (!placement || placement->shape().num_ranks == 1) return parallel;
  int most = 0;
  for (int rank = 1; rank < placement->shape().num_ranks; rank++)
    if (placement->num_slots(rank) > placement->num_slots(most)) most = rank;
  parallel.data_parallel_rank = most / parallel.tensor_parallel_size;
  parallel.tensor_parallel_rank = most % parallel.tensor_parallel_size;
  return parallel;
}

void plan_memory_of_all(const EngineOptions& engine, const ParallelOptions& parallel, CheckedCluster& checked) {
  const auto shows = [](const CheckedNode& node) { return node.report && !node.report->config_json.empty(); };
  const auto first = std::ranges::find_if(checked.nodes, shows);
  if (first == checked.nodes.end()) return;
  const Result<ModelConfig> config = parse_model_config(first->report->config_json, engine.model + "/config.json");
  if (!config) return;  // judge_model() has told
  const PlannedWeights weights(*config, target_of(config->quantization), engine.model + "/config.json");
  const auto refuse = [&](const Error& error) {  // the same on every node
    checked.findings.error("", error.message, "change the cluster's sizes; `check --plan` tries them out");
  };
  const int num_nodes = static_cast<int>(std::ranges::count_if(checked.nodes, &CheckedNode::num_ranks));
  int ranks_of_node = 1;
  for (const CheckedNode& node : checked.nodes) ranks_of_node = std::max(ranks_of_node, node.num_ranks);
  const auto survival = survival_of(parallel.survive, parallel, *config, ranks_of_node);
  if (!survival) return refuse(survival.error());
  // Of --survive auto the least: what a node has no room for, no rank has.
  const auto placement = plan_placement(parallel, *config, std::max(num_nodes, 1), survival->num_spare);
  if (!placement) return refuse(placement.error());
  for (CheckedNode& node : checked.nodes) {
    if (!node.report || node.num_ranks == 0) continue;
    const auto rank = plan_rank_memory(engine, with_most_slots(parallel, placement->get()), *config, weights,
                                       {.num_local_ranks = node.num_sharing,
                                        .num_threads = threads_of_rank(engine, node),
                                        .isa = highest_isa(engine.isa),
                                        .placement = *placement});
    if (!rank) return refuse(rank.error());
    plan_node_memory(engine, *config, *rank, node, checked.findings);
  }
}

}  // namespace

std::vector<NodeQuestion> questions_for(const ClusterFile& cluster, const std::vector<PlacedReplica>& replicas,
                                        const ParallelOptions& parallel, bool hash_everything) {
  std::vector<NodeQuestion> questions;
  for (const ClusterNode& node : cluster.nodes) {
    questions.push_back({.address = node.listen_address(),
                         .first_address = cluster.nodes[0].listen_address(),
                         .network_interface = parallel.network_interface,
                         .model = cluster.model,
                         .hash_everything = hash_everything});
  }
  for (const PlacedReplica& replica : replicas)
    if (replica.port != 0) questions[static_cast<size_t>(replica.node)].ports.push_back(replica.port);
  if (cluster.data_parallel_rpc_port != 0) questions[0].ports.push_back(cluster.data_parallel_rpc_port);
  return questions;
}

void judge_nodes(const EngineOptions& engine, const ParallelOptions& parallel, CheckedCluster& checked) {
  Findings& findings = checked.findings;
  plan_memory_of_all(engine, parallel, checked);
  for (const CheckedNode& node : checked.nodes) {
    if (!node.report) {
      findings.error(node.address, fmt::format("cannot be asked: {}", node.silence),
                     "try the same by hand: ssh ADDRESS cachalot --version (keys, known_hosts, `ssh` and `program` in "
                     "the file)");
      continue;
    }
    judge_network(node, checked.nodes.size() > 1, findings);
    judge_limits(node, findings);
    judge_clock(node, findings);
    judge_model(node, findings);
  }
  judge_alike(checked);
}

void judge_links(CheckedCluster& checked) {
  const LinkMatrix& links = *checked.links;
  std::vector<double> latencies, bandwidths;
  for (int from = 0; from < links.size; from++) {
    for (int to = 0; to < links.size; to++) {
      if (from == to) continue;
      latencies.push_back(links.at(from, to).microseconds);
      bandwidths.push_back(links.at(from, to).bytes_per_second);
    }
  }
  const double usual_latency = median(latencies), usual_bandwidth = median(bandwidths);
  for (int from = 0; from < links.size; from++) {
    for (int to = 0; to < links.size; to++) {
      const LinkFigure& link = links.at(from, to);
      if (from == to) continue;
      const bool slow = link.bytes_per_second < kSlowLink * usual_bandwidth;
      if (!slow && link.microseconds < kLateLink * usual_latency) continue;
      checked.findings.warning(
          checked.nodes[static_cast<size_t>(from)].address,
          fmt::format("its link to {} has {:.2f} GB/s and {:.1f} us, where {:.2f} GB/s and {:.1f} us are usual here",
                      checked.nodes[static_cast<size_t>(to)].address, link.bytes_per_second / 1e9, link.microseconds,
                      usual_bandwidth / 1e9, usual_latency),
          "every step waits for the slowest link: look at its cable, port and interface on both ends");
    }
  }
}

}  // namespace cachalot
