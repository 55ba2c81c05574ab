#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <thread>

#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/flag_values.h"
#include "weights/quantize.h"
#include "weights/synth.h"

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

const std::map<std::string, WeightFormat> kQuantizeFormats{{"awq", WeightFormat::kAwq},
                                                           {"fp8", WeightFormat::kFp8Block}};

struct QuantizeFlags {
  std::string model, folder;
  QuantizeOptions options = {.num_threads = 0};
};

Status run_quantize(QuantizeFlags flags) {
  if (flags.options.num_threads == 0)
    flags.options.num_threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  Result<QuantizeSummary> summary = [&] {
    ProgressBar bar("quantizing " + flags.model);
    flags.options.on_progress = [&](uint64_t num_done, uint64_t num_total) { bar.update(num_done, num_total); };
    return quantize_model(flags.model, flags.folder, flags.options);
  }();
  if (!summary) return std::unexpected(summary.error());
  for (const std::string& name : summary->kept) log::warn("{} does not fit the format and stays as it was", name);
  fmt::print("{}: {} linears quantized, {} -> {}, relative error of the weights {:.2f} %\n", flags.folder,
             summary->num_quantized, bytes_text(summary->num_bytes_read), bytes_text(summary->num_bytes_written),
             summary->relative_error * 100);
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
  add_whole(*command, "--group-size", options.target.group_size, {.least = 1},
            "awq: inputs that share a scale, a multiple of 32");
  command->add_flag("--quantize-head", options.target.quantize_head, "Quantize the output head as well");
  add_whole(*command, "--seed", options.seed, {.most = std::numeric_limits<int64_t>::max()},
            "The same seed gives the same bytes");
  command->add_option("--shard-size", options.shard_bytes, "Largest file, e.g. 4G")
      ->transform(CLI::AsSizeValue(false))
      ->option_text("SIZE [4G]");
  command->callback([flags] { finish_command(run_synth(*flags)); });
}

void add_quantize_command(CLI::App& app) {
  auto flags = std::make_shared<QuantizeFlags>();
  QuantizeOptions& options = flags->options;
  CLI::App* command =
      app.add_subcommand("quantize", "Round a bf16 or fp8 model's linears to AWQ-format int4 or to fp8 blocks");
  command->add_option("--model", flags->model, "Folder of the model")->required();
  command->add_option("--out", flags->folder, "Folder to write; must not hold a model yet")->required();
  command
      ->add_option_function<std::string>(
          "--quant", [&options](const std::string& name) { options.target.format = kQuantizeFormats.at(name); },
          "Weight format: awq (int4) or fp8 (128x128 blocks)")
      ->check(CLI::IsMember({"awq", "fp8"}))
      ->option_text("FORMAT [awq]");
  add_whole(*command, "--group-size", options.target.group_size, {.least = 1},
            "awq: inputs that share a scale, a multiple of 32");
  add_whole(*command, "--threads", options.num_threads, {.most = 4096}, "Compute threads; 0: one a core");
  command->add_option("--shard-size", options.shard_bytes, "Largest file, e.g. 4G")
      ->transform(CLI::AsSizeValue(false))
      ->option_text("SIZE [4G]");
  command->callback([flags] { finish_command(run_quantize(*flags)); });
}

}  // namespace cachalot
