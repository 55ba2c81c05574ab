#pragma once

#include <string>
#include <vector>

#include "processes/served_group.h"

namespace cachalot::test {

// Nodes on this machine: network namespaces that a bridge joins, in the network namespace of this process, which should
// be its own (unshare -Urnm): they go with it.
class NetworkNodes {
 public:
  explicit NetworkNodes(int num_nodes);  // aborts where namespaces or `ip` are not to be had

  const std::vector<NetworkNode>& nodes() const { return nodes_; }
  void cut(int node);  // nothing goes to it or comes from it any longer
  void mend(int node);

 private:
  std::vector<NetworkNode> nodes_;
};

}  // namespace cachalot::test
