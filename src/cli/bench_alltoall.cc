#include <memory>

#include "bench/collectives.h"
#include "cli/bench_collective.h"
#include "cli/bench_commands.h"
#include "cli/commands.h"

namespace cachalot {

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

}  // namespace cachalot
