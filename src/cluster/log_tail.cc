#include "cluster/log_tail.h"

#include <filesystem>
#include <fstream>
#include <iterator>

namespace cachalot {

LogTail::LogTail(std::string path) : path_(std::move(path)) {
  std::error_code missing;
  const auto size = std::filesystem::file_size(path_, missing);
  if (!missing) offset_ = static_cast<int64_t>(size);
}

std::vector<std::string> LogTail::new_lines() {
  std::vector<std::string> lines;
  std::error_code missing;
  const auto size = std::filesystem::file_size(path_, missing);
  if (missing || static_cast<int64_t>(size) <= offset_) return lines;
  std::ifstream file(path_, std::ios::binary);
  file.seekg(offset_);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  offset_ += static_cast<int64_t>(text.size());
  rest_ += text;
  size_t begin = 0;
  for (size_t end = rest_.find('\n'); end != std::string::npos; end = rest_.find('\n', begin)) {
    lines.push_back(rest_.substr(begin, end - begin));
    begin = end + 1;
  }
  rest_.erase(0, begin);

  return lines;
}

}  // namespace cachalot
