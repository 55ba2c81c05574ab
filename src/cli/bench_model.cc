#include <fmt/format.h>

#include <memory>

#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"
#include "bench/model_bench.h"
#include "cli/bench_checkpoint.h"
#include "cli/bench_commands.h"
#include "cli/commands.h"
#include "cli/engine_flags.h"
#include "weights/model_files.h"

namespace cachalot {
namespace {

struct BenchFlags {
  BenchCheckpointFlags checkpoint;
  std::string json;
  EngineOptions engine;
  ModelBenchOptions bench;
};

struct LoadedModel {
  std::unique_ptr<RankEngine> engine;
  StoredModel stored;
  std::string weights;  // name of their format
};

// A random checkpoint's files go as soon as the weights are packed: they would hold gigabytes of page cache.
Result<LoadedModel> load_model(const BenchFlags& flags) {
  ASSIGN_OR_RETURN(const auto checkpoint, BenchCheckpoint::open(flags.checkpoint));
  LoadedModel loaded;
  {
    ASSIGN_OR_RETURN(const ModelFiles files, ModelFiles::open(checkpoint->folder()));
    loaded.stored = describe_stored_model(files.config(), files.checkpoint());
  }
  ASSIGN_OR_RETURN(loaded.weights, weight_format_name(checkpoint->folder()));
  EngineOptions options = flags.engine;
  options.model = checkpoint->folder();
  ProgressBar bar("loading " + options.model);
  ASSIGN_OR_RETURN(loaded.engine, RankEngine::create(options, [&](size_t num_done, size_t num_total) {
                     bar.update(num_done, num_total);
                   }));
  return loaded;
}

Status run_bench(BenchFlags flags) {
  reserve_for_bench(flags.bench, flags.engine);
  ASSIGN_OR_RETURN(const LoadedModel loaded, load_model(flags));
  flags.bench.on_progress = [](const std::string& what) { log::info("{}", what); };
  ASSIGN_OR_RETURN(std::vector<Figure> figures, run_model_bench(*loaded.engine, loaded.stored, flags.bench));
  for (Figure& figure : figures) figure.weights = loaded.weights;
  fmt::print("{}", figures_table(figures));
  if (!flags.json.empty()) return write_file(flags.json, figures_json(figures));
  return {};
}

}  // namespace

void add_bench_model_command(CLI::App& group) {
  auto flags = std::make_shared<BenchFlags>();
  ModelBenchOptions& bench = flags->bench;
  CLI::App* command = group.add_subcommand("model", "Prefill and decode of a model on random tokens");
  add_bench_checkpoint_flags(*command, flags->checkpoint);
  command->add_option("--threads", flags->engine.threads, "Compute threads; 0: one a core")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  add_isa_flag(*command, flags->engine);
  command->add_option("--batches", bench.batches, "Sequences of a decode step, separated by commas")
      ->delimiter(',')
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  command->add_option("--prefill", bench.prefill, "Tokens of the prompt; 0: no prefill")
      ->check(CLI::Range(0, 8192))
      ->capture_default_str();
  command->add_option("--context", bench.context, "Tokens of a sequence before its first decode step")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--steps", bench.steps, "Decode steps")->check(CLI::Range(1, 1 << 20))->capture_default_str();
  command->add_option("--repeat", bench.repeat, "How often each is measured")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--json", flags->json, "Write the figures to this file as well");
  command->callback([flags] { finish_command(run_bench(*flags)); });
}

}  // namespace cachalot
