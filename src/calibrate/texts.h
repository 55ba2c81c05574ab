#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/model_config.h"
#include "core/types.h"

namespace cachalot {

inline constexpr int kSequenceTokens = 1024;  // at most; what is longer is cut off

// Sequences of tokens, at most so many tokens together, taken evenly from all over the file: text in pieces of some
// kilobytes that end with their lines; or, of a name that ends in .jsonl, lines of JSON with `messages` (and perhaps
// `tools`), which the model's chat template renders, with `text`, or with `token_ids`. Tokenizer and template are those
// of the model's folder. Errors name the file and the line.
Result<std::vector<std::vector<TokenId>>> read_calibration_texts(const std::string& path,
                                                                 const std::string& model_folder,
                                                                 const ModelConfig& config, int64_t most_tokens);

}  // namespace cachalot
