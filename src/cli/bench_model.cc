#include <fmt/format.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <thread>

#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"
#include "bench/model_bench.h"
#include "cli/bench_commands.h"
#include "cli/commands.h"
#include "cli/engine_flags.h"
#include "weights/model_files.h"
#include "weights/synth.h"

namespace cachalot {
namespace {

const std::map<std::string, WeightFormat> kFormats{
    {"bf16", WeightFormat::kPlain}, {"fp8", WeightFormat::kFp8Block}, {"awq", WeightFormat::kAwq}};

struct BenchFlags {
  std::string model;        // a folder that is there, or
  std::string shape, keep;  // a random checkpoint, and where it stays
  std::string quant = "awq";
  std::string json;
  EngineOptions engine;
  ModelBenchOptions bench;
};

// A new folder that is removed with all that is in it, also when Ctrl-C or SIGTERM ends the program: it holds
// gigabytes.
class TemporaryFolder {
 public:
  static Result<std::unique_ptr<TemporaryFolder>> create() {
    std::string path = (std::filesystem::temp_directory_path() / "cachalot-bench-XXXXXX").string();
    if (!mkdtemp(path.data())) return make_error(ErrorCode::kIo, "no temporary folder can be made: {}", path);
    return std::unique_ptr<TemporaryFolder>(new TemporaryFolder(std::move(path)));
  }
  ~TemporaryFolder() {
    signals_context_.stop();
    signals_thread_.join();
    remove();
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }

 private:
  explicit TemporaryFolder(std::string path) : path_(std::move(path)) {
    signals_.async_wait([this](const boost::system::error_code& error, int signal) {
      if (error) return;
      remove();
      _exit(128 + signal);
    });
    signals_thread_ = std::thread([this] { signals_context_.run(); });
  }
  void remove() const {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  const std::string path_;
  boost::asio::io_context signals_context_;
  boost::asio::signal_set signals_{signals_context_, SIGINT, SIGTERM};
  std::thread signals_thread_;
};

Status write_checkpoint(const BenchFlags& flags, const std::string& folder) {
  ProgressBar bar("writing " + folder);
  // Every linear is quantized, the head included, so that engines compare.
  const SynthOptions options{
      .target = {.format = kFormats.at(flags.quant), .group_size = 64, .quantize_head = true},
      .on_progress = [&](uint64_t num_done, uint64_t num_total) { bar.update(num_done, num_total); }};
  RETURN_IF_ERROR(synthesize(benchmark_config(flags.shape), flags.shape, folder, options));
  return {};
}

struct LoadedModel {
  std::unique_ptr<RankEngine> engine;
  StoredModel stored;
  std::string weights;  // name of their format
};

Result<LoadedModel> load_model(EngineOptions options, const std::string& folder) {
  LoadedModel loaded;
  {
    ASSIGN_OR_RETURN(const ModelFiles files, ModelFiles::open(folder));
    loaded.stored = describe_stored_model(files.config(), files.checkpoint());
    for (const auto& [name, format] : kFormats)
      if (format == files.config().quantization.format) loaded.weights = name;
  }
  options.model = folder;
  ProgressBar bar("loading " + folder);
  ASSIGN_OR_RETURN(loaded.engine, RankEngine::create(options, [&](size_t num_done, size_t num_total) {
                     bar.update(num_done, num_total);
                   }));
  return loaded;
}

// A random checkpoint's files go as soon as the weights are packed: they would hold gigabytes of page cache.
Result<LoadedModel> make_model(const BenchFlags& flags) {
  if (!flags.model.empty()) return load_model(flags.engine, flags.model);
  if (!flags.keep.empty()) {
    RETURN_IF_ERROR(write_checkpoint(flags, flags.keep));
    return load_model(flags.engine, flags.keep);
  }
  ASSIGN_OR_RETURN(const auto folder, TemporaryFolder::create());
  RETURN_IF_ERROR(write_checkpoint(flags, folder->path()));
  return load_model(flags.engine, folder->path());
}

Status run_bench(BenchFlags flags) {
  if (flags.model.empty() && flags.shape.empty())
    return make_parameter_error("--shape", "bench model: give --shape lite or r1slice, or --model DIR");
  reserve_for_bench(flags.bench, flags.engine);
  ASSIGN_OR_RETURN(const LoadedModel loaded, make_model(flags));
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
  CLI::Option* shape = command->add_option("--shape", flags->shape, "Random weights of a shape: lite or r1slice")
                           ->check(CLI::IsMember({"lite", "r1slice"}));
  CLI::Option* quant = command->add_option("--quant", flags->quant, "Format of the random weights: awq, fp8 or bf16")
                           ->check(CLI::IsMember({"awq", "fp8", "bf16"}))
                           ->capture_default_str();
  CLI::Option* keep = command->add_option("--keep", flags->keep, "Folder for the random checkpoint, which then stays");
  command->add_option("--model", flags->model, "Folder of a model that is there, instead of a shape")
      ->excludes(shape)
      ->excludes(quant)
      ->excludes(keep);
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
