#include <memory>

#include "bench/dispatch_collective.h"
#include "cli/bench_collective.h"
#include "cli/bench_commands.h"
#include "cli/commands.h"

namespace cachalot {

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

}  // namespace cachalot
