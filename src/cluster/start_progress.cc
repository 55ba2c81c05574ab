#include "cluster/start_progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "base/log.h"

namespace cachalot {
namespace {

std::string rank_text(int rank, int percentage, bool ready) {
  if (ready) return fmt::format("rank {} ready", rank);
  if (percentage == 0) return fmt::format("rank {} starts", rank);
  return percentage < 100 ? fmt::format("rank {} {}%", rank, percentage) : fmt::format("rank {} loaded", rank);
}

}  // namespace

std::vector<std::string> progress_lines(const ClusterState& state) {
  std::vector<std::string> lines;
  for (size_t replica = 0; replica < state.replicas.size(); replica++) {
    const MemberState& member = state.replicas[replica];
    std::string line = fmt::format("  {}  {}", member.label, member.url);
    for (size_t tp_rank = 0; tp_rank < member.percentages.size(); tp_rank++)
      line += "  " + rank_text(static_cast<int>(replica * member.percentages.size() + tp_rank),
                               member.percentages[tp_rank], member.up);
    lines.push_back(std::move(line));
  }
  for (const MemberState& router : state.router)
    lines.push_back(fmt::format("  {}     {}  {}", router.label, router.url,
                                router.ready ? "ready"
                                : router.up  ? "waits for servers"
                                             : "starting"));
  return lines;
}

StartProgress::StartProgress() : on_terminal_(isatty(STDOUT_FILENO) != 0) {}

void StartProgress::show(const ClusterState& state) {
  const std::vector<std::string> lines = progress_lines(state);
  const auto now = std::chrono::steady_clock::now();
  const auto pause = on_terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(2'000);
  if (now - last_ < pause && !state.ready()) return;
  last_ = now;
  on_terminal_ ? redraw(lines) : write_changes(lines, shown_.empty());
  shown_ = lines;
}

void StartProgress::redraw(const std::vector<std::string>& lines) {
  if (!shown_.empty()) log::print(stdout, "\033[{}A", shown_.size());
  for (const std::string& line : lines) log::print(stdout, "\r\033[K{}\n", line);
}

void StartProgress::write_changes(const std::vector<std::string>& lines, bool all) {
  for (size_t idx = 0; idx < lines.size(); idx++) {
    if (all || lines[idx] != shown_[idx]) log::print(stdout, "{}\n", lines[idx]);
  }
}

}  // namespace cachalot
