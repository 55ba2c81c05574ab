#include <fmt/format.h>

#include <memory>

#include "base/file.h"
#include "base/log.h"
#include "bench/step_bench.h"
#include "cli/bench_checkpoint.h"
#include "cli/bench_commands.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/engine_flags.h"
#include "cli/parallel_flags.h"
#include "serve/rank_group.h"

namespace cachalot {
namespace {

struct StepFlags {
  BenchCheckpointFlags checkpoint;
  EngineOptions engine;
  ParallelOptions parallel;
  StepBenchOptions bench;
  bool compare = false;
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

void print(const StepFlags& flags, const std::string& weights, const RankGroup& group, const StepBenchResult& result) {
  const ParallelOptions& parallel = flags.parallel;
  fmt::print(
      "# {}{}, {}; data parallel {}, tensor parallel {}, {}; threads a rank: {}; context {}, steps {}, turns {}\n",
      flags.checkpoint.shape.empty() ? flags.engine.model : flags.checkpoint.shape,
      flags.checkpoint.num_layers > 0 ? fmt::format(" of {} layers", flags.checkpoint.num_layers) : "", weights,
      parallel.group_size() / parallel.tensor_parallel_size, parallel.tensor_parallel_size,
      parallel.enable_expert_parallel ? fmt::format("experts over {} ranks", parallel.group_size())
                                      : "a slice of every expert on each rank",
      group.placement().threads.num_threads, flags.bench.context, flags.bench.steps, flags.bench.repeat);
  fmt::print("{}", steps_table(result.figures));
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
  RETURN_IF_ERROR(group.wait_until_all_ready());
  ASSIGN_OR_RETURN(const StepBenchResult result, run_step_bench(*engine, alone.get(), flags.bench));
  group.leave();
  if (!first) return {};
  ASSIGN_OR_RETURN(const std::string weights, weight_format_name(flags.engine.model));
  print(flags, weights, group, result);
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

void add_bench_step_command(CLI::App& group) {
  auto flags = std::make_shared<StepFlags>();
  StepBenchOptions& bench = flags->bench;
  CLI::App* command = group.add_subcommand(
      "step", "Steps of many ranks: computing, exchanging and waiting of each, and beside one process");
  add_bench_checkpoint_flags(*command, flags->checkpoint);
  add_parallel_flags(*command, flags->parallel);
  command->add_option("--threads", flags->engine.threads, "Compute threads of a rank; 0: its share of cores")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  add_isa_flag(*command, flags->engine);
  command->add_option("--prompt", bench.prompt, "Tokens of each replica's prompt; 0: no prefill")
      ->check(CLI::Range(0, 8192))
      ->capture_default_str();
  command->add_option("--batch", bench.batches, "Sequences of each replica in a decode step, separated by commas")
      ->delimiter(',')
      ->check(CLI::Range(0, 256))
      ->capture_default_str();
  command->add_option("--context", bench.context, "Tokens of a sequence before its first decode step")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--steps", bench.steps, "Decode steps of a turn")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  command->add_option("--repeat", bench.repeat, "Turns of each phase; the median is printed")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
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
