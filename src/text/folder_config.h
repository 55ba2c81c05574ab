#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "core/types.h"

namespace cachalot {

// What this program reads of a model folder's tokenizer_config.json (and of chat_template.jinja, which goes before the
// template in there). A folder without these files gives the defaults.
struct TokenizerConfig {
  struct AddedToken {
    TokenId id = 0;
    std::string text;
    bool is_special = false;
  };
  std::string tokenizer_class;
  std::string bos_token, eos_token;   // "": none
  std::optional<bool> add_bos_token;  // absent: what the tokenizer's own post-processor does
  // added_tokens_decoder, or what is wrong with it: beside a tokenizer.json it plays no part.
  Result<std::vector<AddedToken>> added_tokens;
  std::optional<std::string> chat_template;
  std::string template_file;  // where that stands
};

Result<TokenizerConfig> load_tokenizer_config(const std::string& model_folder);

// A model folder's generation_config.json: how its makers want answers sampled where a request says nothing. What is
// absent there is absent here; a folder without the file has none of it. Every value is one that a request may have.
struct GenerationConfig {
  std::optional<bool> do_sample;  // false: greedy
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int> top_k;  // 0: all; null or -1 in the file
  std::optional<int> max_new_tokens;
  std::vector<TokenId> eos_token_ids;  // one or a list in the file
  std::vector<std::string> notes;      // lines to tell whoever starts it: keys that play no part here
};

// `path` is named in errors; `vocab_size` bounds the token ids.
Result<GenerationConfig> parse_generation_config(const std::string& json, const std::string& path,
                                                 int vocab_size = kMaxVocabSize);
// What a JSON object of the same keys says goes before what `config` holds; `source` is named in errors, of which an
// unknown key is one.
Status override_generation_config(const std::string& json, const std::string& source, int vocab_size,
                                  GenerationConfig& config);
Result<GenerationConfig> load_generation_config(const std::string& model_folder, int vocab_size = kMaxVocabSize);

}  // namespace cachalot
