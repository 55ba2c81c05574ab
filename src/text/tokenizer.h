#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "core/types.h"
#include "text/folder_config.h"

struct cachalot_tokenizer;  // of the Rust part

namespace cachalot {

// The tokenizer of a model folder: the same ids as HuggingFace's `tokenizers` of tokenizer.json or, where there is
// none, as Kimi's code of tiktoken.model; with tokenizer_config.json. Immutable after load; thread-safe.
class Tokenizer {
 public:
  // Token ids must be below `vocab_size`, config.json's.
  static Result<std::unique_ptr<Tokenizer>> load(const std::string& model_folder, int vocab_size = kMaxVocabSize);

  // The file that load() reads.
  static std::string file_of(const std::string& model_folder);

  // Text to ids. Special tokens written out in the text become their ids. `add_bos`: one begin-of-sequence token first,
  // if tokenizer_config.json's add_bos_token says so and the text does not begin with it already.
  // `guards`: places in the text, in order, that no token of the tokenizer's own goes over: what would be one is text.
  Result<std::vector<TokenId>> encode(std::string_view text, bool add_bos, std::span<const size_t> guards = {}) const;
  // The bytes of one token ("" for special ones if `skip_special`); may be a part of a UTF-8 character.
  std::string_view token_bytes(TokenId id, bool skip_special) const;
  // Whole text of the ids; invalid UTF-8 becomes U+FFFD.
  std::string decode(std::span<const TokenId> ids, bool skip_special) const;

  bool is_special(TokenId id) const { return id >= 0 && id < vocab_size() && is_special_[static_cast<size_t>(id)]; }
  std::optional<TokenId> token_id(std::string_view token) const;           // of an added or ordinary token's text
  int vocab_size() const { return static_cast<int>(is_special_.size()); }  // largest id + 1
  // The texts of added tokens that are no words ("<｜User｜>", "</think>", "[gMASK]", but not "/nothink").
  std::vector<std::string> marks() const;
  // What ends a turn by the tokens' names, whatever the model's files say of ends.
  std::vector<TokenId> turn_end_ids() const;
  // Long texts are cut somewhere, whatever that does to tokens, as the model's own code cuts them.
  bool cuts_texts() const { return is_tiktoken_; }
  const std::string& bos_token() const { return config_.bos_token; }
  const std::string& eos_token() const { return config_.eos_token; }
  bool add_bos_token() const { return add_bos_; }
  const std::vector<std::string>& notes() const { return notes_; }         // lines to tell whoever starts it
  const cachalot_tokenizer* rust_handle() const { return handle_.get(); }  // for the parts of text/ that stand on it

 private:
  struct Deleter {
    void operator()(cachalot_tokenizer* handle) const;
  };
  Tokenizer() = default;
  Result<std::vector<TokenId>> encode_with(std::string_view text, bool post_process,
                                           std::span<const size_t> guards = {}) const;
  Status read_tokens(const std::string& path);

  std::unique_ptr<cachalot_tokenizer, Deleter> handle_;
  std::string bytes_;                 // of every token, one after another
  std::vector<size_t> begins_ = {0};  // [id] in them; one more at the end
  std::vector<bool> is_special_;      // [id]
  std::vector<TokenId> added_ids_;
  TokenizerConfig config_;
  std::optional<TokenId> bos_id_;
  bool add_bos_ = false, is_tiktoken_ = false;
  std::vector<std::string> notes_;
};

// What can be said of a text before it is tokenized, which of a hopelessly long one takes minutes and gigabytes.
// Thread-safe.
class TextBounds {
 public:
  // Walks the vocabulary; borrows the tokenizer.
  explicit TextBounds(const Tokenizer& tokenizer);

  // At least so many tokens has the text: no token has more bytes, digits, letters, ... than the one that has most.
  int64_t least_num_tokens(std::string_view text) const;

  // As Tokenizer::encode. A long text is tokenized in pieces where that gives the same tokens: memory for one piece at
  // a time, 90 bytes for each of its own.
  Result<std::vector<TokenId>> encode(std::string_view text, bool add_bos, std::span<const size_t> guards = {}) const;

 private:
  enum Kind { kDigit, kLetter, kSpace, kHigh, kOther, kAny, kNumKinds };
  using Counts = std::array<int64_t, kNumKinds>;
  static Counts count(std::string_view text);
  bool cuts_before_lines() const;
  size_t piece_size(std::string_view text) const;

  const Tokenizer& tokenizer_;
  Counts most_of_a_token_{};      // [kind]
  bool may_change_text_ = false;  // the tokenizer normalizes: bytes of tokens are not those of the text
  bool may_cut_ = false;
};

}  // namespace cachalot
