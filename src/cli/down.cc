#include <memory>

#include "cli/cluster_arguments.h"
#include "cli/commands.h"
#include "cluster/up_down.h"

namespace cachalot {

namespace {

struct DownFlags {
  std::string cluster, run_folder;
  bool now = false;
};

Status down(const DownFlags& flags) {
  ASSIGN_OR_RETURN(const RunFolder folder, RunFolder::open(flags.run_folder, run_folder_words(flags.run_folder)));
  ASSIGN_OR_RETURN(const std::string name, find_cluster_name(folder, flags.cluster));
  return run_down(folder, name, flags.now);
}

}  // namespace

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

}  // namespace cachalot
