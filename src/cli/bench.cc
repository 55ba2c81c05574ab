#include "cli/bench_commands.h"
#include "cli/commands.h"

namespace cachalot {

void add_bench_command(CLI::App& app) {
  CLI::App* group = app.add_subcommand("bench", "Measure speed beside what the machine allows");
  group->require_subcommand(1);
  add_bench_model_command(*group);
  add_bench_step_command(*group);
  add_bench_alltoall_command(*group);
  add_bench_allreduce_command(*group);
  add_bench_dispatch_command(*group);
}

}  // namespace cachalot
