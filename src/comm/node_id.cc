#include "comm/node_id.h"

#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/file.h"

namespace cachalot {

Result<NodeId> this_node() {
  ASSIGN_OR_RETURN(std::string boot_id, read_file("/proc/sys/kernel/random/boot_id"));
  while (!boot_id.empty() && boot_id.back() == '\n') boot_id.pop_back();

  const char* path = "/proc/self/ns/net";
  struct stat info{};
  if (stat(path, &info) != 0) {
    return make_error(ErrorCode::kIo, "{} tells the network namespace and cannot be read: {}", path, strerror(errno));
  }
  return NodeId{.boot_id = std::move(boot_id), .net_namespace = info.st_ino};
}

std::string this_host() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

}  // namespace cachalot
