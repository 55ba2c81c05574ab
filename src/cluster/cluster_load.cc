#include "cluster/cluster_load.h"

#include <cstdlib>
#include <future>

#include "base/text.h"
#include "http/client.h"

namespace cachalot {
namespace {

constexpr std::chrono::seconds kPatience{3};

ReplicaLoad ask(const http::Client& client, const std::string& server) {
  const Result<http::Url> url = http::parse_url(server + "/metrics");
  if (!url) return {};
  const Result<http::Response> response = client.fetch({.url = *url});
  return response && response->status == 200 ? read_replica_load(MetricsText::parse(response->body)) : ReplicaLoad{};
}

}  // namespace

ReplicaLoad read_replica_load(const MetricsText& metrics) {
  ReplicaLoad load{.running = static_cast<int>(metrics.value("vllm:num_requests_running")),
                   .waiting = static_cast<int>(metrics.value("vllm:num_requests_waiting")),
                   .kv_usage = metrics.value("vllm:kv_cache_usage_perc")};
  for (const MetricsText::Sample& info : metrics.samples("cachalot:rank_info")) {
    const std::string& rank = info.label("rank");
    const MetricsText::Labels of_rank{{"rank", rank}};
    RankLoad& of = load.ranks.emplace_back();
    of.rank = leading_number<int>(rank);
    of.host = info.label("host");
    of.pid = leading_number<pid_t>(info.label("pid"));
    of.first_expert = leading_number<int>(info.label("first_expert"));
    of.num_experts = static_cast<int>(metrics.value("cachalot:rank_experts", of_rank));
    of.weight_bytes = metrics.value("cachalot:rank_weight_bytes", of_rank);
    of.resident_bytes = metrics.value("cachalot:rank_resident_bytes", of_rank);
    of.steps = metrics.value("cachalot:steps_total", of_rank);
    of.steps_without_rows = metrics.value("cachalot:steps_without_rows_total", of_rank);
    for (const char* part : {"compute", "exchange", "waiting"})
      of.seconds_in_steps += metrics.value("cachalot:step_seconds_total", {{"rank", rank}, {"part", part}});
    of.seconds_waiting = metrics.value("cachalot:step_seconds_total", {{"rank", rank}, {"part", "waiting"}});
  }
  return load;
}

std::vector<ReplicaLoad> collect_loads(const ClusterState& state) {
  const http::IoThreads threads(1);
  const http::Client client(threads, {.connect_timeout = kPatience, .idle_timeout = kPatience});
  std::vector<std::future<ReplicaLoad>> asked;
  for (const MemberState& replica : state.replicas)
    asked.push_back(std::async(std::launch::async, ask, std::cref(client), replica.url));
  std::vector<ReplicaLoad> loads;
  for (std::future<ReplicaLoad>& load : asked) loads.push_back(load.get());
  return loads;
}

}  // namespace cachalot
