#pragma once

#include <CLI/CLI.hpp>

#include "config/engine_options.h"

namespace cachalot {

// The flags that say how a model is run, under vLLM's names; every subcommand that runs one has them.
void add_engine_flags(CLI::App& app, EngineOptions& options);

}  // namespace cachalot
