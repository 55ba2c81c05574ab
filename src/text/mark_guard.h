#pragma once

#include <array>
#include <boost/json/object.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace cachalot {

// Between turns, thoughts and calls a prompt has marks: tokens that the tokenizer adds to the model's own
// ("<｜Assistant｜>"). Whoever wrote one into a message would forge a turn. So a sign is put into the marks that stand
// in what a template is given, before it sees them; where a sign stands in the prompt, what looks like a mark is text.
// Thread-safe.
class MarkGuard {
 public:
  explicit MarkGuard(const Tokenizer& tokenizer);

  // Of all strings and keys of a template's context, but for the tags of thoughts in what assistants said, which
  // templates look for. The sign; empty: there was nothing to break.
  std::string_view break_marks(boost::json::object& context) const;
  // Takes the signs out of a prompt: the places where they stood, in order, for Tokenizer::encode.
  static std::vector<size_t> take_out(std::string_view sign, std::string& prompt);

 private:
  struct Marks {
    explicit Marks(std::vector<std::string> marks);
    std::vector<std::string> texts;  // sorted
    std::array<bool, 256> begins_some{};
  };

  // False: there are none, and nothing was changed. An empty sign: nothing is.
  static bool break_in(const Marks& marks, std::string_view sign, boost::json::value& value);
  static bool break_in_text(const Marks& marks, std::string_view sign, std::string_view text, std::string& broken);
  bool break_all(std::string_view sign, boost::json::object& context) const;

  Marks marks_, marks_without_tags_;
};

}  // namespace cachalot
