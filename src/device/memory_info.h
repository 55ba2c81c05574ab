// How much memory this process may take.
#pragma once

#include <cstddef>
#include <string>

namespace cachalot {

struct MemoryInfo {
  size_t total_bytes = 0;  // the node's, or the cgroup's limit if that is smaller
  std::string source;      // "node", or the cgroup file that set the limit
};

MemoryInfo memory_info();

}  // namespace cachalot
