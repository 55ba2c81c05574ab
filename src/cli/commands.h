#pragma once

#include <CLI/CLI.hpp>

#include "base/error.h"

// One function a subcommand, each in a file of its own: it adds the subcommand with its flags and what it does.
namespace cachalot {

void add_serve_command(CLI::App& app);
void add_router_command(CLI::App& app);
void add_chat_command(CLI::App& app);
void add_logits_command(CLI::App& app);
void add_eval_command(CLI::App& app);
void add_synth_command(CLI::App& app);
void add_quantize_command(CLI::App& app);
void add_bench_command(CLI::App& app);
void add_up_command(CLI::App& app);
void add_down_command(CLI::App& app);
void add_status_command(CLI::App& app);
void add_lease_command(CLI::App& app);
void add_check_command(CLI::App& app);

// Ends a subcommand: an error is printed to stderr and becomes the exit status 1.
void finish_command(const Status& status);

}  // namespace cachalot
