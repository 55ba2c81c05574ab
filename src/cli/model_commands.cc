#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <thread>

#include "base/file.h"
#include "base/log.h"
#include "base/math.h"
#include "base/progress.h"
#include "base/stop_signals.h"
#include "calibrate/calibrate.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "engine/participate.h"
#include "engine/rank_engine.h"
#include "serve/rank_group.h"
#include "serve/rank_reports.h"
#include "weights/checkpoint_writer.h"
#include "weights/quantize.h"
#include "weights/synth.h"

namespace cachalot {

namespace {

struct LogitsOptions {
  EngineOptions engine;
  ParallelOptions parallel;
  int replica = 0;
  std::vector<TokenId> tokens;
  int generated_from = -1;
  std::string output, report;
};

Status write_logits(const std::string& path, View<const float, 2> logits) {
  ASSIGN_OR_RETURN(
      SafetensorsWriter writer,
      SafetensorsWriter::create(
          path, {{.name = "logits", .dtype = DType::kF32, .shape = {logits.extent(0), logits.extent(1)}}}));
  RETURN_IF_ERROR(
      writer.write("logits", 0, std::as_bytes(std::span(logits.data(), static_cast<size_t>(logits.size())))));
  return writer.finish();
}

void print_likeliest(const std::vector<TokenId>& tokens, View<const float, 2> logits) {
  for (int64_t row = 0; row < logits.extent(0); row++) {
    const auto best = std::max_element(logits.row(row), logits.row(row) + logits.extent(1)) - logits.row(row);
    fmt::print("token {} (id {}): likeliest next id {}, logit {:.6f}\n", row, tokens[static_cast<size_t>(row)], best,
               logits(row, best));
  }
}

Status check_tokens(const std::vector<TokenId>& tokens, int vocab_size) {
  for (const TokenId token : tokens) {
    if (token < 0 || token >= vocab_size)
      return make_parameter_error("--tokens", "--tokens: {} is no token id; the model has 0 to {}", token,
                                  vocab_size - 1);
  }
  return {};
}

// Of the leader of --replica, which started all other ranks.
Status lead(const LogitsOptions& options, RankGroup& group) {
  ASSIGN_OR_RETURN(auto engine, RankEngine::create(options.engine, group.placement(), {}));
  const int vocab_size = engine->config().vocab_size;
  RETURN_IF_ERROR(check_tokens(options.tokens, vocab_size));
  RETURN_IF_ERROR(group.meet(*engine));
  std::vector<float> logits(options.tokens.size() * static_cast<size_t>(vocab_size));
  const View<float, 2> view(logits.data(), options.tokens.size(), vocab_size);
  RETURN_IF_ERROR(
      compute_sequence_logits(*engine, {.tokens = options.tokens, .generated_from = options.generated_from}, view));
  const std::vector<int64_t> resident_bytes = measure_resident_bytes(group.reports(engine->report()));
  RETURN_IF_ERROR(leave_group(*engine));
  const RankReport own = engine->report();
  group.leave();
  group.wait_for_children();
  const std::vector<RankReport> reports = group.reports(own);
  if (!options.report.empty())
    RETURN_IF_ERROR(write_file(options.report, rank_reports_json(reports, group.members(), resident_bytes,
                                                                 engine->model().settings().placement.get())));
  if (!options.output.empty()) return write_logits(options.output, view);
  print_likeliest(options.tokens, view);
  return {};
}

Status run_logits(LogitsOptions options) {
  const auto num_tokens = static_cast<int>(options.tokens.size());
  options.engine.num_gpu_blocks_override = ceil_div(num_tokens, options.engine.block_size);
  options.engine.max_model_len = num_tokens;
  const bool started = options.parallel.rank_board_fd >= 0;
  if (!started) options.parallel.data_parallel_rank = options.replica;
  RETURN_IF_ERROR(check_parallel_options(options.parallel));
  RankGroupOptions group_options{.engine = options.engine,
                                 .parallel = options.parallel,
                                 .starts = Starts::kGroup,
                                 .command_line = {},
                                 .stop = stop_token_of_signals()};
  if (started) return run_started_rank(group_options);
  ASSIGN_OR_RETURN(group_options.command_line, own_command_line());
  ASSIGN_OR_RETURN(const auto group, RankGroup::join(group_options));
  if (const Status status = lead(options, *group); !status) return std::unexpected(group->give_up(status.error()));
  return {};
}

}  // namespace

void add_logits_command(CLI::App& app) {
  auto options = std::make_shared<LogitsOptions>();
  CLI::App* command = app.add_subcommand("logits", "Compute the logits of a sequence of token ids, to compare engines");
  add_engine_flags(*command, options->engine);
  options->parallel.survive = Survive::kNone;  // one answer, which ends with its ranks
  add_parallel_flags(*command, options->parallel);
  add_whole(*command, "--replica", options->replica, {}, "Which replica computes; the others take part with zero rows");
  command->add_option("--tokens", options->tokens, "Token ids, separated by commas")->required()->delimiter(',');
  add_whole(*command, "--generated-from", options->generated_from, {},
            "Tokens from this index on have the role \"generated\" and come one a step");
  command->add_option("--output", options->output,
                      "Write `logits` [num_tokens, vocab_size] F32 to this safetensors file");
  command->add_option("--report", options->report, "Write what each rank held and did to this JSON file");
  command->callback([options] { finish_command(run_logits(*options)); });
}

namespace {

// Where --group-size was not given.
void settle(QuantTarget& target) {
  if (target.group_size == 0) target.group_size = usual_group_size(target.format);
}

struct SynthFlags {
  std::string config, folder;
  SynthOptions options = {.target = {.group_size = 0}};
};

Status run_synth(SynthFlags flags) {
  settle(flags.options.target);
  ASSIGN_OR_RETURN(const std::string config, read_file(flags.config));
  ProgressBar bar("writing " + flags.folder);
  flags.options.on_progress = [&](uint64_t num_done, uint64_t num_total) { bar.update(num_done, num_total); };
  ASSIGN_OR_RETURN(const SynthSummary summary, synthesize(config, flags.config, flags.folder, flags.options));
  if (summary.num_plain > 0)
    log::warn("{} linears do not fit the format and are bf16 (config.json names them)", summary.num_plain);
  return {};
}

struct QuantizeFlags {
  std::string model, folder, texts;
  int64_t calibration_tokens = CalibrateOptions().most_tokens;
  QuantizeOptions options = {.target = {.format = WeightFormat::kAwq, .group_size = 0}, .num_threads = 0};
};

constexpr int64_t kFewTokens = 2048;

Result<Foldings> run_calibration(const QuantizeFlags& flags, const ModelFiles& files) {
  CalibrateOptions options{.target = flags.options.target,
                           .texts = flags.texts,
                           .most_tokens = flags.calibration_tokens,
                           .num_threads = flags.options.num_threads};
  Result<Calibration> calibration = [&] {
    ProgressBar bar("calibrating " + flags.model, "layers");
    options.on_progress = [&](uint64_t num_done, uint64_t num_total) { bar.update(num_done, num_total); };
    return calibrate(files, options);
  }();
  if (!calibration) return std::unexpected(calibration.error());
  if (calibration->num_tokens < kFewTokens)
    log::warn("{}: {} tokens are few to calibrate with; some thousands are better", flags.texts,
              calibration->num_tokens);
  fmt::print("{}: {} tokens; error of the linears' outputs {:.2f} %, rounded to nearest {:.2f} %\n", flags.texts,
             calibration->num_tokens, calibration->error * 100, calibration->plain_error * 100);
  return std::move(calibration->foldings);
}

Status run_quantize(QuantizeFlags flags) {
  settle(flags.options.target);
  if (!flags.texts.empty()) {
    if (flags.options.target.format == WeightFormat::kFp8Block)
      return make_parameter_error("--calibrate",
                                  "--calibrate: is for awq, compressed-tensors and mxfp4; fp8 needs no calibration");
    flags.options.calibrate = [&](const ModelFiles& files) { return run_calibration(flags, files); };
  }
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

// The first of the formats is what the target has.
void add_format_flags(CLI::App& command, QuantTarget& target, const std::vector<std::string>& formats,
                      const std::string& help) {
  command
      .add_option_function<std::string>(
          "--quant", [&target](const std::string& name) { target.format = kWeightFormats.at(name); }, help)
      ->check(CLI::IsMember(formats))
      ->option_text("FORMAT [" + formats[0] + "]");
  add_whole(command, "--group-size", target.group_size, {.least = 1},
            "Inputs that share a scale, a multiple of 32: of awq 64, of compressed-tensors 32 if absent");
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
  add_format_flags(*command, options.target, {"bf16", "fp8", "awq", "compressed-tensors", "mxfp4"},
                   "Weight format: bf16, fp8 (128x128 blocks), awq or compressed-tensors (int4), or mxfp4");
  command->add_flag("--quantize-head", options.target.quantize_head, "Quantize the output head as well");
  add_whole(*command, "--seed", options.seed, {.most = std::numeric_limits<int64_t>::max()},
            "The same seed gives the same bytes");
  add_real(*command, "--routing-skew", options.routing_skew, {1, 64},
           "So many times the mean rows choose the busiest expert of each layer (models whose routing has a bias)");
  command->add_option("--shard-size", options.shard_bytes, "Largest file, e.g. 4G")
      ->transform(CLI::AsSizeValue(false))
      ->option_text("SIZE [4G]");
  command->callback([flags] { finish_command(run_synth(*flags)); });
}

void add_quantize_command(CLI::App& app) {
  auto flags = std::make_shared<QuantizeFlags>();
  QuantizeOptions& options = flags->options;
  CLI::App* command =
      app.add_subcommand("quantize", "Round a bf16 or fp8 model's linears to int4, MXFP4 or fp8 blocks");
  command->add_option("--model", flags->model, "Folder of the model")->required();
  command->add_option("--out", flags->folder, "Folder to write; must not hold a model yet")->required();
  add_format_flags(*command, options.target, {"awq", "compressed-tensors", "mxfp4", "fp8"},
                   "Weight format: awq (int4 with zero points), compressed-tensors (int4 without), mxfp4 (in "
                   "compressed-tensors' form) or fp8 (128x128 blocks)");
  command
      ->add_option("--calibrate", flags->texts,
                   "Text, or .jsonl lines with `messages`, `text` or `token_ids`, by whose activations weights of four "
                   "bits are scaled and rounded (AWQ)")
      ->type_name("FILE");
  add_whole(*command, "--calibration-tokens", flags->calibration_tokens, {.least = 1, .most = 1 << 20},
            "Tokens of it that are run, at most");
  add_whole(*command, "--threads", options.num_threads, {.most = 4096}, "Compute threads; 0: one a core");
  command->add_option("--shard-size", options.shard_bytes, "Largest file, e.g. 4G")
      ->transform(CLI::AsSizeValue(false))
      ->option_text("SIZE [4G]");
  command->callback([flags] { finish_command(run_quantize(*flags)); });
}

}  // namespace cachalot
