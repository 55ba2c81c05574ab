#include "cluster/cluster_state.h"

#include <algorithm>
#include <boost/json.hpp>

namespace cachalot {
namespace {

namespace json = boost::json;

json::object describe(const MemberState& member) {
  return {{"label", member.label},
          {"node", member.node},
          {"url", member.url},
          {"log", member.log},
          {"state", member.state},
          {"up", member.up},
          {"ready", member.ready},
          {"pid", member.pid},
          {"restarts", member.restarts},
          {"loss", member.loss},
          {"percentages", json::value_from(member.percentages)}};
}

json::array describe(const std::vector<MemberState>& members) {
  json::array described;
  for (const MemberState& member : members) described.push_back(describe(member));
  return described;
}

std::string text_of(const json::object& object, const char* key) {
  return json::value_to<std::string>(object.at(key));
}

std::vector<MemberState> read_members(const json::value& list) {
  std::vector<MemberState> members;
  for (const json::value& value : list.as_array()) {
    const json::object& object = value.as_object();
    members.push_back({.label = text_of(object, "label"),
                       .node = text_of(object, "node"),
                       .url = text_of(object, "url"),
                       .log = text_of(object, "log"),
                       .state = text_of(object, "state"),
                       .up = object.at("up").as_bool(),
                       .ready = object.at("ready").as_bool(),
                       .pid = object.at("pid").to_number<pid_t>(),
                       .restarts = object.at("restarts").to_number<int>(),
                       .loss = text_of(object, "loss"),
                       .percentages = json::value_to<std::vector<int>>(object.at("percentages"))});
  }
  return members;
}

}  // namespace

bool ClusterState::ready() const {
  return std::ranges::all_of(replicas, &MemberState::ready) && std::ranges::all_of(router, &MemberState::ready);
}

std::string to_json(const ClusterState& state) {
  return json::serialize(json::object{{"name", state.name},
                                      {"file", state.file},
                                      {"model", state.model},
                                      {"started", state.started},
                                      {"data_parallel_size", state.data_parallel_size},
                                      {"tensor_parallel_size", state.tensor_parallel_size},
                                      {"enable_expert_parallel", state.enable_expert_parallel},
                                      {"drain_seconds", state.drain_seconds},
                                      {"replicas", describe(state.replicas)},
                                      {"router", describe(state.router)}}) +
         "\n";
}

Result<ClusterState> parse_cluster_state(const std::string& text, const std::string& path) {
  try {
    const json::value parsed = json::parse(text);
    const json::object& object = parsed.as_object();
    return ClusterState{.name = text_of(object, "name"),
                        .file = text_of(object, "file"),
                        .model = text_of(object, "model"),
                        .started = object.at("started").to_number<int64_t>(),
                        .data_parallel_size = object.at("data_parallel_size").to_number<int>(),
                        .tensor_parallel_size = object.at("tensor_parallel_size").to_number<int>(),
                        .enable_expert_parallel = object.at("enable_expert_parallel").as_bool(),
                        .drain_seconds = object.at("drain_seconds").to_number<int>(),
                        .replicas = read_members(object.at("replicas")),
                        .router = read_members(object.at("router"))};
  } catch (const std::exception& exception) {
    return make_error(ErrorCode::kCorrupt, "{} is not the state of a cluster: {}", path, exception.what());
  }
}

}  // namespace cachalot
