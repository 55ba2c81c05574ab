#include "comm/membership/member.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/file.h"
#include "base/text.h"

namespace cachalot {

Result<NodeId> this_node() {
  ASSIGN_OR_RETURN(std::string boot_id, read_file("/proc/sys/kernel/random/boot_id"));
  while (!boot_id.empty() && boot_id.back() == '\n') boot_id.pop_back();

  const char* path = "/proc/self/ns/net";
  struct stat info{};
  if (stat(path, &info) != 0)
    return make_error(ErrorCode::kIo, "{} tells the network namespace and cannot be read: {}", path, strerror(errno));
  return NodeId{.boot_id = std::move(boot_id), .net_namespace = info.st_ino};
}

std::string this_host() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

std::string Member::name() const {
  return fmt::format("rank {} ({}host {}, pid {})", rank, label.empty() ? "" : name_text(label) + ", ", name_text(host),
                     pid);
}

std::string Activity::text() const {
  switch (phase) {
    case Phase::kLoading:
      return fmt::format("loading ({}%)", percent);
    case Phase::kReady:
      return "loaded and waiting for the others";
    case Phase::kIdle:
      return step == 0 ? "idle" : fmt::format("idle after step {}", step);
    case Phase::kStep:
      return fmt::format("in step {}", step);
  }
  return "doing what this version does not know";
}

CoreSharers core_sharers(const std::vector<Member>& members, int rank) {
  const Member& own = members[rank];
  CoreSharers sharers;
  for (const Member& member : members) {
    const bool meets =
        member.node == own.node && std::ranges::find_first_of(member.cores, own.cores) != member.cores.end();
    if (!meets && member.rank != rank) continue;
    sharers.count++;
    if (member.rank < rank) sharers.place++;
  }
  return sharers;
}

std::string LostRank::message() const {
  const std::string did = doing ? fmt::format("; it was {}", doing->text()) : std::string();
  if (is_this_rank) return fmt::format("the others have given up this rank, {}: {}{}", name, cause, did);
  return fmt::format("{} is lost: {}{}", name, cause, did);
}

std::string rank_list(const std::vector<int>& ranks) {
  std::vector<std::string> parts;
  for (size_t first = 0; first < ranks.size();) {
    size_t last = first;
    while (last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1) ++last;
    if (last - first >= 2)
      parts.push_back(fmt::format("{}-{}", ranks[first], ranks[last]));
    else
      for (size_t i = first; i <= last; ++i) parts.push_back(fmt::to_string(ranks[i]));
    first = last + 1;
  }
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) text += i + 1 == parts.size() ? " and " : ", ";
    text += parts[i];
  }
  return text;
}

}  // namespace cachalot
