#pragma once

#include <optional>
#include <string>

#include "base/error.h"

namespace cachalot {

// What this program reads of a model folder's tokenizer_config.json (and of chat_template.jinja, which goes before the
// template in there). A folder without these files gives the defaults.
struct TokenizerConfig {
  std::string bos_token, eos_token;   // "": none
  std::optional<bool> add_bos_token;  // absent: what the tokenizer's own post-processor does
  std::optional<std::string> chat_template;
  std::string template_file;  // where that stands
};

Result<TokenizerConfig> load_tokenizer_config(const std::string& model_folder);

}  // namespace cachalot
