#pragma once

#include <cstdint>
#include <string>

#include "base/error.h"

namespace cachalot {

// Which node a process runs on. Two processes are on one node, and may share memory, if they run under the same kernel
// and in the same network namespace: abstract sockets, by which shared memory is handed over, end at that namespace.
struct NodeId {
  std::string boot_id;         // of the running kernel
  uint64_t net_namespace = 0;  // inode; unique under one kernel

  bool operator==(const NodeId&) const = default;

  template <class Archive, class Self>
  static void fields(Archive& archive, Self& self) {
    archive(self.boot_id, self.net_namespace);
  }
};

Result<NodeId> this_node();
std::string this_host();  // its name, for people

}  // namespace cachalot
