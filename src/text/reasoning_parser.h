#pragma once

#include <string>
#include <string_view>

namespace cachalot {

// Splits an answer into its thought, between <think> and </think>, and the rest, as the text streams in. The opening
// tag may have been written by the chat template already: then the answer begins inside the thought. Only a tag that
// the answer begins with (white space aside) opens a thought, and only the first closing tag ends it; all other text,
// white space around the tags included, stays as the model wrote it.
class ReasoningParser {
 public:
  struct Piece {
    std::string reasoning, content;
  };
  explicit ReasoningParser(bool starts_inside) : starts_inside_(starts_inside) {}

  Piece add(std::string_view text);
  // The answer ends here: what was held back, because it might have become a tag.
  Piece finish();

  // The next character is a part of the thought, as far as one can tell.
  bool in_thought() const { return state_ == State::kThought || (state_ == State::kStart && starts_inside_); }

  // Whether a text, the end of a prompt, ends inside an open <think>.
  static bool opens_thought(std::string_view prompt);

 private:
  enum class State { kStart, kThought, kContent };

  void leave_start(Piece& piece);
  void read_thought(Piece& piece);

  bool starts_inside_;
  State state_ = State::kStart;
  std::string pending_;  // perhaps the beginning of a tag
};

}  // namespace cachalot
