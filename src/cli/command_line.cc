#include "cli/command_line.h"

#include <fstream>

namespace cachalot {

Result<std::vector<std::string>> own_command_line() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  if (words.empty()) return make_error(ErrorCode::kIo, "/proc/self/cmdline cannot be read");
  return words;
}

}  // namespace cachalot
