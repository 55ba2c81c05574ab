#include "config/cluster_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <string_view>

#include "base/file.h"
#include "base/text.h"
#include "config/cluster_layout.h"
#include "config/yaml_keys.h"

namespace cachalot {
namespace {

namespace fs = std::filesystem;

constexpr int kMostDevices = 4096, kMostReplicas = 4096, kMostRanks = 1024;
constexpr size_t kLongestAddress = 253;  // as DNS has it
constexpr size_t kLongestName = 100;     // of a cluster: files are named after it

// Flags of `serve` that are no business of the section `serve`.
constexpr std::string_view kTopLevelFlags =
    "model served-model-name port data-parallel-size data-parallel-rpc-port tensor-parallel-size "
    "enable-expert-parallel drain-seconds";
constexpr std::string_view kDerivedFlags =
    "host data-parallel-rank data-parallel-address rank-board agent-fd process local-ranks local-rank agents state-dir "
    "witness tensor-parallel-rank visible-devices wait-on-failure";
constexpr std::string_view kDerivedRouterFlags = "server-urls model drain-seconds agents state-dir";

// All keys of a section that the caller has not asked for are flags.
std::vector<FlagSetting> read_flags(YamlKeys& keys, std::string_view own_keys) {
  std::vector<FlagSetting> flags;
  for (const std::string& name : keys.keys()) {
    if (has_word(own_keys, name)) continue;
    const YAML::Mark mark = keys.find(name).Mark();
    FlagSetting flag{.name = name, .line = mark.line + 1, .column = mark.column + 1};
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
  if (keys.find("folder").IsDefined() && !fs::path(node.folder).is_absolute()) keys.fault("folder", "an absolute path");
  keys.read("environment", node.environment);
  for (const auto& [name, value] : node.environment) {
    if (name.contains('=')) keys.fault("environment", "a mapping of names without '=' to texts");
  }
  keys.add(read_ssh(keys.nested("ssh"), node.ssh));
}

bool is_address(const std::string& text) {
  constexpr std::string_view kMarks = ".-:_%";
  return text.size() <= kLongestAddress && !text.starts_with('-') && std::ranges::all_of(text, [&](char c) {
           return std::isalnum(static_cast<unsigned char>(c)) || kMarks.contains(c);
         });
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
    if (node.address.empty()) {
      file.fault_at(nodes[idx], prefix + " has no address");
    } else if (!is_address(node.address)) {
      file.fault_at(nodes[idx], fmt::format("{} has the address {}; it must be an IP address or the name of a host",
                                            prefix, cachalot::quoted(node.address)));
    }
    node.place = yaml_place(nodes[idx].Mark());
    cluster.nodes.push_back(std::move(node));
  }
  return {};
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
  cluster.serve_flags = read_flags(keys, "");
  for (const FlagSetting& flag : cluster.serve_flags) {
    const YAML::Node value = keys.find(flag.name);
    if (has_word(kTopLevelFlags, flag.name))
      keys.fault_at(value,
                    fmt::format("serve.{0} stands in the wrong place; {0} is a key of the file itself", flag.name));
    if (has_word(kDerivedFlags, flag.name))
      keys.fault_at(value, fmt::format("serve.{} cannot be set here; it follows from nodes and sizes", flag.name));
  }
  return keys.finish();
}

void note_place(YamlKeys& keys, const std::string& key, const std::string& name, ClusterFile& cluster) {
  if (std::string place = keys.place(key); !place.empty()) cluster.places[name] = std::move(place);
}

Status read_router(YamlKeys& file, ClusterFile& cluster) {
  RouterSettings& router = cluster.router;
  const YAML::Node section = file.find("router");
  if (section.IsDefined() && section.IsScalar()) {
    file.read("router", router.enabled);
    if (router.enabled) file.fault("router", "false, or a mapping of host, port and flags of `cachalot router`");
    return {};
  }
  YamlKeys keys = file.nested("router");
  keys.read("host", router.host);
  if (!router.host.empty() && !is_address(router.host)) keys.fault("host", "an IP address or the name of a host");
  keys.read("port", router.port);
  note_place(keys, "host", "router.host", cluster);
  note_place(keys, "port", "router.port", cluster);
  router.flags = read_flags(keys, "host port");
  for (const FlagSetting& flag : router.flags) {
    if (has_word(kDerivedRouterFlags, flag.name))
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
  file.add(read_router(file, cluster));
  file.read("logs", cluster.logs);
  file.read("drain-seconds", cluster.drain_seconds, 0, 86'400);
  file.add(read_restart(file.nested("restart"), cluster.restart));
  for (const std::string& key :
       words_of("name model port data-parallel-rpc-port data-parallel-size nodes devices tensor-parallel-size"))
    note_place(file, key, key, cluster);
  return file.finish();
}

bool is_cluster_name(const std::string& name) {
  return !name.empty() && name.size() <= kLongestName && !name.starts_with('.') &&
         std::ranges::none_of(name, [](char c) { return c == '/' || std::iscntrl(static_cast<unsigned char>(c)); });
}

Status check(ClusterFile& cluster) {
  if (cluster.model.empty())
    return make_parameter_error("model", "{} has no `model`; it must name the model's folder", cluster.path);
  if (!is_cluster_name(cluster.name))
    return make_parameter_error("name", "{} is {}; it must be a name of at most {} bytes without '/'",
                                cluster.where("name"), cachalot::quoted(cluster.name), kLongestName);
  for (const auto& [key, port] :
       {std::pair("port", cluster.port), std::pair("data-parallel-rpc-port", cluster.data_parallel_rpc_port)}) {
    if (cluster.launcher != Launcher::kLocal && port == 0)
      return make_parameter_error(key, "{} is 0 (any free one); it may be so only with `launcher: local`",
                                  cluster.where(key));
  }
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

// What the parser would pass on, cut at NULs, or take for another encoding.
Status check_encoding(const std::string& text, const std::string& path) {
  if (text.size() > kMostHandwrittenBytes)
    return make_error(ErrorCode::kTooLarge, "{} has {} bytes; a cluster file has at most {}", path, text.size(),
                      kMostHandwrittenBytes);
  const std::string valid = to_valid_utf8(text);
  size_t wrong = std::min(text.find('\0'), text.size());
  if (text != valid)
    wrong = std::min(wrong, static_cast<size_t>(std::ranges::mismatch(text, valid).in1 - text.begin()));
  if (wrong == text.size()) return {};
  const std::string_view before(text.data(), wrong);
  return make_error(ErrorCode::kInvalidArgument, "{}:{}:{}: this is no text in UTF-8: byte 0x{:02x}", path,
                    std::ranges::count(before, '\n') + 1, wrong - (before.rfind('\n') + 1) + 1,
                    static_cast<unsigned char>(text[wrong]));
}

}  // namespace

std::string ClusterFile::where(const std::string& key) const {
  const auto place = places.find(key);
  const std::string file = path.empty() ? "the cluster" : path;
  return place == places.end() ? fmt::format("{}: {}", file, key) : fmt::format("{}:{}: {}", file, place->second, key);
}

std::string ClusterFile::where(size_t node) const {
  const std::string file = path.empty() ? "the cluster" : path, &place = nodes[node].place;
  return fmt::format("{}{}{}: nodes[{}]", file, place.empty() ? "" : ":", place, node);
}

Result<ClusterFile> parse_cluster_file(const std::string& text, const std::string& path) {
  RETURN_IF_ERROR(check_encoding(text, path));
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(text);
    if (documents.size() > 1)
      return make_error(ErrorCode::kInvalidArgument, "{}:{}: another document begins; a cluster file is one", path,
                        yaml_place(documents[1].Mark()));
    ClusterFile cluster{.path = path};
    cluster.name = fs::path(path).stem().string();
    cluster.folder = fs::absolute(path).parent_path().lexically_normal().string();
    YamlKeys file(documents.empty() ? YAML::Node() : documents[0], path);
    RETURN_IF_ERROR(read_keys(file, cluster));
    RETURN_IF_ERROR(check(cluster));
    return cluster;
  } catch (const YAML::Exception& exception) {
    const std::string place = yaml_place(exception.mark);
    return make_error(ErrorCode::kInvalidArgument, "{}{}{}: this is no YAML: {}", path, place.empty() ? "" : ":", place,
                      escaped(exception.msg));
  }
}

namespace {

bool is_on(const std::vector<FlagSetting>& flags, std::string_view name) {
  const auto flag = std::ranges::find(flags, name, &FlagSetting::name);
  return flag != flags.end() && flag->values == std::vector<std::string>{"true"};
}

}  // namespace

bool ClusterFile::heals() const {
  return is_on(serve_flags, "enable-fault-tolerance");
}

bool ClusterFile::has_witness() const {
  return heals() && spans_replicas() && router.enabled && is_on(router.flags, "witness");
}

Result<ClusterFile> read_cluster_file(const std::string& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored))
    return make_error(ErrorCode::kInvalidArgument, "{} is a folder; a cluster file is wanted, such as {}", path,
                      (fs::path(path) / "cluster.yaml").string());
  ASSIGN_OR_RETURN(const std::string text, read_file(path, kMostHandwrittenBytes));
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
