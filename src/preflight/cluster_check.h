#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "config/cluster_file.h"
#include "config/cluster_layout.h"
#include "config/options.h"
#include "engine/memory_plan.h"
#include "preflight/link_matrix.h"
#include "preflight/node_report.h"

namespace cachalot {

enum class Severity { kWarning, kError };

// Something that keeps a cluster from starting (an error) or from doing well (a warning), and what to do. `what`
// and `advice` may hold words of another node.
struct Finding {
  Severity severity = Severity::kError;
  std::string where;  // a node's address; empty: the cluster
  std::string what, advice;
};

class Findings {
 public:
  void error(std::string where, std::string_view what, std::string_view advice) {
    all_.push_back({Severity::kError, std::move(where), escaped(what), escaped(advice)});
  }
  void warning(std::string where, std::string_view what, std::string_view advice) {
    all_.push_back({Severity::kWarning, std::move(where), escaped(what), escaped(advice)});
  }
  const std::vector<Finding>& all() const { return all_; }
  int count(Severity severity) const {
    int number = 0;
    for (const Finding& finding : all_) number += finding.severity == severity;
    return number;
  }

 private:
  std::vector<Finding> all_;
};

// A node as it was found.
struct CheckedNode {
  std::string address;
  int num_ranks = 0;                 // that are to run there
  int num_sharing = 0;               // that share its machine's memory and cores: more, where nodes are one machine
  std::optional<NodeReport> report;  // none: it did not answer
  std::string silence;               // why
  double clock_difference = 0;       // seconds that it is ahead of this machine
  double clock_uncertainty = 0;
  std::optional<MemoryPlan> memory;  // of each of its ranks
};

struct CheckedCluster {
  std::vector<CheckedNode> nodes;
  std::optional<LinkMatrix> links;  // between the nodes, in their order
  Findings findings;
};

// What every node is asked.
std::vector<NodeQuestion> questions_for(const ClusterFile& cluster, const std::vector<PlacedReplica>& replicas,
                                        const ParallelOptions& parallel, bool hash_everything);

struct ClusterCheckOptions {
  ClusterFile cluster;
  std::vector<PlacedReplica> replicas;
  EngineOptions engine;      // of its servers
  ParallelOptions parallel;  // of the first
  std::string program;       // of this process
  bool hash_everything = false;
};

// Asks all nodes, measures the links between them, and judges. To be called by the main thread.
// Leaves nothing behind. The error: this machine cannot ask at all.
Result<CheckedCluster> check_cluster(const ClusterCheckOptions& options);

// Plans each node's memory by the config.json that the first node with a model has shown, and judges what was found.
void judge_nodes(const EngineOptions& engine, const ParallelOptions& parallel, CheckedCluster& checked);
// What the links say.
void judge_links(CheckedCluster& checked);

// Tables and findings, for people and for programs.
std::string check_text(const CheckedCluster& checked);
std::string check_json(const CheckedCluster& checked);

}  // namespace cachalot
