#pragma once

#include <string>
#include <vector>

#include "base/text.h"
#include "core/types.h"
#include "text/stop_matcher.h"
#include "text/tokenizer.h"

namespace cachalot {

// Tokens to text, piece by piece: whole UTF-8 characters only, a character split over tokens waits for its last byte;
// holds back text that may be the beginning of a stop string. One request, one thread.
class StreamingDetokenizer {
 public:
  // Borrows the tokenizer. `include_stop`: the matched stop string is part of the text.
  StreamingDetokenizer(const Tokenizer& tokenizer, std::vector<std::string> stop_strings, bool skip_special,
                       bool include_stop);

  // The text that is certain after this token. After a stop string matched, nothing more. `may_stop`: false for the
  // first tokens of an answer that must have so many (min_tokens): no stop string is looked for in them.
  std::string add(TokenId token, bool may_stop = true);
  // What is still held back, at the end; bytes that never became a character turn into U+FFFD.
  std::string finish();
  bool stopped() const { return stops_.stopped(); }
  const std::string& stop_string() const { return stops_.stop_string(); }

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  Utf8Assembler characters_;
  StopMatcher stops_;
};

}  // namespace cachalot
