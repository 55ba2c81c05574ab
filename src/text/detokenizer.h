#pragma once

#include <string>
#include <vector>

#include "core/types.h"
#include "text/tokenizer.h"

namespace cachalot {

// Tokens to text, piece by piece: whole UTF-8 characters only, a character split over tokens waits for its last byte;
// holds back text that may be the beginning of a stop string. One request, one thread.
class StreamingDetokenizer {
 public:
  // Borrows the tokenizer. `include_stop`: the matched stop string is part of the text.
  StreamingDetokenizer(const Tokenizer& tokenizer, std::vector<std::string> stop_strings, bool skip_special, bool include_stop);

  // The text that is certain after this token. After a stop string matched, nothing more.
  std::string add(TokenId token);
  // What is still held back, at the end; bytes that never became a character turn into U+FFFD.
  std::string finish();
  bool stopped() const { return stopped_; }
  const std::string& stop_string() const { return matched_; }

 private:
  std::string release(bool all);

  const Tokenizer& tokenizer_;
  std::vector<std::string> stop_strings_;
  bool skip_special_, include_stop_;
  bool stopped_ = false;
  std::string matched_;
  std::string bytes_;    // not yet whole characters
  std::string pending_;  // whole characters, perhaps the beginning of a stop string
};

}  // namespace cachalot
