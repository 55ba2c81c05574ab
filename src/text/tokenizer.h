#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "core/types.h"

namespace cachalot {

// The tokenizer of a model folder (tokenizer.json, tokenizer_config.json): the same ids as HuggingFace's `tokenizers`.
// Immutable after load; thread-safe.
class Tokenizer {
 public:
  // Token ids must be below `vocab_size`, config.json's.
  static Result<std::unique_ptr<Tokenizer>> load(const std::string& model_folder, int vocab_size = kMaxVocabSize);
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Text to ids. Special tokens written out in the text become their ids. `add_bos`: one begin-of-sequence token first,
  // if tokenizer_config.json's add_bos_token says so and the text does not begin with it already.
  Result<std::vector<TokenId>> encode(std::string_view text, bool add_bos) const;
  // The bytes of one token ("" for special ones if `skip_special`); may be a part of a UTF-8 character.
  std::string_view token_bytes(TokenId id, bool skip_special) const;
  // Whole text of the ids; invalid UTF-8 becomes U+FFFD.
  std::string decode(std::span<const TokenId> ids, bool skip_special) const;

  bool is_special(TokenId id) const;
  std::optional<TokenId> token_id(std::string_view token) const;  // of an added or ordinary token's text
  int vocab_size() const;                                         // largest id + 1
  const std::string& bos_token() const;
  const std::string& eos_token() const;
  bool add_bos_token() const;
  const std::vector<std::string>& notes() const;  // lines to tell whoever starts it

 private:
  Tokenizer();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace cachalot
