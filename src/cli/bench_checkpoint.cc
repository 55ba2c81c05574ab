#include "cli/bench_checkpoint.h"

#include <boost/json.hpp>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <stop_token>

#include "base/progress.h"
#include "base/stop_signals.h"
#include "weights/model_files.h"
#include "weights/synth.h"

namespace cachalot {
namespace {

const std::map<std::string, WeightFormat> kBenchFormats{
    {"bf16", WeightFormat::kPlain}, {"fp8", WeightFormat::kFp8Block}, {"awq", WeightFormat::kAwq}};

class PresentFolder : public BenchCheckpoint {
 public:
  explicit PresentFolder(std::string path) : path_(std::move(path)) {}
  const std::string& folder() const override { return path_; }

 private:
  const std::string path_;
};

class TemporaryFolder : public BenchCheckpoint {
 public:
  static Result<std::unique_ptr<TemporaryFolder>> create() {
    std::string path = (std::filesystem::temp_directory_path() / "cachalot-bench-XXXXXX").string();
    if (!mkdtemp(path.data())) return make_error(ErrorCode::kIo, "no temporary folder can be made: {}", path);
    return std::unique_ptr<TemporaryFolder>(new TemporaryFolder(std::move(path)));
  }
  ~TemporaryFolder() override { remove(); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& folder() const override { return path_; }

 private:
  explicit TemporaryFolder(std::string path) : path_(std::move(path)) {}
  void remove() const {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  const std::string path_;
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
      .target = {.format = kBenchFormats.at(flags.quant), .group_size = 64, .quantize_head = true},
      .on_progress = [&](uint64_t num_done, uint64_t num_total) { bar.update(num_done, num_total); }};
  RETURN_IF_ERROR(synthesize(config_of(flags), flags.shape, folder, options));
  return {};
}

}  // namespace

void add_bench_checkpoint_flags(CLI::App& command, BenchCheckpointFlags& flags) {
  command.add_option("--shape", flags.shape, "Random weights of a shape: lite or r1slice")
      ->check(CLI::IsMember({"lite", "r1slice"}));
  command.add_option("--layers", flags.num_layers, "Layers of the shape; 0: all that it has")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  command.add_option("--quant", flags.quant, "Format of the random weights: awq, fp8 or bf16")
      ->check(CLI::IsMember({"awq", "fp8", "bf16"}))
      ->capture_default_str();
  command.add_option("--keep", flags.keep, "Folder for the random checkpoint, which then stays");
  // A rank that another process started has that one's flags, with the folder behind them.
  command.add_option("--model", flags.model, "Folder of a model that is there, instead of a shape")->take_last();
}

Result<std::unique_ptr<BenchCheckpoint>> BenchCheckpoint::open(const BenchCheckpointFlags& flags) {
  if (flags.model.empty() == flags.shape.empty())
    return make_parameter_error("--shape", "--shape lite or r1slice is wanted, or --model DIR: one of them");
  if (!flags.model.empty()) return std::make_unique<PresentFolder>(flags.model);
  if (!flags.keep.empty()) {
    RETURN_IF_ERROR(write_checkpoint(flags, flags.keep));
    return std::make_unique<PresentFolder>(flags.keep);
  }
  ASSIGN_OR_RETURN(auto folder, TemporaryFolder::create());
  RETURN_IF_ERROR(write_checkpoint(flags, folder->folder()));
  return folder;
}

Result<std::string> weight_format_name(const std::string& folder) {
  ASSIGN_OR_RETURN(const ModelFiles files, ModelFiles::open(folder));
  for (const auto& [name, format] : kBenchFormats) {
    if (format == files.config().quantization.format) return name;
  }
  return std::string("mixed");
}

}  // namespace cachalot
