#pragma once

#include <span>
#include <string>
#include <string_view>

// Every flag of `vllm serve` (0.32, and older ones that scripts still carry), and what becomes of it here: scripts that
// were written for vLLM run, or are told why not. docs/vllm-flags.md is written from this table.
namespace cachalot {

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

std::span<const VllmFlag> vllm_flags();
// By its name, with underscores or hyphens; null if vLLM has no such flag.
const VllmFlag* find_vllm_flag(std::string_view name);
const VllmFlag* find_short_vllm_flag(std::string_view short_name);

bool is_neutral(const VllmFlag& flag, std::string_view value);
// The table as Markdown, for docs/vllm-flags.md.
std::string vllm_flags_document();

}  // namespace cachalot
