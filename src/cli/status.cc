#include "cluster/status.h"

#include <fmt/format.h>

#include <memory>

#include "base/file.h"
#include "cli/cluster_arguments.h"
#include "cli/commands.h"

namespace cachalot {

namespace {

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

}  // namespace cachalot
