#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/engine_options.h"
#include "config/parallel_options.h"

namespace cachalot {

// The flags that say how a model is run, under vLLM's names; every subcommand that runs one has them.
void add_engine_flags(CLI::App& app, EngineOptions& options);
void add_isa_flag(CLI::App& app, EngineOptions& options);  // one of them

// The flags that spread a model over ranks, under vLLM's names, with the environment variables that deployments of vLLM
// set for them (the flag wins).
void add_parallel_flags(CLI::App& app, ParallelOptions& options);

// Keys that open the API: those of the flag, else CACHALOT_API_KEY's, else VLLM_API_KEY's. Says which, where they
// differ. The error: an empty key, which would open nothing or everything.
Status complete_api_keys(std::vector<std::string>& keys);

// Whether the values make sense together. The model's own limits (heads, experts) are checked when it is loaded.
Status check_parallel_options(const ParallelOptions& options);

}  // namespace cachalot
