#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include "base/file.h"
#include "cli/check_plan.h"
#include "cli/cluster_arguments.h"
#include "cli/commands.h"
#include "cli/engine_flags.h"
#include "cli/parallel_flags.h"
#include "cluster/commands.h"
#include "cluster/start_checks.h"
#include "cluster/up_down.h"
#include "preflight/cluster_check.h"
#include "preflight/node_helper.h"

namespace cachalot {
namespace {

struct CheckFlags {
  std::string file;  // of the cluster
  bool hash_everything = false;
  bool plan_only = false;
  PlanFlags plan;
  std::string json;
  std::string inspection, links;  // questions of a machine that checks this one
};

Result<std::string> own_program() {
  std::error_code failed;
  const std::filesystem::path path = std::filesystem::read_symlink("/proc/self/exe", failed);
  if (failed) return make_error(ErrorCode::kIo, "/proc/self/exe cannot be read: {}", failed.message());
  return path.string();
}

Result<ClusterFile> read_cluster(const std::string& file) {
  if (file.empty()) {
    ASSIGN_OR_RETURN(const std::string model, find_built_in_model());
    return built_in_cluster(model, std::filesystem::current_path().string());
  }
  ASSIGN_OR_RETURN(ClusterFile cluster, read_cluster_file(file));
  RETURN_IF_ERROR(check_cluster_flags(cluster));
  RETURN_IF_ERROR(complete_nodes(cluster));
  return cluster;
}

// What the cluster's first server would make of its command line.
Status read_serve_flags(ClusterCheckOptions& options) {
  CLI::App app;
  app.allow_extras();  // the flags of serve that are neither the engine's nor the layout's
  add_engine_flags(app, options.engine);
  add_parallel_flags(app, options.parallel);
  Words words = serve_arguments(options.cluster, options.replicas[0]);
  words.erase(words.begin());   // "serve"
  std::ranges::reverse(words);  // as CLI11 takes them
  try {
    app.parse(words);
  } catch (const CLI::ParseError& error) {
    return make_error(ErrorCode::kInvalidArgument, "{}: {}", options.cluster.path, error.what());
  }
  return check_parallel_options(options.parallel);
}

Status run_cluster_check(const CheckFlags& flags) {
  ClusterCheckOptions options{.hash_everything = flags.hash_everything};
  ASSIGN_OR_RETURN(options.cluster, read_cluster(flags.file));
  ASSIGN_OR_RETURN(options.replicas, place_replicas(options.cluster));
  RETURN_IF_ERROR(choose_ports(options.cluster, options.replicas));
  ASSIGN_OR_RETURN(options.program, own_program());
  RETURN_IF_ERROR(read_serve_flags(options));
  ASSIGN_OR_RETURN(const CheckedCluster checked, check_cluster(options));
  fmt::print("{}", check_text(checked));
  if (!flags.json.empty()) RETURN_IF_ERROR(write_file(flags.json, check_json(checked)));
  if (checked.findings.count(Severity::kError) > 0) throw CLI::RuntimeError(1);  // the findings have said why
  return {};
}

Status run_check(const CheckFlags& flags) {
  if (!flags.inspection.empty()) return answer_inspection(flags.inspection);
  if (!flags.links.empty()) return answer_links(flags.links);
  const std::string& model = flags.plan.plan.engine.model;
  if (!flags.plan_only) {
    if (!model.empty())
      return make_parameter_error("--model", "check --model {}: a model and a layout by flags are for --plan", model);
    return run_cluster_check(flags);
  }
  if (!flags.file.empty())
    return make_parameter_error("file", "check --plan {}: --plan takes --model and flags, no cluster file", flags.file);
  if (model.empty())
    return make_parameter_error("--model", "check --plan: --model must name a folder or its config.json");
  return run_plan(flags.plan, flags.json);
}

}  // namespace

void add_check_command(CLI::App& app) {
  auto flags = std::make_shared<CheckFlags>();
  CLI::App* command =
      app.add_subcommand("check", "Say before a start whether a cluster can work, or what a model and layout take");
  command->add_option("file", flags->file,
                      "The cluster file whose nodes are looked at; absent: this machine, for what `up` alone starts");
  command->add_flag("--full", flags->hash_everything, "Compare every byte of the nodes' models, not samples");
  command->add_option("--json", flags->json, "Write all of it to this file");
  command->add_flag(
      "--plan", flags->plan_only,
      "Instead: memory and traffic of --model in a layout, from its config.json alone; with the flags below");
  add_plan_flags(*command, flags->plan);
  // Of the program on a node that is looked at.
  command->add_option("--inspect", flags->inspection)->group("");
  command->add_option("--measure-links", flags->links)->group("");
  command->callback([flags] { finish_command(run_check(*flags)); });
}

}  // namespace cachalot
