#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>

#include "base/file.h"
#include "base/log.h"
#include "cli/cluster_arguments.h"
#include "cli/commands.h"
#include "cli/flag_values.h"
#include "cluster/lease.h"
#include "cluster/status.h"
#include "cluster/up_down.h"

namespace cachalot {
namespace {

struct UpFlags {
  std::string file, run_folder;
  std::optional<uint16_t> port;
  bool detach = false;
  int ready_fd = -1;
};

Result<ClusterFile> read_cluster(const UpFlags& flags) {
  if (!flags.file.empty()) {
    ASSIGN_OR_RETURN(ClusterFile cluster, read_cluster_file(flags.file));
    RETURN_IF_ERROR(check_cluster_flags(cluster));
    return cluster;
  }
  ASSIGN_OR_RETURN(const std::string model, find_built_in_model());
  return built_in_cluster(model, std::filesystem::current_path().string());
}

// A key of the environment opens the servers of all nodes, wherever they are started, unless the file names keys: then
// it is kept from servers and router, which would ask for it beside the file's.
void spread_api_key(ClusterFile& cluster) {
  constexpr const char* kVariables[] = {"CACHALOT_API_KEY", "VLLM_API_KEY"};
  const auto names_key = [](const FlagSetting& flag) {
    return flag.name == "api-key" || flag.name == "server-api-key";
  };
  const bool file_names_key =
      std::ranges::any_of(cluster.serve_flags, names_key) || std::ranges::any_of(cluster.router.flags, names_key);
  for (const char* variable : kVariables) {
    const char* const key = std::getenv(variable);
    if (key == nullptr || *key == '\0') continue;
    if (file_names_key) {
      log::info("{} is not used: {} names the keys", variable, cluster.path);
      unsetenv(variable);
    } else if (cluster.launcher != Launcher::kLocal) {  // those of this machine have this environment
      for (ClusterNode& node : cluster.nodes) node.environment.emplace(variable, key);
      cluster.any_node.environment.emplace(variable, key);
    }
  }
}

Result<int> up(const UpFlags& flags) {
  ASSIGN_OR_RETURN(ClusterFile cluster, read_cluster(flags));
  if (flags.port) cluster.router.port = *flags.port;
  spread_api_key(cluster);
  ASSIGN_OR_RETURN(const std::vector<std::string> words, own_command_line());
  return run_up({.cluster = std::move(cluster),
                 .run_folder = flags.run_folder,
                 .program_name = words[0],
                 .run_folder_flag = run_folder_words(flags.run_folder),
                 .detach = flags.detach,
                 .ready_fd = flags.ready_fd,
                 .command_line = words});
}

struct DownFlags {
  std::string cluster, run_folder;
  bool now = false;
};

Status down(const DownFlags& flags) {
  ASSIGN_OR_RETURN(const RunFolder folder, RunFolder::open(flags.run_folder, run_folder_words(flags.run_folder)));
  ASSIGN_OR_RETURN(const std::string name, find_cluster_name(folder, flags.cluster));
  return run_down(folder, name, flags.now);
}

struct StatusFlags {
  std::string cluster, run_folder;
  bool json = false;
};

Status print_status(const StatusFlags& flags) {
  ASSIGN_OR_RETURN(const RunFolder folder, RunFolder::open(flags.run_folder, run_folder_words(flags.run_folder)));
  ASSIGN_OR_RETURN(const std::string name, find_cluster_name(folder, flags.cluster));
  if (!folder.owner(name)) return make_error(ErrorCode::kNotFound, "cluster {} is not up", name);
  ASSIGN_OR_RETURN(const std::string text, read_file(folder.state_path(name)));
  ASSIGN_OR_RETURN(const ClusterState state, parse_cluster_state(text, folder.state_path(name)));
  const ServerStates servers = collect_states(state);
  fmt::print("{}", flags.json ? status_json(state, servers) : status_text(state, servers));
  return {};
}

}  // namespace

void add_up_command(CLI::App& app) {
  auto flags = std::make_shared<UpFlags>();
  CLI::App* command = app.add_subcommand("up", "Start a cluster, all its replicas and the router, and watch over it");
  command->add_option(
      "file", flags->file,
      "The cluster file (docs/configuration.md); absent: the built-in model on this machine, 2 replicas "
      "with 2 ranks each, experts over all 4");
  command->add_flag("-d,--detach", flags->detach,
                    "Return when it is ready; it goes on in the background (else Ctrl-C stops it)");
  command->add_option("--ready-fd", flags->ready_fd)->group("");  // of the process behind --detach
  add_whole(*command, "--port", flags->port, kPortRange, "Port of the router, in place of the file's (8002)");
  add_run_folder_flag(*command, flags->run_folder);
  command->footer(
      "Replicas that lost a rank are started anew, together with those that step with them.\n"
      "`cachalot status` shows a cluster, `cachalot down` stops it. Logs are in the file's folder, in logs/.");
  command->callback([flags] {
    const Result<int> status = up(*flags);
    if (!status) finish_command(std::unexpected(status.error()));
    if (*status != 0) throw CLI::RuntimeError(*status);
  });
}

void add_down_command(CLI::App& app) {
  auto flags = std::make_shared<DownFlags>();
  CLI::App* command = app.add_subcommand("down", "Drain a cluster and stop it");
  command->add_option("cluster", flags->cluster, "Its file, or its name; absent: the only one that is up");
  command->add_flag("--now", flags->now, "End the running answers at once");
  add_run_folder_flag(*command, flags->run_folder);
  command->footer(
      "New requests are refused; running ones have the file's drain-seconds. Returns when no process is left.\n"
      "Where the cluster is not up, the status is 1.");
  command->callback([flags] { finish_command(down(*flags)); });
}

void add_status_command(CLI::App& app) {
  auto flags = std::make_shared<StatusFlags>();
  CLI::App* command = app.add_subcommand("status", "Show the replicas and ranks of a cluster, and their load");
  command->add_option("cluster", flags->cluster, "Its file, or its name; absent: the only one that is up");
  command->add_flag("--json", flags->json, "For a program to read");
  add_run_folder_flag(*command, flags->run_folder);
  command->footer(
      "What lockstep costs: 'without rows' is the part of a rank's steps to which its replica brought no tokens, "
      "taken\n"
      "for the others' sake; 'waiting' the part of its steps' time in which it waited until other ranks had done "
      "theirs.\n"
      "Where the cluster is not up, the status is 1.");
  command->callback([flags] { finish_command(print_status(*flags)); });
}

// For `up`, which starts servers on nodes with it.
void add_lease_command(CLI::App& app) {
  auto options = std::make_shared<LeaseOptions>();
  CLI::App* command = app.add_subcommand("lease", "Run a program for as long as the standard input holds");
  command->group("");
  flag_values::add(*command, "--longest-silence", options->longest_silence,
                   "Seconds without a byte after which it is ended; 0: only when the input ends",
                   [](const CLI::Option& option, const std::string& text) {
                     return std::chrono::seconds(flag_values::read_whole(option, text, {}));
                   });
  command->add_flag("--report-end", options->report_end, "Write how it ended to the standard output, as JSON");
  command->add_option("words", options->words, "The program and its arguments, behind --")->required();
  command->callback([options] {
    const Result<int> status = run_leased(*options);
    if (!status) finish_command(std::unexpected(status.error()));
    throw CLI::RuntimeError(*status);
  });
}

}  // namespace cachalot
