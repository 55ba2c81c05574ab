#include "cli/line_editor.h"

#include <histedit.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <clocale>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <iostream>
#include <stop_token>

#include "base/stop_signals.h"
#include "config/environment.h"

namespace cachalot {
namespace {

constexpr int kMostLines = 1000;  // of the history

}  // namespace

struct LineEditor::Parts {
  EditLine* editor = nullptr;
  History* history = nullptr;
  HistEvent event = {};
  std::string file;
  const char* prompt = "";
  termios before = {};  // the terminal, as it is to be left
  const std::stop_callback<std::function<void()>> on_signal{stop_token_of_signals(),
                                                            [this] { tcsetattr(STDIN_FILENO, TCSANOW, &before); }};

  ~Parts() {
    if (history != nullptr) history_end(history);
    if (editor != nullptr) el_end(editor);
  }
};

LineEditor::LineEditor(std::string history_file) {
  if (isatty(STDIN_FILENO) != 1 || isatty(STDOUT_FILENO) != 1) return;
  // Letters beyond ASCII are one each, also where the environment names no language.
  if (std::setlocale(LC_CTYPE, "") == nullptr || MB_CUR_MAX == 1) std::setlocale(LC_CTYPE, "C.UTF-8");
  auto parts = std::make_unique<Parts>();
  tcgetattr(STDIN_FILENO, &parts->before);
  parts->editor = el_init("cachalot", stdin, stdout, stderr);
  parts->history = history_init();
  if (parts->editor == nullptr || parts->history == nullptr) return;
  parts->file = std::move(history_file);
  el_set(parts->editor, EL_CLIENTDATA, parts.get());
  el_set(
      parts->editor, EL_PROMPT, +[](EditLine* editor) {
        Parts* own = nullptr;
        el_get(editor, EL_CLIENTDATA, &own);
        return const_cast<char*>(own->prompt);
      });
  el_set(parts->editor, EL_EDITOR, "emacs");
  el_set(parts->editor, EL_SIGNAL, 1);  // stopped and continued, it puts the terminal right
  history(parts->history, &parts->event, H_SETSIZE, kMostLines);
  history(parts->history, &parts->event, H_SETUNIQUE, 1);
  el_set(parts->editor, EL_HIST, history, parts->history);
  if (!parts->file.empty()) history(parts->history, &parts->event, H_LOAD, parts->file.c_str());
  parts_ = std::move(parts);
}

LineEditor::~LineEditor() = default;

std::optional<std::string> LineEditor::read_line(const char* prompt) {
  if (!parts_) return read_plain();
  parts_->prompt = prompt;
  int num_bytes = 0;
  const char* const text = el_gets(parts_->editor, &num_bytes);
  if (text == nullptr || num_bytes <= 0) {
    std::fputs("\n", stdout);
    return std::nullopt;
  }
  std::string line(text, static_cast<size_t>(num_bytes));
  while (line.ends_with('\n') || line.ends_with('\r')) line.pop_back();
  if (line.find_first_not_of(" \t") == line.npos) return line;
  history(parts_->history, &parts_->event, H_ENTER, line.c_str());
  if (!parts_->file.empty()) {
    const mode_t before = umask(077);
    history(parts_->history, &parts_->event, H_SAVE, parts_->file.c_str());
    umask(before);
  }
  return line;
}

std::optional<std::string> LineEditor::read_plain() {
  std::string line;
  if (!std::getline(std::cin, line)) return std::nullopt;
  return line;
}

std::string state_file(const std::string& name) {
  std::string folder = environment_variable("XDG_STATE_HOME");
  if (!folder.starts_with('/')) {
    folder = environment_variable("HOME");
    if (!folder.starts_with('/')) return {};
    folder += "/.local/state";
  }
  folder += "/cachalot";
  std::error_code failed;
  const mode_t before = umask(077);
  std::filesystem::create_directories(folder, failed);
  umask(before);
  return failed ? std::string() : folder + "/" + name;
}

}  // namespace cachalot
