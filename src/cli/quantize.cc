#include "weights/quantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <thread>

#include "base/log.h"
#include "base/progress.h"
#include "cli/commands.h"

namespace cachalot {
namespace {

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
  command->add_option("--group-size", options.target.group_size, "awq: inputs that share a scale, a multiple of 32")
      ->capture_default_str();
  command->add_option("--threads", options.num_threads, "Compute threads; 0: one a core")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  command->add_option("--shard-size", options.shard_bytes, "Largest file, e.g. 4G")
      ->transform(CLI::AsSizeValue(false))
      ->option_text("SIZE [4G]");
  command->callback([flags] { finish_command(run_quantize(*flags)); });
}

}  // namespace cachalot
