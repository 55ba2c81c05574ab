#include "router/file_limit.h"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace cachalot::router {

namespace {

constexpr rlim_t kOtherFiles = 128;  // logs, event descriptors, health questions
constexpr rlim_t kMostConnections = 32'768;
constexpr rlim_t kFewestConnections = 16;

}  // namespace

Result<int> fit_connections(int wanted) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
    return make_error(ErrorCode::kIo, "the limit of open files cannot be read: {}", std::strerror(errno));
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  getrlimit(RLIMIT_NOFILE, &limit);
  const rlim_t room = std::min(kMostConnections, limit.rlim_cur < kOtherFiles ? 0 : (limit.rlim_cur - kOtherFiles) / 2);
  const rlim_t needed = wanted == 0 ? kFewestConnections : static_cast<rlim_t>(wanted);
  const rlim_t fitting = wanted == 0 ? room : limit.rlim_cur < kOtherFiles ? 0 : (limit.rlim_cur - kOtherFiles) / 2;
  if (needed > fitting)
    return make_parameter_error(
        "max-connections",
        "{} connections of clients, and as many to replicas, need {} open files, but only {} are "
        "allowed (ulimit -Hn); raise that, or give --max-connections {}",
        needed, 2 * needed + kOtherFiles, limit.rlim_cur, fitting);
  return static_cast<int>(wanted == 0 ? room : needed);
}

}  // namespace cachalot::router
