#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/text.h"
#include "core/types.h"
#include "text/tokenizer.h"

namespace cachalot {

// Lets text through up to the first stop string, and holds back what may be the beginning of one. The stop string that
// is complete first wins, of two that end together the longer; so the result does not depend on how the text is cut
// into pieces. Linear in the text, whatever the stop strings (Knuth-Morris-Pratt for each).
class StopMatcher {
 public:
  // `include_stop`: the matched stop string is let through, too. An empty stop string never matches.
  StopMatcher(std::vector<std::string> stop_strings, bool include_stop);

  // Appends to `released` the text that is certain now. After a match, nothing more.
  void add(std::string_view text, std::string& released);
  // The text ends here: appends what was held back.
  void finish(std::string& released);

  bool stopped() const { return !matched_.empty(); }
  const std::string& stop_string() const { return matched_; }

 private:
  struct Pattern {
    std::string text;
    std::vector<uint32_t>
        borders;            // [length]: the longest proper prefix of text that also ends its first `length` bytes
    uint32_t progress = 0;  // the longest prefix of text that ends what was read

    void advance(char byte);
    bool is_complete() const { return progress == text.size(); }
  };

  void stop_at(const Pattern& pattern, std::string& released);

  std::vector<Pattern> patterns_;
  bool include_stop_;
  std::string matched_;
  std::string held_;
};

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
  // What is still held back, at the end; bytes that never became a character turn into U+FFFD, or are left out if the
  // answer `is_cut`.
  std::string finish(bool is_cut = false);
  bool stopped() const { return stops_.stopped(); }
  const std::string& stop_string() const { return stops_.stop_string(); }

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  Utf8Assembler characters_;
  StopMatcher stops_;
};

// Splits an answer into its thought, between <think> and </think>, and the rest, as the text streams in. The opening
// tag may have been written by the chat template already: then the answer begins inside the thought. Only a tag that
// the answer begins with (white space aside) opens a thought, and only the first closing tag ends it, or the mark of
// something that is no thought, which stays. White space behind a thought is no part of the answer; all other text
// stays as the model wrote it.
class ReasoningParser {
 public:
  struct Piece {
    std::string reasoning, content;
  };
  // `end_mark`: begins what ends a thought without the tag; empty: nothing does. Borrowed. `keeps_space`: an answer may
  // begin with white space.
  explicit ReasoningParser(bool starts_inside, std::string_view end_mark = {}, bool keeps_space = false)
      : starts_inside_(starts_inside), end_mark_(end_mark), keeps_space_(keeps_space) {}

  Piece add(std::string_view text);
  // The answer ends here: what was held back, because it might have become a tag.
  Piece finish();

  // The next character is a part of the thought, as far as one can tell.
  bool in_thought() const { return state_ == State::kThought || (state_ == State::kStart && starts_inside_); }
  // From here on a tag is one only where ..._may_come() has said so before: it is a token, and the same text in others
  // is one that the thought or the answer is about.
  void begin_is_token() { may_begin_ = false; }
  void begin_may_come() { may_begin_ = true; }
  void end_is_token() { may_end_ = false; }
  void end_may_come() { may_end_ = true; }
  // Behind a thought, and the answer has not begun.
  bool behind_thought() const { return state_ == State::kBehind; }

  // Whether a text, the end of a prompt, ends inside an open <think>.
  static bool opens_thought(std::string_view prompt);

 private:
  enum class State { kStart, kThought, kBehind, kContent };

  void leave_start(Piece& piece);
  void read_thought(Piece& piece);

  bool starts_inside_;
  std::string_view end_mark_;
  bool keeps_space_, may_begin_ = true, may_end_ = true;
  State state_ = State::kStart;
  std::string pending_;  // perhaps the beginning of a tag
};

}  // namespace cachalot
