#include "weights/synth.h"

#include <map>
#include <memory>

#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"
#include "cli/commands.h"

namespace cachalot {
namespace {

const std::map<std::string, WeightFormat> kSynthFormats{
    {"bf16", WeightFormat::kPlain}, {"fp8", WeightFormat::kFp8Block}, {"awq", WeightFormat::kAwq}};

struct SynthFlags {
  std::string config, folder;
  SynthOptions options;
};

Status run_synth(SynthFlags flags) {
  ASSIGN_OR_RETURN(const std::string config, read_file(flags.config));
  ProgressBar bar("writing " + flags.folder);
  flags.options.on_progress = [&](uint64_t num_done, uint64_t num_total) { bar.update(num_done, num_total); };
  ASSIGN_OR_RETURN(const SynthSummary summary, synthesize(config, flags.config, flags.folder, flags.options));
  if (summary.num_plain > 0)
    log::warn("{} linears do not fit the format and are bf16 (config.json names them in modules_to_not_convert)",
              summary.num_plain);
  return {};
}

}  // namespace

void add_synth_command(CLI::App& app) {
  auto flags = std::make_shared<SynthFlags>();
  SynthOptions& options = flags->options;
  CLI::App* command =
      app.add_subcommand("synth", "Write a random checkpoint of any shape, for benchmarks and memory plans");
  command->add_option("--config", flags->config, "config.json of the shape (its quantization_config plays no part)")
      ->required();
  command->add_option("--out", flags->folder, "Folder to write; must not hold a model yet")->required();
  command
      ->add_option_function<std::string>(
          "--quant", [&options](const std::string& name) { options.target.format = kSynthFormats.at(name); },
          "Weight format: bf16, fp8 (128x128 blocks) or awq (int4)")
      ->check(CLI::IsMember({"bf16", "fp8", "awq"}))
      ->option_text("FORMAT [bf16]");
  command->add_option("--group-size", options.target.group_size, "awq: inputs that share a scale, a multiple of 32")
      ->capture_default_str();
  command->add_flag("--quantize-head", options.target.quantize_head, "Quantize the output head as well");
  command->add_option("--seed", options.seed, "The same seed gives the same bytes")->capture_default_str();
  command->add_option("--shard-size", options.shard_bytes, "Largest file, e.g. 4G")
      ->transform(CLI::AsSizeValue(false))
      ->option_text("SIZE [4G]");
  command->callback([flags] { finish_command(run_synth(*flags)); });
}

}  // namespace cachalot
