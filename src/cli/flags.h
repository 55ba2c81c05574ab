#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.h"
#include "config/model_config.h"
#include "config/options.h"

// Kinds of flags, each with an error that names the flag, the value and what would be right.
namespace cachalot {

// A whole number as people and vLLM write it: 4096, -1, 4k (4,000), 4K (4,096), 1M, 1.5k.
std::optional<int64_t> parse_whole_number(std::string_view text);
std::optional<double> parse_real_number(std::string_view text);  // finite

struct WholeRange {
  int64_t least = 0;
  int64_t most = std::numeric_limits<int32_t>::max();
  std::vector<std::pair<std::string, int64_t>> words;  // "auto", and what it stands for
};
struct RealRange {
  double least = 0, most = std::numeric_limits<double>::max();
};

namespace flag_values {
int64_t read_whole(const CLI::Option& option, const std::string& text, const WholeRange& range);
double read_real(const CLI::Option& option, const std::string& text, const RealRange& range);
std::string default_text(double value);

template <class Value>
struct Bare {
  using Type = Value;
};
template <class Value>
struct Bare<std::optional<Value>> {
  using Type = Value;
};

// Of several values the last holds where CLI11 is told so.
template <class Target, class Read>
CLI::Option* add(CLI::App& app, const std::string& name, Target& target, const std::string& help, Read read) {
  const auto self = std::make_shared<const CLI::Option*>();
  CLI::Option* option = app.add_option(
      name,
      [&target, self, read = std::move(read)](const CLI::results_t& results) {
        target = static_cast<typename Bare<Target>::Type>(read(**self, results.back()));
        return true;
      },
      help);
  *self = option;
  return option;
}
}  // namespace flag_values

// An option whose value is a whole number; the target may be an optional one.
template <class Target>
CLI::Option* add_whole(CLI::App& app, const std::string& name, Target& target, WholeRange range,
                       const std::string& help) {
  std::string shown;
  if constexpr (std::is_arithmetic_v<Target>) {
    if (std::cmp_greater_equal(target, range.least)) shown = std::to_string(target);
  }
  return flag_values::add(app, name, target, help,
                          [range = std::move(range)](const CLI::Option& option, const std::string& text) {
                            return flag_values::read_whole(option, text, range);
                          })
      ->type_name("N")
      ->default_str(shown);
}

// Several of them, between commas.
CLI::Option* add_whole_list(CLI::App& app, const std::string& name, std::vector<int>& target, WholeRange range,
                            const std::string& help);

// The same for a number with a fraction.
template <class Target>
CLI::Option* add_real(CLI::App& app, const std::string& name, Target& target, RealRange range,
                      const std::string& help) {
  std::string shown;
  if constexpr (std::is_arithmetic_v<Target>) shown = flag_values::default_text(target);
  return flag_values::add(app, name, target, help,
                          [range](const CLI::Option& option, const std::string& text) {
                            return flag_values::read_real(option, text, range);
                          })
      ->type_name("X")
      ->default_str(shown);
}

// 0: any free one.
inline const WholeRange kPortRange{.most = 65535};

// An option whose value is one of some words.
template <class Enum>
CLI::Option* add_choice(CLI::App& app, const std::string& name, Enum& target,
                        std::vector<std::pair<std::string, Enum>> choices, const std::string& help) {
  std::string words, current, type;
  for (const auto& [word, value] : choices) {
    words += (words.empty() ? "" : ", ") + word;
    type += (type.empty() ? "" : ",") + word;
    if (value == target && current.empty()) current = word;
  }
  return app
      .add_option_function<std::string>(
          name,
          [&target, choices = std::move(choices), words, name](const std::string& text) {
            for (const auto& [word, value] : choices) {
              if (word != text) continue;
              target = value;
              return;
            }
            throw CLI::ValidationError(name, "\"" + text + "\" is not one of " + words);
          },
          help)
      ->type_name("TEXT:{" + type + "}")  // as CLI::IsMember shows them
      ->option_text("TEXT [" + current + "]")
      ->trigger_on_parse();
}

// --NAME and --no-NAME, of which the last one given holds; without either, `target` keeps what it has. (CLI11 2.1
// writes false into the variable of a flag "--x,!--no-x" that was never given.)
template <class Target>
void add_switch(CLI::App& app, const std::string& name, Target& target, const std::string& help) {
  app.add_flag_callback("--" + name, [&target] { target = true; }, help);
  app.add_flag_callback("--no-" + name, [&target] { target = false; }, "The opposite");
}

// Formats of weights by their names on a command line.
inline const std::map<std::string, WeightFormat> kWeightFormats{{"bf16", WeightFormat::kPlain},
                                                                {"fp8", WeightFormat::kFp8Block},
                                                                {"awq", WeightFormat::kAwq},
                                                                {"compressed-tensors", WeightFormat::kPackedInt},
                                                                {"mxfp4", WeightFormat::kMxfp4}};

// Where traces go.
void add_trace_flags(CLI::App& app, TraceOptions& traces);

// The flags that say how a model is run, under vLLM's names; every subcommand that runs one has them.
void add_engine_flags(CLI::App& app, EngineOptions& options);
void add_isa_flag(CLI::App& app, EngineOptions& options);  // one of them

// Of what connects ranks.
void add_transports_flag(CLI::App& app, std::string& transports);
CLI::Option* add_agents_flag(CLI::App& app, AgentsOptions& agents);
CLI::Option* add_state_dir_flag(CLI::App& app, AgentsOptions& agents);
CLI::Option* add_group_secret_flag(CLI::App& app, std::string& file);

// The flags that spread a model over ranks, under vLLM's names, with the environment variables that deployments of vLLM
// set for them (the flag wins).
void add_parallel_flags(CLI::App& app, ParallelOptions& options);

// Who may come in, and how: of a server and of the router.
void add_door_flags(CLI::App& app, DoorOptions& door);
Status check_door(const DoorOptions& door);

// Keys that open the API: those of the flag and the file, else CACHALOT_API_KEY's, else VLLM_API_KEY's. Says which,
// where they differ. The error: an empty key, which would open nothing or everything.
Status complete_api_keys(std::vector<std::string>& keys, const std::string& key_file);

// Whether the values make sense together. The model's own limits (heads, experts) are checked when it is loaded.
Status check_parallel_options(const ParallelOptions& options);

}  // namespace cachalot
