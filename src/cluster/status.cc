#include "cluster/status.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <ctime>
#include <string>

#include "base/progress.h"
#include "http/client.h"
#include "http/tls.h"

namespace cachalot {

namespace {

constexpr std::chrono::seconds kPatience{3};

}  // namespace

ServerStates collect_states(const ClusterState& state) {
  const http::IoThreads threads(1);
  const http::Client client(
      threads,
      {.connect_timeout = kPatience, .idle_timeout = kPatience, .tls = http::TlsContext::of_trusting_client()});
  std::vector<std::optional<http::Running<Result<http::Response>>>> asked;
  for (const MemberState& replica : state.replicas) {
    const Result<http::Url> url = http::parse_url(replica.url + "/state");
    asked.push_back(url ? std::optional(client.start({.url = *url})) : std::nullopt);
  }
  ServerStates states(asked.size());
  for (size_t idx = 0; idx < asked.size(); idx++) {
    if (!asked[idx]) continue;
    const Result<http::Response> answer = asked[idx]->wait();
    if (!answer || answer->status != 200) continue;
    if (auto parsed = parse_server_state(answer->body, static_cast<size_t>(std::max(state.tensor_parallel_size, 0))))
      states[idx] = std::move(*parsed);
  }
  return states;
}

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

// "8 of 256"; "5.3 of 16" where layers differ.
std::string experts_text(const RankReport& rank) {
  if (rank.moe_layers == 0) return "a part of all";
  const bool alike = rank.experts_held % rank.moe_layers == 0;
  return fmt::format("{:.{}f} of {}", rank.experts_of_layer(), alike ? 0 : 1, rank.num_experts);
}

// Of its steps' time; `seconds_waiting` is a part of it: until other ranks had done theirs.
double seconds_waiting(const RankReport& report) {
  return static_cast<double>(report.nanoseconds_waiting) * 1e-9;
}
double seconds_in_steps(const RankReport& report) {
  return seconds_waiting(report) +
         (static_cast<double>(report.nanoseconds_computing) + static_cast<double>(report.nanoseconds_exchanging)) *
             1e-9;
}

// Ranks of replicas that run apart are numbered from 0 in each; here they go on.
int number_of(const ClusterState& state, size_t replica, const StateOfRank& rank) {
  const int tp_size = std::max(state.tensor_parallel_size, 1);
  return static_cast<int>(replica) * tp_size + rank.rank % tp_size;
}

// What a group's supervisor says, and while it starts what the server itself does.
std::string state_text(const MemberState& member, const std::optional<ServerState>& server) {
  if (!server || member.state != "starting") return member.state;
  const bool loads = server->phase == RankPhase::kLoading;
  return loads ? fmt::format("loading {}%", server->percent()) : std::string(name_of(server->phase));
}

std::string replicas_text(const ClusterState& state, const ServerStates& servers) {
  std::vector<std::vector<std::string>> rows{
      {"", "node", "server", "state", "running", "waiting", "KV used", "restarts"}};
  for (size_t idx = 0; idx < state.replicas.size(); idx++) {
    const MemberState& member = state.replicas[idx];
    const std::optional<ServerState>& server = servers[idx];
    const bool serves = server && (server->phase == RankPhase::kReady || server->phase == RankPhase::kDraining);
    rows.push_back({member.label, member.node, member.url, state_text(member, server),
                    serves ? std::to_string(server->num_running) : "-",
                    serves ? std::to_string(server->num_waiting) : "-",
                    serves ? fmt::format("{}%", server->kv_usage_percent) : "-", std::to_string(member.restarts)});
  }
  for (const MemberState& router : state.router) {
    const bool waits = router.state == "ready" && !router.ready;
    rows.push_back({router.label, router.node, router.url, waits ? "no server is ready" : router.state, "-", "-", "-",
                    std::to_string(router.restarts)});
  }
  return table_text(rows);
}

json::object describe(const StateOfRank& rank, int number) {
  json::object object{{"rank", number},
                      {"host", rank.host},
                      {"pid", rank.pid},
                      {"phase", name_of(rank.phase)},
                      {"percent", rank.percent}};
  if (!rank.report) return object;
  object["experts_of_layer"] = rank.report->experts_of_layer();
  object["num_experts"] = rank.report->num_experts;
  object["expert_slots"] = rank.report->expert_slots;
  object["placement_version"] = rank.report->placement_version;
  object["placement_hash"] = rank.report->placement_hash;
  object["placement_switches"] = rank.report->placement_switches;
  object["experts_moved"] = rank.report->experts_moved;
  object["failed_moves"] = rank.report->failed_moves;
  object["weight_bytes"] = rank.report->weight_bytes;
  object["resident_bytes"] = rank.resident_bytes;
  object["steps"] = rank.report->steps;
  object["steps_without_rows"] = rank.report->steps_without_rows;
  object["seconds_in_steps"] = seconds_in_steps(*rank.report);
  object["seconds_waiting"] = seconds_waiting(*rank.report);
  return object;
}

// Nothing where experts never moved.
std::string placement_text(const ServerStates& servers) {
  uint64_t switches = 0, moved = 0, failed = 0;
  int64_t version = 0;
  uint64_t balancedness = 0;
  for (const std::optional<ServerState>& server : servers) {
    for (const StateOfRank& rank : server ? server->ranks : std::vector<StateOfRank>()) {
      if (!rank.report) continue;
      version = std::max(version, rank.report->placement_version);
      switches = std::max(switches, rank.report->placement_switches);
      failed = std::max(failed, rank.report->failed_moves);
      balancedness = std::max(balancedness, rank.report->balancedness_permille);
      moved += rank.report->experts_moved;
    }
  }
  if (switches == 0 && failed == 0 && balancedness == 0) return "";
  return fmt::format("experts: placement {}, {} moved in {} switches{}{}\n", version, moved, switches,
                     failed > 0 ? fmt::format(", {} given up (see the logs)", failed) : "",
                     balancedness > 0 ? fmt::format("; the busiest rank has {:.2f} times the mean rows",
                                                    1000 / static_cast<double>(balancedness))
                                      : "");
}

std::string rank_text(int rank, int percentage, bool ready) {
  if (ready) return fmt::format("rank {} ready", rank);
  if (percentage == 0) return fmt::format("rank {} starts", rank);
  return percentage < 100 ? fmt::format("rank {} {}%", rank, percentage) : fmt::format("rank {} loaded", rank);
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

std::vector<std::string> progress_lines(const ClusterState& state) {
  std::vector<std::string> lines;
  int rank = 0;
  for (const MemberState& member : state.replicas) {
    std::string line = fmt::format("  {}  {}", member.label, member.url);
    for (const int percentage : member.percentages) line += "  " + rank_text(rank++, percentage, member.up);
    lines.push_back(std::move(line));
  }
  for (const MemberState& router : state.router)
    lines.push_back(fmt::format("  {}     {}  {}", router.label, router.url,
                                router.ready ? "ready"
                                : router.up  ? "waits for servers"
                                             : "starting"));
  return lines;
}

std::string rank_map_text(const ClusterState& state, const ServerStates& servers) {
  std::vector<std::vector<std::string>> rows{
      {"rank", "replica", "node", "pid", "experts", "weights", "memory", "steps", "without rows", "waiting"}};
  for (size_t replica = 0; replica < servers.size(); replica++) {
    if (!servers[replica]) continue;
    for (const StateOfRank& rank : servers[replica]->ranks) {
      if (!rank.report) continue;
      const RankReport& report = *rank.report;
      rows.push_back({std::to_string(number_of(state, replica, rank)), std::to_string(replica),
                      fmt::format("{} ({})", state.replicas[replica].node, rank.host), std::to_string(rank.pid),
                      experts_text(report), bytes_text(report.weight_bytes),
                      bytes_text(static_cast<uint64_t>(std::max<int64_t>(rank.resident_bytes, 0))),
                      std::to_string(report.steps),
                      share_text(static_cast<double>(report.steps_without_rows), static_cast<double>(report.steps)),
                      share_text(seconds_waiting(report), seconds_in_steps(report))});
    }
  }
  return rows.size() > 1 ? table_text(rows) : std::string();
}

std::string status_text(const ClusterState& state, const ServerStates& servers) {
  std::string text =
      fmt::format("cluster {}{}: model {}, {} x {} ranks{}, up for {}\n\n{}", state.name,
                  state.file.empty() ? "" : " (" + state.file + ")", state.model, state.data_parallel_size,
                  state.tensor_parallel_size, state.enable_expert_parallel ? ", experts over all of them" : "",
                  age_text(time(nullptr) - state.started), replicas_text(state, servers));
  for (const auto* members : {&state.replicas, &state.router}) {
    for (const MemberState& member : *members) {
      if (!member.loss.empty())
        text += fmt::format("{}: last lost when one of its group {}\n", member.label, member.loss);
    }
  }
  const std::string ranks = rank_map_text(state, servers);
  return ranks.empty() ? text : text + "\n" + ranks + placement_text(servers);
}

std::string rates_text(const ServerStates& before, const ServerStates& now, double seconds) {
  uint64_t num_prompt = 0, num_generated = 0;
  bool is_known = false;
  for (size_t idx = 0; idx < std::min(before.size(), now.size()); idx++) {
    if (!before[idx] || !now[idx] || !before[idx]->counts || !now[idx]->counts) continue;
    const ServerCounts &old = *before[idx]->counts, &counts = *now[idx]->counts;
    if (counts.prompt_tokens < old.prompt_tokens || counts.generation_tokens < old.generation_tokens) continue;
    is_known = true;
    num_prompt += counts.prompt_tokens - old.prompt_tokens;
    num_generated += counts.generation_tokens - old.generation_tokens;
  }
  if (!is_known || seconds <= 0) return {};
  return fmt::format("prompts {:.1f} tokens/s, answers {:.1f} tokens/s\n", static_cast<double>(num_prompt) / seconds,
                     static_cast<double>(num_generated) / seconds);
}

std::string terminal_page(std::string_view text, int num_rows, int num_columns) {
  constexpr std::string_view kHome = "\x1b[H", kRestOfLine = "\x1b[K", kRestOfPage = "\x1b[J";
  std::vector<std::string_view> lines;
  for (; !text.empty(); text.remove_prefix(std::min(text.find('\n'), text.size() - 1) + 1))
    lines.push_back(text.substr(0, text.find('\n')));
  const auto most = static_cast<size_t>(std::max(num_rows, 1));
  std::string last;
  if (lines.size() > most) {
    last = fmt::format("... and {} more lines; a taller window shows them", lines.size() - most + 1);
    lines.resize(most);
    lines.back() = last;
  }
  std::string page(kHome);
  for (size_t idx = 0; idx < lines.size(); idx++) {
    int column = 0;
    for (const char byte : lines[idx]) {
      const bool begins_letter = (static_cast<unsigned char>(byte) & 0xc0) != 0x80;
      if (begins_letter && ++column > num_columns) break;
      page += byte;
    }
    page += kRestOfLine;
    if (idx + 1 < lines.size()) page += '\n';
  }
  return page.append(kRestOfPage);
}

std::string status_json(const ClusterState& state, const ServerStates& servers) {
  json::array replicas;
  for (size_t replica = 0; replica < servers.size(); replica++) {
    const ServerState server = servers[replica].value_or(ServerState{});
    json::array ranks;
    for (const StateOfRank& rank : server.ranks) ranks.push_back(describe(rank, number_of(state, replica, rank)));
    replicas.push_back(json::object{{"phase", servers[replica] ? json::value(name_of(server.phase)) : json::value()},
                                    {"running", server.num_running},
                                    {"waiting", server.num_waiting},
                                    {"kv_usage_percent", server.kv_usage_percent},
                                    {"ranks", std::move(ranks)}});
  }
  return json::serialize(json::object{{"state", json::parse(to_json(state))}, {"loads", std::move(replicas)}}) + "\n";
}

}  // namespace cachalot
