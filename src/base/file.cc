#include "base/file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

namespace cachalot {
namespace {

std::unexpected<Error> os_error(const std::string& path, std::string_view action) {
  const int code = errno;
  return make_error(code == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "{}: cannot {}: {}", path, action,
                    std::strerror(code));
}

}  // namespace

Result<std::string> read_file(const std::string& path) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) return os_error(path, "open");
  std::string text(std::istreambuf_iterator<char>(file), {});
  if (file.bad() || errno == EISDIR) return os_error(path, "read");
  return text;
}

Status write_file(const std::string& path, std::string_view text) {
  const std::string part = path + ".part";
  errno = 0;
  std::ofstream file(part, std::ios::binary | std::ios::trunc);
  if (!file) return os_error(part, "create");
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
  file.close();
  if (!file) return os_error(part, "write");
  if (std::rename(part.c_str(), path.c_str()) != 0) return os_error(path, "rename into place");
  return {};
}

}  // namespace cachalot
