#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/cluster_file.h"
#include "config/options.h"

namespace cachalot {

// Each adds one subcommand with its flags and what it does.
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
void add_report_command(CLI::App& app);
void add_lease_command(CLI::App& app);
void add_confirm_lost_command(CLI::App& app);
void add_check_command(CLI::App& app);
void add_eplb_command(CLI::App& app);
void add_completion_command(CLI::App& app);
void add_man_command(CLI::App& app);

// Of `bench`.
void add_bench_model_command(CLI::App& group);
void add_bench_step_command(CLI::App& group);
void add_bench_serve_command(CLI::App& group);

// Ends a subcommand: an error is printed to stderr and becomes the exit status 1.
void finish_command(const Status& status);

// The words by which this process was started, the program's name first: for the ranks that it starts in its likeness.
Result<std::vector<std::string>> own_command_line();

// Where clusters that are up leave word; the same for `up`, `down`, `status` and `report`.
void add_run_folder_flag(CLI::App& app, std::string& run_folder);

// Where an agent keeps its state: below the run folder unless the path is absolute; if nobody names one, by its number
// and all addresses, so that another group on the same machine has another one.
void complete_state_dir(AgentsOptions& agents, int server);

// The cluster of a file, or the built-in one if that is empty. The sections `serve` and `router` hold flags that those
// commands know, with values that they take; else the error names file, line and key.
Result<ClusterFile> read_cluster(const std::string& file);

// All of them.
std::unique_ptr<CLI::App> make_program();

// Runs the program for the words behind its name; its exit status: 0, 1 if a command failed (which has said why), 2 if
// the words make no sense.
int run_program(const std::vector<std::string>& words);

}  // namespace cachalot
