#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "bench/collective_bench.h"
#include "bench/collectives.h"
#include "cli/bench_ranks.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "config/environment.h"
#include "device/thread_pool.h"
#include "preflight/node_report.h"

namespace cachalot {
namespace {

// What `bench alltoall`, `allreduce` and `dispatch` have in common.
struct CollectiveFlags {
  CollectiveBenchOptions bench;
  BenchRanksOptions ranks;
  uint64_t max_bytes = 0;  // of a buffer; 0: no bound
};

struct CollectiveCommand {
  std::string_view name;  // "alltoall"
  std::string_view size_unit = "B";
  std::string type;                                             // asked for; must be equal on all ranks
  std::function<Result<uint64_t>(int num_ranks)> buffer_bytes;  // of one rank
  std::function<Result<std::unique_ptr<Collective>>(Mesh& mesh)> create;
};

// On rank 0, before any rank has allocated: all meet here first.
Status check_memory(const BenchPlace& place, uint64_t bytes_per_rank) {
  const uint64_t available = available_memory();
  const double needed = static_cast<double>(bytes_per_rank) * place.local_size;
  if (place.rank != 0 || available == 0 || needed <= static_cast<double>(available)) return {};
  constexpr double kGiB = 1 << 30;
  return make_error(ErrorCode::kOutOfMemory,
                    "{} ranks on this node need {:.1f} GiB of buffers, and {:.1f} GiB are free; --maxbytes makes them "
                    "smaller, --exchange-max-bytes (ECCL_ALLTOALLV_MAXSIZE) has the same sizes go in several passes",
                    place.local_size, needed / kGiB, static_cast<double>(available) / kGiB);
}

Status check_sweep(const CollectiveBenchOptions& bench) {
  if (bench.min_size == 0) return make_parameter_error("--minbytes", "--minbytes 0: the least size is 1");
  if (bench.min_size > bench.max_size) {
    return make_parameter_error("--minbytes", "--minbytes {} is more than --maxbytes {}", bench.min_size,
                                bench.max_size);
  }
  return {};
}

std::vector<std::pair<std::string, std::string>> settings_of(const CollectiveFlags& flags,
                                                             const CollectiveCommand& command) {
  const CollectiveBenchOptions& bench = flags.bench;
  return {{"bench", std::string(command.name)},
          {"--datatype", command.type},
          {"--minbytes", fmt::to_string(bench.min_size)},
          {"--maxbytes", fmt::to_string(bench.max_size)},
          {"--stepfactor", fmt::to_string(bench.step_factor)},
          {"--stepbytes", fmt::to_string(bench.step_size)},
          {"--iters", fmt::to_string(bench.iterations)},
          {"--warmup_iters", fmt::to_string(bench.warmup)},
          {"--check", fmt::to_string(bench.checks)},
          {"--exchange-max-bytes", fmt::to_string(flags.max_bytes)},
          {"--transports", flags.ranks.transports}};
}

std::vector<CollectiveTable::Rank> describe_ranks(World& world) {
  std::vector<CollectiveTable::Rank> ranks;
  for (const Member& member : world.members()) {
    const bool own = member.rank == world.rank();
    ranks.push_back({.host = member.host,
                     .pid = member.pid,
                     .transport = own ? "" : std::string(world.mesh().transport_of(member.rank))});
  }
  return ranks;
}

// What every rank says of meeting the others would bury the table. Of what is not info somebody has asked for it.
void be_quiet(const BenchPlace& place) {
  const bool others_may_be_missing = place.rank == 0 && !place.starts_others;
  if (!others_may_be_missing) log::quieten(log::Level::kError);
}

void print(const std::string& text) {
  fmt::print("{}", text);
  std::fflush(stdout);  // figures of large sizes are far apart
}

// size_help: what a size is, e.g. "bytes a rank".
void add_collective_flags(CLI::App& command, CollectiveFlags& flags, const std::string& size_help) {
  CollectiveBenchOptions& bench = flags.bench;
  command.add_option("-b,--minbytes", bench.min_size, "First size, " + size_help + "; k, M and G may follow")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  command.add_option("-e,--maxbytes", bench.max_size, "Last size")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  CLI::Option* factor = add_whole(command, "-f,--stepfactor", bench.step_factor, {.least = 2, .most = 1 << 20},
                                  "From size to size: times this");
  command.add_option("-i,--stepbytes", bench.step_size, "From size to size: plus this, instead")
      ->transform(CLI::AsSizeValue(false))
      ->excludes(factor);
  add_whole(command, "-n,--iters,--iterations", bench.iterations, {.least = 1, .most = 1'000'000},
            "Timed calls of each size; their median is printed");
  add_whole(command, "-w,--warmup_iters,--warmup", bench.warmup, {.most = 1'000'000}, "Calls before these");
  add_whole(command, "-c,--check", bench.checks, {.most = 1000},
            "Calls behind these whose results are checked; 0: none");
  command
      .add_option("--exchange-max-bytes", flags.max_bytes,
                  "Bound of a rank's buffers: what is larger goes in several passes; 0: none")
      ->envname("ECCL_ALLTOALLV_MAXSIZE")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  add_bench_ranks_flags(command, flags.ranks);
}

// Starts or meets the ranks, measures, and prints the table on rank 0. The error, also: results were wrong.
Status run_collective_command(const CollectiveFlags& flags, const CollectiveCommand& command) {
  RETURN_IF_ERROR(check_sweep(flags.bench));
  ASSIGN_OR_RETURN(const std::optional<LaunchedRank> launched, read_launched_rank([](const std::string& name) {
                     const char* const value = std::getenv(name.c_str());
                     return value ? std::optional<std::string>(value) : std::nullopt;
                   }));
  ASSIGN_OR_RETURN(const BenchPlace place,
                   find_bench_place(flags.ranks, launched, static_cast<int>(allowed_cores().size())));
  be_quiet(place);
  ASSIGN_OR_RETURN(const uint64_t bytes, command.buffer_bytes(place.size));
  RETURN_IF_ERROR(check_memory(place, bytes));
  ASSIGN_OR_RETURN(const auto ranks, BenchRanks::meet(flags.ranks, place, settings_of(flags, command)));
  World& world = ranks->world();
  ASSIGN_OR_RETURN(const std::unique_ptr<Collective> collective, command.create(world.mesh()));
  RETURN_IF_ERROR(world.membership().wait_until_all_ready());

  const CollectiveTable table{.name = command.name, .type = collective->type(), .size_unit = command.size_unit};
  if (place.rank == 0) print(table.header(describe_ranks(world), flags.bench));
  std::vector<CollectiveFigure> figures;
  RETURN_IF_ERROR(run_collective_bench(*collective, world.mesh(), flags.bench, [&](const CollectiveFigure& figure) {
    figures.push_back(figure);
    if (place.rank == 0) print(table.row(figure));
  }));
  if (place.rank == 0) print(CollectiveTable::footer(figures));
  ranks->leave();
  for (const CollectiveFigure& figure : figures) {
    if (figure.num_wrong > 0) return make_error(ErrorCode::kInternal, "bench {}: wrong results", command.name);
  }
  return {};
}

void add_bench_allreduce_command(CLI::App& group) {
  auto flags = std::make_shared<CollectiveFlags>();
  flags->bench.min_size = 1 << 10;
  flags->bench.max_size = 1 << 20;
  auto type = std::make_shared<std::string>("bfloat16");
  CLI::App* command = group.add_subcommand("allreduce", "Sums of every rank's numbers, as nccl-tests do");
  add_collective_flags(*command, *flags, "bytes of a rank's numbers");
  command->add_option("-d,--datatype", *type, "Of the numbers: bfloat16 or float")
      ->check(CLI::IsMember({"bfloat16", "float"}))
      ->capture_default_str();
  command->callback([flags, type] {
    const AllReduceCollective::Options options{.dtype = *type == "float" ? DType::kF32 : DType::kBF16,
                                               .max_size = flags->bench.max_size,
                                               .max_bytes = flags->max_bytes};
    finish_command(run_collective_command(
        *flags, {.name = "allreduce",
                 .type = *type,
                 .buffer_bytes = [=](int) { return 2 * AllReduceCollective::buffer_bytes(options); },
                 .create = [=](Mesh& mesh) { return AllReduceCollective::create(mesh, options); }}));
  });
}

void add_bench_alltoall_command(CLI::App& group) {
  auto flags = std::make_shared<CollectiveFlags>();
  flags->bench.min_size = 1 << 10;
  flags->bench.max_size = 1 << 20;
  CLI::App* command = group.add_subcommand("alltoall", "Every rank sends as much to every rank, as nccl-tests do");
  add_collective_flags(*command, *flags, "bytes that a rank sends in all");
  command->callback([flags] {
    const uint64_t max_size = flags->bench.max_size, max_bytes = flags->max_bytes;
    finish_command(run_collective_command(
        *flags, {.name = "alltoall",
                 .type = "uint8",
                 .buffer_bytes = [=](int num_ranks) -> Result<uint64_t> {
                   ASSIGN_OR_RETURN(const uint64_t bytes,
                                    AllToAllCollective::buffer_bytes(num_ranks, max_size, max_bytes));
                   return 2 * bytes;
                 },
                 .create = [=](Mesh& mesh) { return AllToAllCollective::create(mesh, max_size, max_bytes); }}));
  });
}

void add_bench_dispatch_command(CLI::App& group) {
  auto flags = std::make_shared<CollectiveFlags>();
  flags->bench.min_size = 1;
  flags->bench.max_size = 256;
  auto type = std::make_shared<std::string>("int8");
  CLI::App* command =
      group.add_subcommand("dispatch", "Rows of DeepSeek-R1 to 8 of 256 experts and their results back, sizes in rows");
  add_collective_flags(*command, *flags, "token rows that a rank brings");
  command
      ->add_option("-d,--datatype", *type,
                   "Of the rows on their way to experts: int8 (with a scale for 128 values) or bfloat16")
      ->check(CLI::IsMember({"int8", "bfloat16"}))
      ->capture_default_str();
  command->callback([flags, type] {
    const DispatchCollective::Options options{
        .row_type = *type == "int8" ? DispatchCollective::RowType::kInt8 : DispatchCollective::RowType::kBF16,
        .max_rows = flags->bench.max_size,
        .max_bytes = flags->max_bytes};
    finish_command(run_collective_command(
        *flags, {.name = "dispatch",
                 .size_unit = "rows",
                 .type = *type,
                 .buffer_bytes = [=](int num_ranks) { return DispatchCollective::buffer_bytes(num_ranks, options); },
                 .create = [=](Mesh& mesh) { return DispatchCollective::create(mesh, options); }}));
  });
}

}  // namespace

void add_bench_command(CLI::App& app) {
  CLI::App* group = app.add_subcommand("bench", "Measure speed beside what the machine allows");
  group->require_subcommand(1);
  add_bench_model_command(*group);
  add_bench_step_command(*group);
  add_bench_serve_command(*group);
  add_bench_alltoall_command(*group);
  add_bench_allreduce_command(*group);
  add_bench_dispatch_command(*group);
}

}  // namespace cachalot
