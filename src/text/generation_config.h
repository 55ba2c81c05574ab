#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "core/types.h"

namespace cachalot {

// A model folder's generation_config.json: how its makers want answers sampled where a request says nothing. What is
// absent there is absent here; a folder without the file has none of it.
struct GenerationConfig {
  std::optional<bool> do_sample;  // false: greedy
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int> top_k;  // 0: all
  std::optional<int> max_new_tokens;
  std::vector<TokenId> eos_token_ids;  // one or a list in the file
};

// `path` is named in errors.
Result<GenerationConfig> parse_generation_config(const std::string& json, const std::string& path);
Result<GenerationConfig> load_generation_config(const std::string& model_folder);

}  // namespace cachalot
