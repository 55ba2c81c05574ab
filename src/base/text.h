#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cachalot {

// Bytes of a stranger, a peer or a file, as they may stand in an error, a log line or JSON, whatever they are: in
// single quotes, on one line, valid UTF-8, and no longer than a reader wants. Letters of any script stay; quotes,
// backslashes, what moves a terminal's cursor or turns its text, and what is no UTF-8 become escapes:
// 'it\'s\n\x1b[2J\u{202e}\xff'. Behind max_bytes it is cut: 'the first ones'... (70000 bytes).
std::string quoted(std::string_view bytes, size_t max_bytes = 120);
// The same for a whole message of another process, in which quotes and backslashes are its own: without quotes.
std::string escaped(std::string_view bytes, size_t max_bytes = 2000);
// A name among the words of a line: bare if it is plain (letters, digits, "-_., "), else quoted.
std::string name_text(std::string_view bytes, size_t max_bytes = 80);

// The first of many names, as name_text() writes them: "a, b and 61 more".
std::string listed(const std::vector<std::string>& names, size_t max_names = 5);

// Without white space at both ends.
std::string_view trimmed(std::string_view text);
// Lists of names that stand between single spaces: whether one of them is `word`, and all of them.
bool has_word(std::string_view words, std::string_view word);
std::vector<std::string> words_of(std::string_view words);

// "1 rank", "2 ranks"
std::string counted(int64_t count, std::string_view thing);

// How many bytes at the end of a text that streams in may be the beginning of the mark, which is not in it.
size_t partial_mark(std::string_view text, std::string_view mark);

// The number that the whole text is, in decimal; none if it is anything else, or does not fit.
template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}
// The number that a text begins with, and zero if it begins with none.
template <class Number>
Number leading_number(std::string_view text) {
  Number number{};
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

// Of the names that somebody may have meant, the one with the fewest letters changed; empty if none is like it.
std::string nearest_name(std::string_view name, const std::vector<std::string>& known);

// Bytes to text, as they come: whole characters pass, the beginning of one waits for its rest, and what can no longer
// become a character turns into U+FFFD, one for each maximal part (as Unicode recommends, and Rust's from_utf8_lossy
// does).
class Utf8Assembler {
 public:
  void add(std::string_view bytes, std::string& text);
  // What still waits will not be completed.
  void finish(std::string& text);

 private:
  std::string waiting_;  // the beginning of one character, at most 3 bytes
};

std::string to_valid_utf8(std::string_view bytes);

}  // namespace cachalot
