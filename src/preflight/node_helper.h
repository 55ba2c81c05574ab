#pragma once

#include <boost/describe/class.hpp>
#include <chrono>
#include <string>
#include <vector>

#include "base/error.h"
#include "cluster/commands.h"
#include "config/cluster_file.h"

namespace cachalot {

// What a helper on a node says begins with this, on a line of its own.
inline constexpr std::string_view kAnswerMark = "cachalot-answer ";

// The end of a helper on a node.
struct NodeAnswer {
  std::string text;           // behind the mark; empty if there was none
  std::string error;          // why there was none, and what it printed; empty if it answered
  double unix_seconds = 0;    // of this machine, when it was seen
  double seconds_to_see = 0;  // at most, since it was given
};

// Runs `cachalot arguments[i]` on the i-th node, all at once, by the cluster's launcher, and waits until all have ended
// or `patience` is over. Whatever still runs then is ended, there as here. To be called by the main thread.
Result<std::vector<NodeAnswer>> run_on_nodes(const ClusterFile& cluster, const std::string& program,
                                             const std::vector<Words>& arguments, std::chrono::seconds patience);

// --- What the checking machine has other nodes do: `cachalot check --answer QUESTION` there. Answers go to the
// standard output behind kAnswerMark.

// This rank among one a node, to measure the links.
struct LinkQuestion {
  int rank = 0, size = 1;
  std::string host;  // of the first node
  int port = 0;
  std::string network_interface, group_secret_file;
};
BOOST_DESCRIBE_STRUCT(LinkQuestion, (), (rank, size, host, port, network_interface, group_secret_file))

// Answers a question that the checking machine made: a NodeQuestion or a LinkQuestion as JSON.
Status answer_inspection(const std::string& question);
Status answer_links(const std::string& question);

}  // namespace cachalot
