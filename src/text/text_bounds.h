#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "text/tokenizer.h"

namespace cachalot {

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
  Result<std::vector<TokenId>> encode(std::string_view text, bool add_bos) const;

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
