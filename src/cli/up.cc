#include <filesystem>
#include <memory>
#include <optional>

#include "cli/cluster_arguments.h"
#include "cli/command_line.h"
#include "cli/commands.h"
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

Result<int> up(const UpFlags& flags) {
  ASSIGN_OR_RETURN(ClusterFile cluster, read_cluster(flags));
  if (flags.port) cluster.router.port = *flags.port;
  ASSIGN_OR_RETURN(const std::vector<std::string> words, own_command_line());
  return run_up({.cluster = std::move(cluster),
                 .run_folder = flags.run_folder,
                 .program_name = words[0],
                 .run_folder_flag = run_folder_words(flags.run_folder),
                 .detach = flags.detach,
                 .ready_fd = flags.ready_fd,
                 .command_line = words});
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
  command->add_option("--port", flags->port, "Port of the router, in place of the file's (8002)");
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

}  // namespace cachalot
