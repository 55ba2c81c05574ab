#include "config/cluster_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <string_view>

#include "base/file.h"
#include "config/yaml_keys.h"

namespace cachalot {
namespace {

namespace fs = std::filesystem;

constexpr int kMostDevices = 4096, kMostReplicas = 4096, kMostRanks = 1024;

// Flags of `serve` that are no business of the section `serve`.
constexpr std::string_view kTopLevelFlags[] = {"model",
                                               "served-model-name",
                                               "port",
                                               "data-parallel-size",
                                               "data-parallel-rpc-port",
                                               "tensor-parallel-size",
                                               "enable-expert-parallel",
                                               "drain-seconds"};
constexpr std::string_view kDerivedFlags[] = {"host",           "data-parallel-rank",   "data-parallel-address",
                                              "rank-board",     "tensor-parallel-rank", "visible-devices",
                                              "wait-on-failure"};
constexpr std::string_view kDerivedRouterFlags[] = {"server-urls", "model", "drain-seconds"};

template <size_t size>
bool is_among(const std::string& name, const std::string_view (&names)[size]) {
  return std::ranges::find(names, name) != std::end(names);
}

// All keys of a section that the caller has not asked for are flags.
std::vector<FlagSetting> read_flags(YamlKeys& keys, const std::vector<std::string>& own_keys) {
  std::vector<FlagSetting> flags;
  for (const std::string& name : keys.keys()) {
    if (std::ranges::find(own_keys, name) != own_keys.end()) continue;
    FlagSetting flag{.name = name, .line = keys.find(name).Mark().line + 1};
    keys.read(name, flag.values);
    flags.push_back(std::move(flag));
  }
  return flags;
}

Status read_ssh(YamlKeys keys, SshSettings& ssh) {
  keys.read("host", ssh.host);
  keys.read("user", ssh.user);
  keys.read("key", ssh.key);
  keys.read("port", ssh.port, 1, 65535);
  keys.read("options", ssh.options);
  return keys.finish();
}

// What may stand at a node, and at the top for all nodes.
void read_node_keys(YamlKeys& keys, ClusterNode& node) {
  keys.read("devices", node.devices, 1, kMostDevices);
  keys.read("program", node.program);
  keys.read("folder", node.folder);
  if (!fs::path(node.folder).is_absolute()) keys.fault("folder", "an absolute path");
  keys.read("environment", node.environment);
  keys.add(read_ssh(keys.nested("ssh"), node.ssh));
}

Status read_nodes(YamlKeys& file, const std::string& path, ClusterFile& cluster) {
  const YAML::Node nodes = file.find("nodes");
  if (!nodes.IsDefined()) return {};
  if (!nodes.IsSequence() || nodes.size() == 0) {
    file.fault("nodes", "a list of addresses, or of mappings with an address each");
    return {};
  }
  for (size_t idx = 0; idx < nodes.size(); idx++) {
    ClusterNode node = cluster.any_node;
    const std::string prefix = fmt::format("nodes[{}]", idx);
    if (nodes[idx].IsScalar()) {
      node.address = nodes[idx].Scalar();
    } else {
      YamlKeys keys(nodes[idx], path, prefix + ".");
      keys.read("address", node.address);
      read_node_keys(keys, node);
      RETURN_IF_ERROR(keys.finish());
    }
    if (node.address.empty()) file.fault_at(nodes[idx], prefix + " has no address");
    cluster.nodes.push_back(std::move(node));
  }
  return {};
}

bool is_loopback(const std::string& address) {
  return address == "localhost" || address == "::1" || address.starts_with("127.");
}

void read_launcher(YamlKeys& file, ClusterFile& cluster) {
  const bool all_here =
      std::ranges::all_of(cluster.nodes, [](const ClusterNode& node) { return is_loopback(node.address); });
  std::string launcher = all_here ? "local" : "ssh";
  file.read("launcher", launcher);
  if (launcher != "local" && launcher != "ssh" && launcher != "slurm")
    return file.fault("launcher", "local, ssh or slurm");
  cluster.launcher = launcher == "local" ? Launcher::kLocal : launcher == "ssh" ? Launcher::kSsh : Launcher::kSlurm;
}

Status read_serve(YamlKeys keys, ClusterFile& cluster) {
  cluster.serve_flags = read_flags(keys, {});
  for (const FlagSetting& flag : cluster.serve_flags) {
    const YAML::Node value = keys.find(flag.name);
    if (is_among(flag.name, kTopLevelFlags))
      keys.fault_at(value,
                    fmt::format("serve.{0} stands in the wrong place; {0} is a key of the file itself", flag.name));
    if (is_among(flag.name, kDerivedFlags))
      keys.fault_at(value, fmt::format("serve.{} cannot be set here; it follows from nodes and sizes", flag.name));
  }
  return keys.finish();
}

Status read_router(YamlKeys& file, RouterSettings& router) {
  const YAML::Node section = file.find("router");
  if (section.IsDefined() && section.IsScalar()) {
    file.read("router", router.enabled);
    if (router.enabled) file.fault("router", "false, or a mapping of host, port and flags of `cachalot router`");
    return {};
  }
  YamlKeys keys = file.nested("router");
  keys.read("host", router.host);
  keys.read("port", router.port);
  router.flags = read_flags(keys, {"host", "port"});
  for (const FlagSetting& flag : router.flags) {
    if (is_among(flag.name, kDerivedRouterFlags))
      keys.fault_at(keys.find(flag.name),
                    fmt::format("router.{} cannot be set here; it follows from the rest of the file", flag.name));
  }
  return keys.finish();
}

Status read_restart(YamlKeys keys, RestartPolicy& restart) {
  const auto read_seconds = [&](const char* key, std::chrono::milliseconds& field) {
    double seconds = std::chrono::duration<double>(field).count();
    keys.read(key, seconds, 0, 86'400);
    field = std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
  };
  read_seconds("first-wait", restart.first_wait);
  read_seconds("longest-wait", restart.longest_wait);
  read_seconds("window", restart.window);
  keys.read("most", restart.most_restarts, 0, 1'000'000);
  return keys.finish();
}

Status read_keys(YamlKeys& file, ClusterFile& cluster) {
  file.read("name", cluster.name);
  file.read("model", cluster.model);
  file.read("served-model-name", cluster.served_model_names);
  cluster.any_node.folder = cluster.folder;
  read_node_keys(file, cluster.any_node);
  RETURN_IF_ERROR(read_nodes(file, cluster.path, cluster));
  read_launcher(file, cluster);
  file.read("data-parallel-size", cluster.data_parallel_size, 1, kMostReplicas);
  file.read("tensor-parallel-size", cluster.tensor_parallel_size, 1, kMostRanks);
  file.read("enable-expert-parallel", cluster.enable_expert_parallel);
  file.read("port", cluster.port);
  file.read("data-parallel-rpc-port", cluster.data_parallel_rpc_port);
  file.add(read_serve(file.nested("serve"), cluster));
  file.add(read_router(file, cluster.router));
  file.read("logs", cluster.logs);
  file.read("drain-seconds", cluster.drain_seconds, 0, 86'400);
  file.add(read_restart(file.nested("restart"), cluster.restart));
  return file.finish();
}

Status check(ClusterFile& cluster) {
  if (cluster.model.empty())
    return make_parameter_error("model", "{} has no `model`; it must name the model's folder", cluster.path);
  if (cluster.name.empty() || cluster.name.find('/') != std::string::npos)
    return make_parameter_error("name", "{}: name is '{}'; it must be a name without '/'", cluster.path, cluster.name);
  if (cluster.launcher != Launcher::kLocal && (cluster.port == 0 || cluster.data_parallel_rpc_port == 0))
    return make_parameter_error(
        "port", "{}: port and data-parallel-rpc-port may be 0 (any free one) only with `launcher: local`",
        cluster.path);
  if (cluster.nodes.empty() && cluster.launcher == Launcher::kSsh)
    return make_parameter_error("nodes", "{} has no `nodes`; `launcher: ssh` needs their addresses", cluster.path);
  if (cluster.nodes.empty() && cluster.launcher == Launcher::kLocal) {
    cluster.nodes.push_back(cluster.any_node);
    cluster.nodes[0].address = "127.0.0.1";
    if (cluster.nodes[0].devices == 0)
      cluster.nodes[0].devices = std::max(cluster.data_parallel_size, 1) * cluster.tensor_parallel_size;
  }
  return {};
}

}  // namespace

Result<ClusterFile> parse_cluster_file(const std::string& text, const std::string& path) {
  YAML::Node root;
  try {
    root = YAML::Load(text);
  } catch (const YAML::Exception& exception) {
    return make_error(ErrorCode::kInvalidArgument, "{}:{}: this is no YAML: {}", path, exception.mark.line + 1,
                      exception.msg);
  }
  ClusterFile cluster{.path = path};
  cluster.name = fs::path(path).stem().string();
  cluster.folder = fs::absolute(path).parent_path().lexically_normal().string();
  YamlKeys file(root, path);
  RETURN_IF_ERROR(read_keys(file, cluster));
  RETURN_IF_ERROR(check(cluster));
  return cluster;
}

Result<ClusterFile> read_cluster_file(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, read_file(path));
  return parse_cluster_file(text, path);
}

ClusterFile built_in_cluster(const std::string& model, const std::string& working_folder) {
  ClusterFile cluster;
  cluster.name = "built-in";
  cluster.folder = working_folder;
  cluster.model = model;
  cluster.served_model_names = {"nano", "models/nano"};
  cluster.nodes = {{.address = "127.0.0.1", .devices = 4, .folder = working_folder}};
  cluster.data_parallel_size = 2;
  cluster.tensor_parallel_size = 2;
  cluster.enable_expert_parallel = true;
  cluster.port = cluster.data_parallel_rpc_port = 0;
  return cluster;
}

}  // namespace cachalot
