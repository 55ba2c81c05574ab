#include "device/memory_info.h"

#include <unistd.h>

#include <fstream>

#include "base/text.h"

namespace cachalot {
namespace {

// The number in a cgroup file; 0 if there is none ("max", or no such file).
size_t read_limit(const std::string& path) {
  std::ifstream file(path);
  std::string text;
  return file >> text ? leading_number<size_t>(text) : 0;
}

// This process's own path below a cgroup hierarchy: the line "0::/path" (version 2) or "N:...memory...:/path" (version
// 1).
std::string cgroup_path(bool version2) {
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (version2 ? controllers.empty() : controllers.find("memory") != std::string::npos)
      return line.substr(second + 1);
  }
  return "/";
}

}  // namespace

MemoryInfo memory_info() {
  MemoryInfo info{static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGE_SIZE)), "node"};
  const auto consider = [&](const std::string& root, std::string path, const char* name) {
    // A limit anywhere up the tree holds.
    for (;;) {
      const std::string file = root + (path == "/" ? "" : path) + "/" + name;
      const size_t limit = read_limit(file);
      if (limit > 0 && limit < info.total_bytes) info = {limit, file};
      if (path.empty() || path == "/") break;
      path = path.substr(0, path.rfind('/'));
    }
  };
  consider("/sys/fs/cgroup", cgroup_path(true), "memory.max");
  consider("/sys/fs/cgroup/memory", cgroup_path(false), "memory.limit_in_bytes");
  return info;
}

int64_t resident_bytes(int64_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/statm");
  int64_t total = 0, resident = 0;
  return file >> total >> resident ? resident * sysconf(_SC_PAGESIZE) : 0;
}

}  // namespace cachalot
