#pragma once

#include <CLI/CLI.hpp>
#include <span>
#include <string>
#include <string_view>
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
// taken out. What comes out are flags that the command has, as "--NAME=VALUE", each once unless it
// is a list; positional words stand behind "--". Errors: an unknown flag, with the nearest that is known; a value that
// is missing or of the wrong kind; a flag that is refused; two models.
Result<Arguments> read_arguments(const CLI::App& command, std::span<const std::string> words);

// Every flag of `vllm serve` (0.32, and older ones that scripts still carry), and what becomes of it here: scripts that
// were written for vLLM run, or are told why not. docs/vllm-flags.md is written from this table.
enum class FlagFate {
  kWorks,    // means here what it means there
  kTaken,    // accepted with one line, which says what stands in its place
  kRefused,  // what it asks for cannot be had here
};
enum class FlagValue { kSwitch, kText, kOptional /* a text or none */, kWhole, kReal, kList, kJson };

struct VllmFlag {
  std::string_view name;        // without dashes: "tensor-parallel-size"
  std::string_view short_name;  // with its dash: "-tp"; may be empty
  FlagValue value;
  FlagFate fate;
  // Values, separated by '|', by which it asks for what happens here anyway: nothing is said of them. Of a switch:
  // "false" for --no-NAME.
  std::string_view neutral;
  std::string_view sentence;  // why, or what stands in its place; of a flag that works a remark, if any
  std::string_view own_name;  // works: the name that this program has for it, if another
};

std::span<const VllmFlag> vllm_flags();  // in the order of names
// By its name, with underscores or hyphens; null if vLLM has no such flag.
const VllmFlag* find_vllm_flag(std::string_view name);
const VllmFlag* find_short_vllm_flag(std::string_view short_name);

bool is_neutral(const VllmFlag& flag, std::string_view value);
// The table as Markdown, for docs/vllm-flags.md.
std::string vllm_flags_document();

}  // namespace cachalot
