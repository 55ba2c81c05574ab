#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model_harness.h"
#include "processes/program.h"

namespace cachalot::test {

// A short model that takes no time to load.
std::string nano_folder();

// A network of its own on this machine: a network namespace with a name, and its address.
struct NetworkNode {
  std::string name, address;
};

struct ServedGroupOptions {
  std::string model = nano_folder();
  Layout layout{.dp_size = 2, .tp_size = 2};
  std::vector<std::string> more_flags;
  std::vector<NetworkNode> nodes;  // of each replica; none: all are on the loopback
};

// The replicas of one model, each started by `cachalot serve` as an operator would start them.
class ServedGroup {
 public:
  // Waits until every replica is ready; fails the test if one does not become so.
  explicit ServedGroup(const ServedGroupOptions& options);

  bool ready() const { return ports_.size() == replicas_.size(); }
  int num_replicas() const { return static_cast<int>(replicas_.size()); }
  int num_ranks() const { return layout_.num_ranks(); }
  Program& replica(int dp_rank) { return *replicas_[static_cast<size_t>(dp_rank)]; }
  uint16_t port(int dp_rank) const { return ports_[static_cast<size_t>(dp_rank)]; }
  // A replica's leader, or the process that it started for the rank.
  pid_t pid_of(int rank) const;
  std::string output() const;

 private:
  Layout layout_;
  std::vector<std::unique_ptr<Program>> replicas_;
  std::vector<uint16_t> ports_;
};

}  // namespace cachalot::test
