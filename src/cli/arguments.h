#pragma once

#include <CLI/CLI.hpp>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

namespace cachalot {

// The words behind a subcommand's name, as CLI11 is given them.
struct Arguments {
  std::vector<std::string> words;
  std::vector<std::string> notices;  // what to say of flags that were accepted, once there is a log
};

// Reads a command line as people and scripts for vLLM write it: --max_model_len, -tp 2, --no-NAME, -O3, switches with a
// value, JSON flags in parts (--speculative-config.method mtp); `serve MODEL`, `chat` with words without quotes, and
// the flags of --config FILE.yaml, before which those of the command line go. Flags of vLLM that mean nothing here are
// taken out (cli/vllm_flags.h). What comes out are flags that the command has, as "--NAME=VALUE", each once unless it
// is a list; positional words stand behind "--". Errors: an unknown flag, with the nearest that is known; a value that
// is missing or of the wrong kind; a flag that is refused; two models.
Result<Arguments> read_arguments(const CLI::App& command, std::span<const std::string> words);

}  // namespace cachalot
