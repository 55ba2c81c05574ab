#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "config/engine_options.h"

namespace cachalot {

// The flags that say how a model is run, under vLLM's names; every subcommand that runs one has them.
void add_engine_flags(CLI::App& app, EngineOptions& options);
void add_isa_flag(CLI::App& app, EngineOptions& options);  // one of them

// --NAME and --no-NAME, of which the last one given holds; without either, `target` keeps what it has. (CLI11 2.1
// writes false into the variable of a flag "--x,!--no-x" that was never given.)
template <class Target>
void add_switch(CLI::App& app, const std::string& name, Target& target, const std::string& help) {
  app.add_flag_callback("--" + name, [&target] { target = true; }, help);
  app.add_flag_callback("--no-" + name, [&target] { target = false; }, "The opposite");
}

}  // namespace cachalot
