#pragma once

#include <memory>
#include <optional>
#include <string>

namespace cachalot {

// Lines that a person types: with the keys of an editor and a history where standard input is a terminal (libedit), as
// they come where it is not. Ctrl-C at the prompt ends the program.
class LineEditor {
 public:
  // The file keeps what was typed from one time to the next, for this user alone; empty: nothing is kept.
  explicit LineEditor(std::string history_file);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  // Without its end; nothing at the end of the input.
  std::optional<std::string> read_line(const char* prompt);

 private:
  struct Parts;
  std::optional<std::string> read_plain();

  std::unique_ptr<Parts> parts_;  // null: no terminal
};

// $XDG_STATE_HOME/cachalot/NAME, or ~/.local/state/cachalot/NAME, with its folder; empty if there is no home.
std::string state_file(const std::string& name);

}  // namespace cachalot
