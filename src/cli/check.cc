#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cluster/commands.h"
#include "cluster/up_down.h"
#include "config/model_folder.h"
#include "preflight/cluster_check.h"
#include "preflight/layout_plan.h"
#include "preflight/node_helper.h"
#include "weights/model_files.h"
#include "weights/weight_catalog.h"

namespace cachalot {
namespace {

struct PlanFlags {
  LayoutPlanOptions plan;
  std::string quantization;  // how weights would be stored; empty: as the folder or its config.json says
  int group_size = 0;        // 0: the format's usual one
  bool quantize_head = false;
};

// The formats, also by the names that deployments of vLLM give to AWQ.
const std::map<std::string, WeightFormat> kPlanFormats{
    {"bf16", WeightFormat::kPlain},    {"fp8", WeightFormat::kFp8Block},
    {"awq", WeightFormat::kAwq},       {"awq_marlin", WeightFormat::kAwq},
    {"moe_wna16", WeightFormat::kAwq}, {"moe_wna16_gcu", WeightFormat::kAwq},
    {"mxfp4", WeightFormat::kMxfp4},   {"compressed-tensors", WeightFormat::kPackedInt}};

std::string weights_text(const QuantTarget& target) {
  switch (target.format) {
    case WeightFormat::kPlain:
      return "bf16 weights";
    case WeightFormat::kFp8Block:
      return "fp8 weights (blocks of 128x128)";
    case WeightFormat::kMxfp4:
      return "MXFP4 weights (groups of 32)";
    case WeightFormat::kPackedInt:
      return fmt::format("int{} weights (compressed-tensors, {})", target.bits,
                         target.group_size > 0 ? fmt::format("groups of {}", target.group_size) : "a scale a row");
    case WeightFormat::kAwq:
      break;
  }
  return fmt::format("int4 weights (AWQ, groups of {})", target.group_size);
}

QuantTarget target_for(const PlanFlags& flags, const ModelConfig& config) {
  QuantTarget target = target_of(config.quantization);
  if (!flags.quantization.empty()) {
    const WeightFormat format = kPlanFormats.at(flags.quantization);
    target = {.format = format, .group_size = flags.group_size > 0 ? flags.group_size : usual_group_size(format)};
  }
  target.quantize_head = flags.quantize_head;
  return target;
}

// What the config.json at `path` implies, of the named format or of its own.
Result<PlannedWeights> planned_weights(const PlanFlags& flags, const std::string& path) {
  ASSIGN_OR_RETURN(std::string json, read_file(path));
  // A format that is named takes the place of the file's, which may be one that is not read here.
  if (!flags.quantization.empty()) {
    ASSIGN_OR_RETURN(json, config_for_target(json, path, {}, {}));
  }
  ASSIGN_OR_RETURN(ModelConfig config, parse_model_config(json, path));
  const QuantTarget target = target_for(flags, config);
  RETURN_IF_ERROR(check_target(target));
  PlannedWeights planned(std::move(config), target, path);
  for (const std::string& note : planned.config().notes) log::warn("{}", note);
  if (target.format != WeightFormat::kPlain && !planned.is_quantized())
    log::warn(
        "{}: quantization_config's lists of modules leave every linear of this model as it is; all are planned in bf16",
        path);
  return planned;
}

Status show_plan(const PlanFlags& flags, const ModelConfig& config, const WeightCatalog& catalog,
                 const PlanSubject& subject, const std::string& json) {
  ASSIGN_OR_RETURN(const LayoutPlan plan, plan_layout(flags.plan, config, catalog));
  fmt::print("{}", plan_text(plan, subject));
  if (!json.empty()) RETURN_IF_ERROR(write_file(json, plan_json(plan, subject)));
  if (plan.misfit) return std::unexpected(*plan.misfit);
  return {};
}

// Prints the plan, and writes it to the file `json` unless that is empty. The error: the layout does not divide, or
// does not fit.
Status run_plan(const PlanFlags& flags, const std::string& json) {
  const std::string& model = flags.plan.engine.model;
  std::error_code ignored;
  const bool is_folder = std::filesystem::is_directory(model, ignored);
  const bool has_weights = is_folder && (std::filesystem::exists(model + "/model.safetensors", ignored) ||
                                         std::filesystem::exists(model + "/model.safetensors.index.json", ignored));
  if (!is_folder && !(model.ends_with(".json") && std::filesystem::is_regular_file(model, ignored)))
    RETURN_IF_ERROR(check_model_folder(model));
  if (has_weights && flags.quantization.empty()) {
    ASSIGN_OR_RETURN(const ModelFiles files, ModelFiles::open(model));
    return show_plan(flags, files.config(), files,
                     {model, weights_text(target_of(files.config().quantization)), files.checkpoint().num_bytes()},
                     json);
  }
  ASSIGN_OR_RETURN(const PlannedWeights planned, planned_weights(flags, is_folder ? model + "/config.json" : model));
  return show_plan(flags, planned.config(), planned,
                   {planned.name(), weights_text(planned.target()), planned.file_bytes()}, json);
}

// Those of `check --plan`: a layout's and the engine's, as for `serve`.
void add_plan_flags(CLI::App& command, PlanFlags& flags) {
  LayoutPlanOptions& plan = flags.plan;
  command
      .add_option(
          "--quantization", flags.quantization,
          "How the weights would be stored: bf16, fp8, awq, compressed-tensors (int4) or mxfp4; as the model says if "
          "absent")
      ->check(CLI::IsMember(kPlanFormats))
      ->option_text("bf16|fp8|awq|compressed-tensors|mxfp4");
  add_whole(command, "--group-size", flags.group_size, {.least = 1},
            "Inputs that share a scale, a multiple of 32: of awq 64, of compressed-tensors 32 if absent");
  command.add_flag("--quantize-head", flags.quantize_head, "The output head as well");
  add_whole(command, "--nodes", plan.num_nodes, {.least = 1, .most = 65536},
            "Machines that share the ranks out evenly");
  command.add_option("--node-memory", plan.node_bytes, "Memory of each, e.g. 512G; absent: what is needed is told")
      ->transform(CLI::AsSizeValue(false))
      ->option_text("SIZE");
  add_whole(command, "--decode-batch", plan.decode_batch, {.least = 1},
            "Sequences of each replica in the decode step that is told of");
  add_whole(command, "--decode-context", plan.decode_context, {},
            "Tokens that each of them has; 0: 4096, or the longest if that is less");
  add_engine_flags(command, plan.engine);
  command.get_option("--model")->required(false);
  add_parallel_flags(command, plan.parallel);
}

struct CheckFlags {
  std::string file;  // of the cluster
  bool hash_everything = false;
  bool plan_only = false;
  PlanFlags plan;
  std::string json;
  std::string inspection, links;  // questions of a machine that checks this one
};

// What the cluster's first server would make of its command line.
Status read_serve_flags(ClusterCheckOptions& options) {
  CLI::App app;
  app.allow_extras();  // the flags of serve that are neither the engine's nor the layout's
  add_engine_flags(app, options.engine);
  add_parallel_flags(app, options.parallel);
  const std::unique_ptr<CLI::App> program = make_program();
  Words words = serve_arguments(options.cluster, options.replicas[0]);
  words.erase(words.begin());  // "serve"
  ASSIGN_OR_RETURN(Arguments arguments, read_arguments(*program->get_subcommand("serve"), words));
  std::ranges::reverse(arguments.words);  // as CLI11 takes them
  try {
    app.parse(arguments.words);
  } catch (const CLI::ParseError& error) {
    return make_error(ErrorCode::kInvalidArgument, "{}: {}", options.cluster.path, error.what());
  }
  return check_parallel_options(options.parallel);
}

Status run_cluster_check(const CheckFlags& flags) {
  ClusterCheckOptions options{.hash_everything = flags.hash_everything};
  ASSIGN_OR_RETURN(options.cluster, read_cluster(flags.file));
  RETURN_IF_ERROR(complete_nodes(options.cluster));
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
