#pragma once

#include <string>
#include <string_view>

namespace cachalot {

// Splits an answer into its thought, between <think> and </think>, and the rest, as the text streams in. The opening tag may
// have been written by the chat template already: then the answer begins inside the thought.
class ReasoningParser {
 public:
  struct Piece {
    std::string reasoning, content;
  };
  explicit ReasoningParser(bool starts_inside) : inside_(starts_inside) {}

  Piece add(std::string_view text);
  Piece finish();

  // Whether a rendered prompt ends inside an open <think>.
  static bool opens_thought(std::string_view prompt);

 private:
  bool inside_ = false, closed_ = false, at_start_ = true;
  std::string pending_;  // perhaps the beginning of a tag
};

}  // namespace cachalot
