#include "cluster/cluster_load.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <string>

#include "http/client.h"

namespace cachalot {
namespace {

constexpr std::chrono::seconds kPatience{3};

std::optional<ServerState> ask(const http::Client& client, const std::string& server, size_t most_ranks) {
  const Result<http::Url> url = http::parse_url(server + "/state");
  if (!url) return std::nullopt;
  const Result<http::Response> response = client.fetch({.url = *url});
  if (!response || response->status != 200) return std::nullopt;
  Result<ServerState> state = parse_server_state(response->body, most_ranks);
  return state ? std::optional(std::move(*state)) : std::nullopt;
}

}  // namespace

std::vector<std::optional<ServerState>> collect_states(const ClusterState& state) {
  const http::IoThreads threads(1);
  const http::Client client(threads, {.connect_timeout = kPatience, .idle_timeout = kPatience});
  std::vector<std::future<std::optional<ServerState>>> asked;
  for (const MemberState& replica : state.replicas)
    asked.push_back(std::async(std::launch::async, ask, std::cref(client), replica.url,
                               static_cast<size_t>(std::max(state.tensor_parallel_size, 0))));
  std::vector<std::optional<ServerState>> states;
  for (auto& answer : asked) states.push_back(answer.get());
  return states;
}

}  // namespace cachalot
