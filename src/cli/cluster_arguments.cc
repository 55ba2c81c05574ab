#include "cli/cluster_arguments.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "cli/arguments.h"
#include "cli/commands.h"
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
  CLI::App app("", "cachalot");
  add_command(app);
  CLI::App* const command = app.get_subcommand(section);
  command->callback([] {});
  const std::string where = fmt::format("{}:{}:{}: {}.{}", cluster.path, flag.line, flag.column, section, flag.name);
  if (flag.name == "help") return make_parameter_error(flag.name, "{}: no such flag of `cachalot {}`", where, section);
  std::ranges::copy(flag_words(flag), std::back_inserter(arguments));
  Result<Arguments> read = read_arguments(*command, arguments);
  if (!read) {
    // The file's name for it has no dashes.
    std::string message = std::move(read.error().message);
    const std::string typed = "--" + flag.name;
    if (message.starts_with(typed)) message.erase(0, typed.size());
    if (const size_t nearest = message.find("; the nearest is --"); nearest != message.npos)
      message.erase(nearest + std::string_view("; the nearest is ").size(), 2);
    return make_parameter_error(flag.name, "{}{}", where, message);
  }
  read->words.insert(read->words.begin(), section);
  std::ranges::reverse(read->words);  // as CLI11 wants them
  try {
    app.parse(read->words);
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
