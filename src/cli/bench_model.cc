#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/stop_signals.h"
#include "bench/model_bench.h"
#include "bench/step_bench.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "serve/rank_group.h"
#include "weights/model_files.h"
#include "weights/synth.h"

namespace cachalot {
namespace {

// The model of a measurement: a folder that is there, or random weights of a shape.
struct BenchCheckpointFlags {
  std::string model;
  std::string shape, keep;  // keep: where the random checkpoint stays
  std::string quant = "awq";
  int num_layers = 0;       // of the shape; 0: all
  double routing_skew = 1;  // of the shape's
};

// The model's folder while this object lives. A random checkpoint goes with it, also when Ctrl-C or SIGTERM ends the
// program: it holds gigabytes.
class BenchCheckpoint {
 public:
  // Writes the random checkpoint, if it is to be one. Errors: neither or both of model and shape; the disk.
  static Result<std::unique_ptr<BenchCheckpoint>> open(const BenchCheckpointFlags& flags);
  BenchCheckpoint(std::string folder, bool is_temporary) : folder_(std::move(folder)), is_temporary_(is_temporary) {}
  ~BenchCheckpoint() { remove(); }
  BenchCheckpoint(const BenchCheckpoint&) = delete;
  BenchCheckpoint& operator=(const BenchCheckpoint&) = delete;
  const std::string& folder() const { return folder_; }

 private:
  void remove() const {
    std::error_code ignored;
    if (is_temporary_) std::filesystem::remove_all(folder_, ignored);
  }

  const std::string folder_;
  const bool is_temporary_;
  const std::stop_callback<std::function<void()>> on_signal_{stop_token_of_signals(), [this] { remove(); }};
};

std::string config_of(const BenchCheckpointFlags& flags) {
  boost::json::object config = boost::json::parse(benchmark_config(flags.shape)).as_object();
  if (flags.num_layers > 0) config["num_hidden_layers"] = flags.num_layers;
  return boost::json::serialize(config);
}

Status write_checkpoint(const BenchCheckpointFlags& flags, const std::string& folder) {
  ProgressBar bar("writing " + folder);
  // Every linear is quantized, the head included, so that engines compare.
  const SynthOptions options{
      .target = {.format = kWeightFormats.at(flags.quant),
                 .group_size = usual_group_size(kWeightFormats.at(flags.quant)),
                 .quantize_head = true},
      .routing_skew = flags.routing_skew,
      .on_progress = [&](uint64_t num_done, uint64_t num_total) { bar.update(num_done, num_total); }};
  RETURN_IF_ERROR(synthesize(config_of(flags), flags.shape, folder, options));
  return {};
}

void add_bench_checkpoint_flags(CLI::App& command, BenchCheckpointFlags& flags) {
  command
      .add_option("--shape", flags.shape,
                  fmt::format("Random weights of a shape: {}", fmt::join(benchmark_shapes(), ", ")))
      ->check(CLI::IsMember(benchmark_shapes()));
  add_whole(command, "--layers", flags.num_layers, {.most = 1000}, "Layers of the shape; 0: all that it has");
  command.add_option("--quant", flags.quant, "Format of the random weights")
      ->check(CLI::IsMember({"awq", "compressed-tensors", "mxfp4", "fp8", "bf16"}))
      ->capture_default_str();
  add_real(command, "--routing-skew", flags.routing_skew, {1, 64},
           "Of the random weights: so many times the mean rows choose the busiest expert of each layer");
  command.add_option("--keep", flags.keep, "Folder for the random checkpoint, which then stays");
  // A rank that another process started has that one's flags, with the folder behind them.
  command.add_option("--model", flags.model, "Folder of a model that is there, instead of a shape")->take_last();
}

Result<std::unique_ptr<BenchCheckpoint>> BenchCheckpoint::open(const BenchCheckpointFlags& flags) {
  if (flags.model.empty() == flags.shape.empty())
    return make_parameter_error("--shape", "--shape ({}) is wanted, or --model DIR: one of them",
                                fmt::join(benchmark_shapes(), ", "));
  if (!flags.model.empty()) return std::make_unique<BenchCheckpoint>(flags.model, false);
  std::string folder = flags.keep;
  if (folder.empty()) {
    folder = (std::filesystem::temp_directory_path() / "cachalot-bench-XXXXXX").string();
    if (!mkdtemp(folder.data())) return make_error(ErrorCode::kIo, "no temporary folder can be made: {}", folder);
  }
  auto checkpoint = std::make_unique<BenchCheckpoint>(folder, flags.keep.empty());
  RETURN_IF_ERROR(write_checkpoint(flags, folder));
  return checkpoint;
}

// The name of the format that the folder's weights have.
Result<std::string> weight_format_name(const std::string& folder) {
  ASSIGN_OR_RETURN(const ModelFiles files, ModelFiles::open(folder));
  for (const auto& [name, format] : kWeightFormats) {
    if (format == files.config().quantization.format) return name;
  }
  return std::string("mixed");
}

struct BenchFlags {
  BenchCheckpointFlags checkpoint;
  std::string json;
  bool beside_dense = false;
  EngineOptions engine;
  ModelBenchOptions bench;
};

struct LoadedModel {
  std::unique_ptr<RankEngine> engine;
  StoredModel stored;
  std::string weights;  // name of their format
};

Result<LoadedModel> load_model(const BenchFlags& flags, const std::string& folder) {
  LoadedModel loaded;
  {
    ASSIGN_OR_RETURN(const ModelFiles files, ModelFiles::open(folder));
    if (flags.beside_dense && !files.config().indexer)
      return make_parameter_error("--beside-dense",
                                  "--beside-dense: the shape has no indexer, and dense attention only");
    loaded.stored = describe_stored_model(files.config(), files.checkpoint());
  }
  ASSIGN_OR_RETURN(loaded.weights, weight_format_name(folder));
  EngineOptions options = flags.engine;
  options.model = folder;
  ProgressBar bar("loading " + options.model);
  ASSIGN_OR_RETURN(loaded.engine, RankEngine::create(options, [&](size_t num_done, size_t num_total) {
                     bar.update(num_done, num_total);
                   }));
  return loaded;
}

Result<std::vector<Figure>> measure(const BenchFlags& flags, const LoadedModel& loaded) {
  ASSIGN_OR_RETURN(std::vector<Figure> figures, run_model_bench(*loaded.engine, loaded.stored, flags.bench));
  for (Figure& figure : figures) figure.weights = loaded.weights;
  return figures;
}

// Rows choose among more positions than there are: attention is the dense one.
Status choose_all(const std::string& folder, int num_positions) {
  const std::string path = folder + "/config.json";
  ASSIGN_OR_RETURN(const std::string text, read_file(path));
  boost::json::object config = boost::json::parse(text).as_object();
  config["index_topk"] = num_positions;
  return write_file(path, boost::json::serialize(config));
}

Status run_bench(BenchFlags flags) {
  if (flags.beside_dense && (flags.checkpoint.shape.empty() || !flags.checkpoint.keep.empty()))
    return make_parameter_error(
        "--beside-dense", "--beside-dense changes config.json: it needs a --shape that does not stay (no --keep)");
  reserve_for_bench(flags.bench, flags.engine);
  flags.bench.on_progress = [](const std::string& what) { log::info("{}", what); };
  ASSIGN_OR_RETURN(auto checkpoint, BenchCheckpoint::open(flags.checkpoint));
  std::vector<Figure> figures;
  if (flags.beside_dense) {
    ASSIGN_OR_RETURN(const LoadedModel sparse, load_model(flags, checkpoint->folder()));
    ASSIGN_OR_RETURN(figures, measure(flags, sparse));
    RETURN_IF_ERROR(choose_all(checkpoint->folder(), flags.engine.max_model_len));
  }
  ASSIGN_OR_RETURN(const LoadedModel loaded, load_model(flags, checkpoint->folder()));
  checkpoint.reset();  // a random one's files would hold gigabytes of page cache
  ASSIGN_OR_RETURN(std::vector<Figure> others, measure(flags, loaded));
  for (Figure& figure : others) {
    if (flags.beside_dense) figure.phase += ", dense";
    figures.push_back(std::move(figure));
  }
  fmt::print("{}", figures_table(figures));
  if (!flags.json.empty()) return write_file(flags.json, figures_json(figures));
  return {};
}

struct StepFlags {
  BenchCheckpointFlags checkpoint;
  EngineOptions engine;
  ParallelOptions parallel;
  StepBenchOptions bench;
  bool compare = false, moves = false;
  std::string trace, json;

  bool started() const { return parallel.rank_board_fd >= 0; }  // by rank 0's process
};

Status check(const StepFlags& flags) {
  RETURN_IF_ERROR(check_parallel_options(flags.parallel));
  if (flags.parallel.data_parallel_size > 1 && !flags.parallel.spans_replicas()) {
    return make_parameter_error("--data-parallel-size",
                                "--data-parallel-size {}: replicas step together only with --enable-expert-parallel",
                                flags.parallel.data_parallel_size);
  }
  return {};
}

// One process that does all ranks' work with as many threads.
Result<std::unique_ptr<RankEngine>> load_alone(const StepFlags& flags, const RankGroup& group) {
  const ParallelOptions& parallel = flags.parallel;
  EngineOptions options = flags.engine;
  options.threads = parallel.group_size() * group.placement().threads.num_threads;
  reserve_for_steps(flags.bench, parallel.group_size() / parallel.tensor_parallel_size, options);
  log::info("loading the model for one process with {} threads", options.threads);
  return RankEngine::create(options, {});
}

void print(const StepFlags& flags, const std::string& weights, const RankGroup& group, const std::string& table) {
  const ParallelOptions& parallel = flags.parallel;
  fmt::print(
      "# {}{}, {}; data parallel {}, tensor parallel {}, {}; threads a rank: {}; context {}, steps {}, turns {}\n",
      flags.checkpoint.shape.empty() ? flags.engine.model : flags.checkpoint.shape,
      flags.checkpoint.num_layers > 0 ? fmt::format(" of {} layers", flags.checkpoint.num_layers) : "", weights,
      parallel.group_size() / parallel.tensor_parallel_size, parallel.tensor_parallel_size,
      parallel.enable_expert_parallel ? fmt::format("experts over {} ranks", parallel.group_size())
                                      : "a slice of every expert on each rank",
      group.placement().threads.num_threads, flags.bench.context, flags.bench.steps, flags.bench.repeat);
  fmt::print("{}", table);
}

Status measure(const StepFlags& flags, RankGroup& group) {
  const bool first = !flags.started();
  EngineOptions options = flags.engine;
  reserve_for_steps(flags.bench, 1, options);
  ASSIGN_OR_RETURN(const auto engine,
                   RankEngine::create(options, group.placement(), [&](size_t num_done, size_t num_total) {
                     group.set_loaded(num_done, num_total);
                   }));
  std::unique_ptr<RankEngine> alone;
  if (first && flags.compare) {
    ASSIGN_OR_RETURN(alone, load_alone(flags, group));
  }
  RETURN_IF_ERROR(group.meet(*engine));
  StepBenchResult result;
  std::vector<MoveFigure> moves;
  if (flags.moves) {
    ASSIGN_OR_RETURN(moves, run_moves_bench(*engine, flags.bench));
  } else {
    ASSIGN_OR_RETURN(result, run_step_bench(*engine, alone.get(), flags.bench));
  }
  group.leave();
  if (!first) return {};
  ASSIGN_OR_RETURN(const std::string weights, weight_format_name(flags.engine.model));
  print(flags, weights, group, flags.moves ? moves_table(moves) : steps_table(result.figures));
  if (!flags.json.empty()) RETURN_IF_ERROR(write_file(flags.json, steps_json(result.figures)));
  if (!flags.trace.empty()) RETURN_IF_ERROR(write_file(flags.trace, chrome_trace(result.events)));
  group.wait_for_children();
  return {};
}

Status run_bench(StepFlags flags) {
  RETURN_IF_ERROR(check(flags));
  if (flags.started()) log::quieten();  // the first rank speaks for all
  BenchCheckpointFlags checkpoint_flags = flags.checkpoint;
  if (flags.started()) checkpoint_flags.shape.clear();
  ASSIGN_OR_RETURN(const auto checkpoint, BenchCheckpoint::open(checkpoint_flags));
  flags.engine.model = checkpoint->folder();
  flags.bench.on_progress = [](const std::string& what) { log::info("{}", what); };

  RankGroupOptions group_options{
      .engine = flags.engine, .parallel = flags.parallel, .starts = Starts::kGroup, .command_line = {}};
  // What the ranks compare with each other, too.
  reserve_for_steps(flags.bench, 1, group_options.engine);
  if (!flags.started()) {
    ASSIGN_OR_RETURN(group_options.command_line, own_command_line());
    group_options.command_line.push_back("--model=" + checkpoint->folder());
  }
  ASSIGN_OR_RETURN(const auto group, RankGroup::join(group_options));
  if (const Status status = measure(flags, *group); !status) return std::unexpected(group->give_up(status.error()));
  return {};
}

}  // namespace

void add_bench_model_command(CLI::App& group) {
  auto flags = std::make_shared<BenchFlags>();
  ModelBenchOptions& bench = flags->bench;
  CLI::App* command = group.add_subcommand("model", "Prefill and decode of a model on random tokens");
  add_bench_checkpoint_flags(*command, flags->checkpoint);
  add_whole(*command, "--threads", flags->engine.threads, {.most = 4096}, "Compute threads; 0: one a core");
  add_isa_flag(*command, flags->engine);
  add_whole_list(*command, "--batches", bench.batches, {.least = 1, .most = 256},
                 "Sequences of a decode step, separated by commas");
  add_whole(*command, "--prefill", bench.prefill, {.most = 8192}, "Tokens of the prompt; 0: no prefill");
  add_whole(*command, "--context", bench.context, {.least = 1, .most = 1 << 20},
            "Tokens of a sequence before its first decode step");
  command->add_flag("--beside-dense", flags->beside_dense,
                    "Then the same weights with dense attention (shapes with an indexer)");
  add_whole(*command, "--steps", bench.steps, {.least = 1, .most = 1 << 20}, "Decode steps");
  add_whole(*command, "--repeat", bench.repeat, {.least = 1, .most = 1000}, "How often each is measured");
  command->add_option("--json", flags->json, "Write the figures to this file as well");
  command->callback([flags] { finish_command(run_bench(*flags)); });
}

void add_bench_step_command(CLI::App& group) {
  auto flags = std::make_shared<StepFlags>();
  StepBenchOptions& bench = flags->bench;
  CLI::App* command = group.add_subcommand(
      "step", "Steps of many ranks: computing, exchanging and waiting of each, and beside one process");
  add_bench_checkpoint_flags(*command, flags->checkpoint);
  flags->parallel.survive = Survive::kNone;  // a measurement ends with its ranks
  add_parallel_flags(*command, flags->parallel);
  add_whole(*command, "--threads", flags->engine.threads, {.most = 4096},
            "Compute threads of a rank; 0: its share of cores");
  add_isa_flag(*command, flags->engine);
  add_whole(*command, "--prompt", bench.prompt, {.most = 8192}, "Tokens of each replica's prompt; 0: no prefill");
  add_whole_list(*command, "--batch", bench.batches, {.most = 256},
                 "Sequences of each replica in a decode step, separated by commas");
  add_whole(*command, "--context", bench.context, {.least = 1, .most = 1 << 20},
            "Tokens of a sequence before its first decode step");
  add_whole(*command, "--steps", bench.steps, {.least = 1, .most = 1 << 16}, "Decode steps of a turn");
  add_whole(*command, "--repeat", bench.repeat, {.least = 1, .most = 1000},
            "Turns of each phase; the median is printed");
  command->add_flag("--moves", flags->moves,
                    "With --enable-eplb: --steps times --repeat decode steps, before, while and after experts move");
  command->add_flag("--compare", flags->compare,
                    "One process with as many threads does the same in turns with the ranks (needs the model's memory "
                    "twice)");
  command->add_option("--trace", flags->trace,
                      "Write what each rank did when to this file, for chrome://tracing or ui.perfetto.dev");
  command->add_option("--json", flags->json, "Write the figures to this file as well");
  command->callback([flags] {
    // No sequences: no decode.
    std::erase(flags->bench.batches, 0);
    finish_command(run_bench(*flags));
  });
}

}  // namespace cachalot
