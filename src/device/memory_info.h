// How much memory this process may take.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace cachalot {

struct MemoryInfo {
  size_t total_bytes = 0;  // the node's, or the cgroup's limit if that is smaller
  std::string source;      // "node", or the cgroup file that set the limit
};

MemoryInfo memory_info();

// Of a process, in its own pid namespace; 0: there is none. Cheap to ask for, unlike the proportional size, for which
// the system walks all pages.
int64_t resident_bytes(int64_t pid);

}  // namespace cachalot
