#include "cli/check_plan.h"

#include <fmt/format.h>

#include <filesystem>
#include <map>

#include "base/file.h"
#include "cli/engine_flags.h"
#include "cli/parallel_flags.h"
#include "config/model_folder.h"
#include "preflight/plan_text.h"
#include "weights/model_files.h"
#include "weights/planned_weights.h"

namespace cachalot {
namespace {

// The formats, also by the names that deployments of vLLM give to AWQ.
const std::map<std::string, WeightFormat> kPlanFormats{
    {"bf16", WeightFormat::kPlain},     {"fp8", WeightFormat::kFp8Block},  {"awq", WeightFormat::kAwq},
    {"awq_marlin", WeightFormat::kAwq}, {"moe_wna16", WeightFormat::kAwq}, {"moe_wna16_gcu", WeightFormat::kAwq}};

std::string weights_text(const QuantTarget& target) {
  switch (target.format) {
    case WeightFormat::kPlain:
      return "bf16 weights";
    case WeightFormat::kFp8Block:
      return "fp8 weights (blocks of 128x128)";
    case WeightFormat::kAwq:
      break;
  }
  return fmt::format("int4 weights (AWQ, groups of {})", target.group_size);
}

QuantTarget target_for(const PlanFlags& flags, const ModelConfig& config) {
  QuantTarget target = target_of(config.quantization);
  if (!flags.quantization.empty()) {
    target.format = kPlanFormats.at(flags.quantization);
    if (flags.group_size > 0) target.group_size = flags.group_size;
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
  return PlannedWeights(std::move(config), target, path);
}

Status show_plan(const PlanFlags& flags, const ModelConfig& config, const WeightCatalog& catalog,
                 const PlanSubject& subject, const std::string& json) {
  ASSIGN_OR_RETURN(const LayoutPlan plan, plan_layout(flags.plan, config, catalog));
  fmt::print("{}", plan_text(plan, subject));
  if (!json.empty()) RETURN_IF_ERROR(write_file(json, plan_json(plan, subject)));
  if (plan.misfit) return std::unexpected(*plan.misfit);
  return {};
}

}  // namespace

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

void add_plan_flags(CLI::App& command, PlanFlags& flags) {
  LayoutPlanOptions& plan = flags.plan;
  command
      .add_option("--quantization", flags.quantization,
                  "How the weights would be stored: bf16, fp8 or awq; as the model says if absent")
      ->check(CLI::IsMember(kPlanFormats))
      ->option_text("bf16|fp8|awq");
  command.add_option("--group-size", flags.group_size, "awq: inputs that share a scale, a multiple of 32 (64)")
      ->check(CLI::PositiveNumber);
  command.add_flag("--quantize-head", flags.quantize_head, "The output head as well");
  command.add_option("--nodes", plan.num_nodes, "Machines that share the ranks out evenly")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  command.add_option("--node-memory", plan.node_bytes, "Memory of each, e.g. 512G; absent: what is needed is told")
      ->transform(CLI::AsSizeValue(false))
      ->option_text("SIZE");
  command
      .add_option("--decode-batch", plan.decode_batch, "Sequences of each replica in the decode step that is told of")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      .add_option("--decode-context", plan.decode_context,
                  "Tokens that each of them has; 0: 4096, or the longest if that is less")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  add_engine_flags(command, plan.engine);
  command.get_option("--model")->required(false);
  add_parallel_flags(command, plan.parallel);
  add_ignored_flags(command);
}

}  // namespace cachalot
