#include <memory>

#include "bench/collectives.h"
#include "cli/bench_collective.h"
#include "cli/bench_commands.h"
#include "cli/commands.h"

namespace cachalot {

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

}  // namespace cachalot
