#include "text/detokenizer.h"

#include <utility>

namespace cachalot {

StreamingDetokenizer::StreamingDetokenizer(const Tokenizer& tokenizer, std::vector<std::string> stop_strings,
                                           bool skip_special, bool include_stop)
    : tokenizer_(tokenizer), skip_special_(skip_special), stops_(std::move(stop_strings), include_stop) {}

std::string StreamingDetokenizer::add(TokenId token, bool may_stop) {
  std::string characters, released;
  characters_.add(tokenizer_.token_bytes(token, skip_special_), characters);
  if (!may_stop) return characters;
  stops_.add(characters, released);
  return released;
}

std::string StreamingDetokenizer::finish() {
  std::string characters, released;
  characters_.finish(characters);
  stops_.add(characters, released);
  stops_.finish(released);
  return released;
}

}  // namespace cachalot
