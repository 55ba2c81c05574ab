#pragma once

#include <CLI/CLI.hpp>

// The subcommands of `bench`, each in a file of its own.
namespace cachalot {

void add_bench_model_command(CLI::App& group);
void add_bench_alltoall_command(CLI::App& group);
void add_bench_allreduce_command(CLI::App& group);
void add_bench_dispatch_command(CLI::App& group);
void add_bench_step_command(CLI::App& group);

}  // namespace cachalot
