#include "cluster/commands.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/ports.h"

namespace cachalot {
namespace {

// Longer than any pause of a busy head, short enough that a node that was cut off is free when it comes back.
constexpr int kLeaseSeconds = 10;

void append(Words& words, const Words& more) {
  words.insert(words.end(), more.begin(), more.end());
}

std::string url_host(const std::string& address) {
  return address.find(':') == std::string::npos ? address : "[" + address + "]";
}

// The connection is watched, so that a node that was cut off is noticed; nobody is there to answer a question.
Words ssh_words(const ClusterNode& node) {
  Words words{"ssh", "-T"};
  for (const char* option :
       {"BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=2", "ServerAliveCountMax=3", "LogLevel=ERROR"})
    append(words, {"-o", option});
  for (const std::string& option : node.ssh.options) append(words, {"-o", option});
  if (!node.ssh.user.empty()) append(words, {"-l", node.ssh.user});
  if (!node.ssh.key.empty()) append(words, {"-i", node.ssh.key});
  if (node.ssh.port != 0) append(words, {"-p", std::to_string(node.ssh.port)});
  append(words, {"--", node.ssh.host.empty() ? node.address : node.ssh.host});
  return words;
}

// One task on the node beside the others of the allocation, with all its cores and memory; its lines come at once.
Words srun_words(const ClusterNode& node) {
  return {"srun",
          "--nodes=1",
          "--ntasks=1",
          "--nodelist=" + node.address,
          "--chdir=" + node.folder,
          "--overlap",
          "--mem=0",
          "--cpu-bind=none",
          "--unbuffered",
          "--quiet"};
}

Words environment_words(const ClusterNode& node) {
  if (node.environment.empty()) return {};
  Words words{"env"};
  for (const auto& [name, value] : node.environment) words.push_back(name + "=" + value);
  return words;
}

Words leased(const std::string& program, int longest_silence, const Words& arguments, bool report_end) {
  Words words{program, "lease", fmt::format("--longest-silence={}", longest_silence)};
  if (report_end) words.emplace_back("--report-end");
  append(words, {"--", program});
  append(words, arguments);
  return words;
}

}  // namespace

std::string shell_quoted(const std::string& word) {
  constexpr std::string_view kPlain = "-_./=:,@%+";
  const auto is_plain = [&](char character) {
    return std::isalnum(static_cast<unsigned char>(character)) || kPlain.find(character) != std::string_view::npos;
  };
  if (!word.empty() && std::ranges::all_of(word, is_plain)) return word;
  std::string quoted = "'";
  for (const char character : word) quoted += character == '\'' ? std::string("'\\''") : std::string(1, character);
  return quoted + "'";
}

Words flag_words(const FlagSetting& flag) {
  if (flag.values == Words{"true"}) return {"--" + flag.name};
  if (flag.values == Words{"false"}) return {"--no-" + flag.name};
  if (flag.values.size() == 1) return {"--" + flag.name + "=" + flag.values[0]};
  Words words{"--" + flag.name};
  append(words, flag.values);
  return words;
}

std::string router_host(const ClusterFile& cluster) {
  if (!cluster.router.host.empty()) return cluster.router.host;
  return cluster.launcher == Launcher::kLocal ? "127.0.0.1" : "0.0.0.0";
}

namespace {

std::string scheme_of(const std::vector<FlagSetting>& flags) {
  const bool has_tls = std::ranges::any_of(flags, [](const FlagSetting& flag) { return flag.name == "ssl-certfile"; });
  return has_tls ? "https" : "http";
}

}  // namespace

std::string server_url(const ClusterFile& cluster, const PlacedReplica& replica) {
  const ClusterNode& node = cluster.nodes[static_cast<size_t>(replica.node)];
  return fmt::format("{}://{}:{}", scheme_of(cluster.serve_flags), url_host(node.address), replica.port);
}

std::string router_url(const ClusterFile& cluster) {
  const std::string host = router_host(cluster);
  return fmt::format("{}://{}:{}", scheme_of(cluster.router.flags),
                     host == "0.0.0.0" || host == "::" ? "127.0.0.1" : url_host(host), cluster.router.port);
}

Words serve_arguments(const ClusterFile& cluster, const PlacedReplica& replica) {
  const ClusterNode& node = cluster.nodes[static_cast<size_t>(replica.node)];
  Words words{"serve",
              "--model=" + cluster.model,
              "--host=" + node.listen_address(),
              fmt::format("--port={}", replica.port),
              fmt::format("--tensor-parallel-size={}", cluster.tensor_parallel_size),
              fmt::format("--data-parallel-size={}", cluster.data_parallel_size),
              fmt::format("--data-parallel-rank={}", replica.dp_rank),
              "--data-parallel-address=" + cluster.nodes[0].listen_address(),
              fmt::format("--data-parallel-rpc-port={}", cluster.data_parallel_rpc_port),
              fmt::format("--visible-devices={}", fmt::join(replica.devices, ",")),
              fmt::format("--drain-seconds={}", cluster.drain_seconds)};
  if (cluster.enable_expert_parallel) words.emplace_back("--enable-expert-parallel");
  if (!cluster.served_model_names.empty()) {
    words.emplace_back("--served-model-name");
    append(words, cluster.served_model_names);
  }
  for (const FlagSetting& flag : cluster.serve_flags) append(words, flag_words(flag));
  return words;
}

namespace {

std::string agents_flag(const ClusterFile& cluster, const std::vector<PlacedReplica>& replicas) {
  std::vector<std::string> addresses;
  for (const PlacedReplica& replica : replicas)
    addresses.push_back(
        address_text(cluster.nodes[static_cast<size_t>(replica.node)].listen_address(), replica.agent_port));
  return fmt::format("--agents={}", fmt::join(addresses, ","));
}

}  // namespace

Words agent_arguments(const ClusterFile& cluster, const std::vector<PlacedReplica>& replicas,
                      const PlacedReplica& replica, const std::string& state_name) {
  if (!cluster.heals()) return {};
  // Ranks that start apart cannot ask each other how many they are on a node.
  const auto num_local = std::ranges::count(replicas, replica.node, &PlacedReplica::node);
  Words words{fmt::format("--local-ranks={}", num_local * cluster.tensor_parallel_size),
              fmt::format("--local-rank={}", replica.local_idx * cluster.tensor_parallel_size)};
  if (!cluster.spans_replicas()) return words;
  append(words, {agents_flag(cluster, replicas), fmt::format("--state-dir={}/server-{}", state_name, replica.dp_rank)});
  if (cluster.has_witness()) words.emplace_back("--witness");
  return words;
}

Words witness_arguments(const ClusterFile& cluster, const std::vector<PlacedReplica>& replicas,
                        const std::string& state_name) {
  if (!cluster.has_witness()) return {};
  Words words{agents_flag(cluster, replicas), fmt::format("--state-dir={}/witness", state_name)};
  const auto names = [](std::string_view name) {
    return [name](const FlagSetting& flag) { return flag.name == name; };
  };
  for (const char* name : {"group-secret-file", "failure-timeout-ms"}) {
    const auto flag = std::ranges::find_if(cluster.serve_flags, names(name));
    if (flag != cluster.serve_flags.end() && std::ranges::none_of(cluster.router.flags, names(name)))
      append(words, flag_words(*flag));
  }
  return words;
}

Words router_arguments(const ClusterFile& cluster, const std::vector<PlacedReplica>& replicas) {
  Words words{"router", "--server-urls"};
  for (const PlacedReplica& replica : replicas) words.push_back(server_url(cluster, replica));
  append(words, {"--host=" + router_host(cluster), fmt::format("--port={}", cluster.router.port),
                 "--model=" + (cluster.served_model_names.empty() ? cluster.model : cluster.served_model_names[0]),
                 fmt::format("--drain-seconds={}", cluster.drain_seconds)});
  for (const FlagSetting& flag : cluster.router.flags) append(words, flag_words(flag));
  return words;
}

// On this machine the end of the head closes the pipe, whatever ended it; silence means only that it was stopped.
Words leased_here(const std::string& program, const Words& arguments, bool report_end) {
  return leased(program, 0, arguments, report_end);
}

Words launch_words(const ClusterFile& cluster, const ClusterNode& node, const std::string& program,
                   const Words& arguments, bool report_end) {
  const std::string& there = node.program.empty() ? program : node.program;
  const bool here = cluster.launcher == Launcher::kLocal;
  Words on_node = environment_words(node);
  append(on_node, leased(there, here ? 0 : kLeaseSeconds, arguments, report_end));
  if (here) return on_node;
  if (cluster.launcher == Launcher::kSlurm) {
    Words words = srun_words(node);
    append(words, on_node);
    return words;
  }
  Words words = ssh_words(node);
  std::string line = fmt::format("cd {} && exec", shell_quoted(node.folder));
  for (const std::string& word : on_node) line += " " + shell_quoted(word);
  words.push_back(std::move(line));
  return words;
}

}  // namespace cachalot
