#include "cli/cluster_arguments.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "cli/commands.h"
#include "cli/nearest_flag.h"
#include "cluster/commands.h"

namespace cachalot {
namespace {

std::string default_run_folder() {
  const char* const runtime = std::getenv("XDG_RUNTIME_DIR");
  if (runtime != nullptr && *runtime != '\0') return std::string(runtime) + "/cachalot";
  return fmt::format("/tmp/cachalot-{}", geteuid());
}

// As the command itself would read it, with no other flag beside it.
Status check_flag(const ClusterFile& cluster, const FlagSetting& flag, const std::string& section,
                  void (*add_command)(CLI::App&), Words arguments) {
  CLI::App app;
  add_command(app);
  CLI::App* const command = app.get_subcommand(section);
  command->callback([] {});
  const std::string where = fmt::format("{}:{}:{}: {}.{}", cluster.path, flag.line, flag.column, section, flag.name);
  if (flag.name == "help") return make_parameter_error(flag.name, "{}: no such flag of `cachalot {}`", where, section);
  arguments.insert(arguments.begin(), section);
  std::ranges::copy(flag_words(flag), std::back_inserter(arguments));
  std::ranges::reverse(arguments);  // as CLI11 wants them
  try {
    app.parse(arguments);
  } catch (const CLI::ExtrasError&) {
    const std::string nearest = nearest_flag(*command, flag.name);
    return make_parameter_error(flag.name, "{}: no such flag of `cachalot {}`{}", where, section,
                                nearest.empty() ? "" : fmt::format("; the nearest is {}", nearest));
  } catch (const CLI::ParseError& error) {
    return make_parameter_error(flag.name, "{}: {}", where, error.what());
  }
  return {};
}

}  // namespace

void add_run_folder_flag(CLI::App& app, std::string& run_folder) {
  run_folder = default_run_folder();
  app.add_option("--run-folder", run_folder, "Where clusters that are up leave word")
      ->envname("CACHALOT_RUN_FOLDER")
      ->capture_default_str();
}

std::string run_folder_words(const std::string& run_folder) {
  const char* const of_environment = std::getenv("CACHALOT_RUN_FOLDER");
  const std::string found =
      of_environment != nullptr && *of_environment != '\0' ? of_environment : default_run_folder();
  return run_folder == found ? "" : " --run-folder " + shell_quoted(run_folder);
}

Status check_cluster_flags(const ClusterFile& cluster) {
  for (const FlagSetting& flag : cluster.serve_flags)
    RETURN_IF_ERROR(check_flag(cluster, flag, "serve", add_serve_command, {"--model=" + cluster.model}));
  for (const FlagSetting& flag : cluster.router.flags)
    RETURN_IF_ERROR(check_flag(cluster, flag, "router", add_router_command, {"--server-urls", "http://localhost:1"}));
  return {};
}

Result<std::string> find_cluster_name(const RunFolder& folder, const std::string& file_or_name) {
  if (std::filesystem::is_regular_file(file_or_name)) {
    ASSIGN_OR_RETURN(const ClusterFile cluster, read_cluster_file(file_or_name));
    return cluster.name;
  }
  if (std::error_code ignored; std::filesystem::is_directory(file_or_name, ignored))
    return make_error(ErrorCode::kInvalidArgument, "{} is a folder; a cluster's file is wanted, or its name",
                      file_or_name);
  if (!file_or_name.empty()) return file_or_name;
  const std::vector<std::string> names = folder.names();
  if (names.empty()) return make_error(ErrorCode::kNotFound, "no cluster is up");
  if (names.size() > 1)
    return make_error(ErrorCode::kInvalidArgument, "more than one cluster is up: {}; name one", fmt::join(names, ", "));
  return names.front();
}

}  // namespace cachalot
