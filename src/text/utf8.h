#pragma once

#include <string>
#include <string_view>

namespace cachalot {

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
