#pragma once

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "config/parallel_options.h"

namespace cachalot {

// The flags that spread a model over ranks, under vLLM's names, with the environment variables that deployments of vLLM
// set for them (the flag wins).
void add_parallel_flags(CLI::App& app, ParallelOptions& options);

// Whether the values make sense together. The model's own limits (heads, experts) are checked when it is loaded.
Status check_parallel_options(const ParallelOptions& options);

// Flags of vLLM that mean nothing here: accepted, each with one line that says why it changes nothing.
void add_ignored_flags(CLI::App& app);

}  // namespace cachalot
