#include "cluster/status_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <ctime>

#include "base/progress.h"

namespace cachalot {
namespace {

namespace json = boost::json;

std::string age_text(int64_t seconds) {
  if (seconds < 120) return fmt::format("{} s", seconds);
  if (seconds < 7200) return fmt::format("{} min", seconds / 60);
  return fmt::format("{} h {} min", seconds / 3600, seconds / 60 % 60);
}

std::string share_text(double part, double whole) {
  return whole > 0 ? fmt::format("{:.0f}%", 100 * part / whole) : "-";
}

// Experts are numbered over the ranks that share them out: all of the group.
int num_experts_of_all(const std::vector<ReplicaLoad>& loads) {
  int num_experts = 0;
  for (const ReplicaLoad& load : loads) {
    for (const RankLoad& rank : load.ranks) num_experts = std::max(num_experts, rank.first_expert + rank.num_experts);
  }
  return num_experts;
}

std::string experts_text(const RankLoad& rank, int num_experts) {
  if (rank.num_experts == 0) return "a part of all";
  return fmt::format("{}-{} of {}", rank.first_expert, rank.first_expert + rank.num_experts - 1, num_experts);
}

// Ranks of replicas that run apart are numbered from 0 in each; here they go on.
int number_of(const ClusterState& state, size_t replica, const RankLoad& rank) {
  return static_cast<int>(replica) * state.tensor_parallel_size + rank.rank % state.tensor_parallel_size;
}

std::string replicas_text(const ClusterState& state, const std::vector<ReplicaLoad>& loads) {
  std::vector<std::vector<std::string>> rows{
      {"", "node", "server", "state", "running", "waiting", "KV used", "restarts"}};
  for (size_t idx = 0; idx < state.replicas.size(); idx++) {
    const MemberState& member = state.replicas[idx];
    const ReplicaLoad& load = loads[idx];
    const bool known = !load.ranks.empty();
    rows.push_back({member.label, member.node, member.url, member.state, known ? std::to_string(load.running) : "-",
                    known ? std::to_string(load.waiting) : "-", known ? share_text(load.kv_usage, 1) : "-",
                    std::to_string(member.restarts)});
  }
  for (const MemberState& router : state.router) {
    const bool waits = router.state == "ready" && !router.ready;
    rows.push_back({router.label, router.node, router.url, waits ? "no server is ready" : router.state, "-", "-", "-",
                    std::to_string(router.restarts)});
  }
  return table_text(rows);
}

json::object describe(const RankLoad& rank, int number) {
  return {{"rank", number},
          {"host", rank.host},
          {"pid", rank.pid},
          {"first_expert", rank.first_expert},
          {"num_experts", rank.num_experts},
          {"weight_bytes", rank.weight_bytes},
          {"resident_bytes", rank.resident_bytes},
          {"steps", rank.steps},
          {"steps_without_rows", rank.steps_without_rows},
          {"seconds_in_steps", rank.seconds_in_steps},
          {"seconds_waiting", rank.seconds_waiting}};
}

}  // namespace

std::string table_text(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t column = 0; column < row.size(); column++)
      widths[column] = std::max(widths[column], row[column].size());
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t column = 0; column < row.size(); column++)
      line += fmt::format("{:<{}}", row[column], widths[column] + 2);
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string rank_map_text(const ClusterState& state, const std::vector<ReplicaLoad>& loads) {
  const int num_experts = num_experts_of_all(loads);
  std::vector<std::vector<std::string>> rows{
      {"rank", "replica", "node", "pid", "experts", "weights", "memory", "steps", "without rows", "waiting"}};
  for (size_t replica = 0; replica < loads.size(); replica++) {
    for (const RankLoad& rank : loads[replica].ranks) {
      rows.push_back({std::to_string(number_of(state, replica, rank)), std::to_string(replica),
                      fmt::format("{} ({})", state.replicas[replica].node, rank.host), std::to_string(rank.pid),
                      experts_text(rank, num_experts), bytes_text(static_cast<uint64_t>(rank.weight_bytes)),
                      bytes_text(static_cast<uint64_t>(rank.resident_bytes)), fmt::format("{:.0f}", rank.steps),
                      share_text(rank.steps_without_rows, rank.steps),
                      share_text(rank.seconds_waiting, rank.seconds_in_steps)});
    }
  }
  return rows.size() > 1 ? table_text(rows) : std::string();
}

std::string status_text(const ClusterState& state, const std::vector<ReplicaLoad>& loads) {
  std::string text =
      fmt::format("cluster {}{}: model {}, {} x {} ranks{}, up for {}\n\n{}", state.name,
                  state.file.empty() ? "" : " (" + state.file + ")", state.model, state.data_parallel_size,
                  state.tensor_parallel_size, state.enable_expert_parallel ? ", experts over all of them" : "",
                  age_text(time(nullptr) - state.started), replicas_text(state, loads));
  for (const auto* members : {&state.replicas, &state.router}) {
    for (const MemberState& member : *members) {
      if (!member.loss.empty())
        text += fmt::format("{}: last lost when one of its group {}\n", member.label, member.loss);
    }
  }
  const std::string ranks = rank_map_text(state, loads);
  return ranks.empty() ? text : text + "\n" + ranks;
}

std::string status_json(const ClusterState& state, const std::vector<ReplicaLoad>& loads) {
  json::array replicas;
  for (size_t replica = 0; replica < loads.size(); replica++) {
    json::array ranks;
    for (const RankLoad& rank : loads[replica].ranks) ranks.push_back(describe(rank, number_of(state, replica, rank)));
    replicas.push_back(json::object{{"running", loads[replica].running},
                                    {"waiting", loads[replica].waiting},
                                    {"kv_usage", loads[replica].kv_usage},
                                    {"ranks", std::move(ranks)}});
  }
  return json::serialize(json::object{{"state", json::parse(to_json(state))}, {"loads", std::move(replicas)}}) + "\n";
}

}  // namespace cachalot
