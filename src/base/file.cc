#include "base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

namespace cachalot {
namespace {

const char* kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

Status check_kind(const std::string& path, const struct stat& info) {
  if (S_ISREG(info.st_mode)) return {};
  return make_error(ErrorCode::kIo, "{} is {}; a file is wanted there", path, kind_of(info.st_mode));
}

}  // namespace

std::unexpected<Error> os_error(const std::string& path, std::string_view action) {
  const int code = errno;
  return make_error(code == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "{}: cannot {}: {}", path, action,
                    std::strerror(code));
}

Result<FileDescriptor> open_file(const std::string& path) {
  struct stat info{};
  if (stat(path.c_str(), &info) != 0) return os_error(path, "open");
  RETURN_IF_ERROR(check_kind(path, info));  // before it is opened: some devices act on that
  FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!file) return os_error(path, "open");
  if (fstat(file.get(), &info) != 0) return os_error(path, "read");
  RETURN_IF_ERROR(check_kind(path, info));
  return file;
}

Result<std::string> read_file(const std::string& path, uint64_t most_bytes) {
  ASSIGN_OR_RETURN(const FileDescriptor file, open_file(path));
  struct stat info{};
  if (fstat(file.get(), &info) != 0) return os_error(path, "read");
  std::string text;
  std::array<char, 1 << 16> part;
  for (;;) {
    const uint64_t num_bytes = std::max(static_cast<uint64_t>(info.st_size), uint64_t{text.size()});
    if (num_bytes > most_bytes)
      return make_error(ErrorCode::kTooLarge, "{} has {} bytes; no file of this kind has more than {}", path, num_bytes,
                        most_bytes);
    const ssize_t size = read(file.get(), part.data(), part.size());
    if (size == 0) return text;
    if (size < 0 && errno != EINTR) return os_error(path, "read");
    if (size > 0) text.append(part.data(), static_cast<size_t>(size));
  }
}

Status write_file(const std::string& path, std::string_view text) {
  const std::string part = path + ".part";
  // A FIFO there would keep its writer waiting.
  FileDescriptor file(open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0666));
  if (!file) return os_error(part, "create");
  while (!text.empty()) {
    const ssize_t size = write(file.get(), text.data(), text.size());
    if (size < 0 && errno != EINTR) return os_error(part, "write");
    if (size > 0) text.remove_prefix(static_cast<size_t>(size));
  }
  if (!file.close()) return os_error(part, "write");
  if (std::rename(part.c_str(), path.c_str()) != 0) return os_error(path, "rename into place");
  return {};
}

std::vector<std::string> names_in_folder(const std::string& path) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, decltype([](DIR* folder) { closedir(folder); })> folder(opendir(path.c_str()));
  for (const dirent* entry = folder ? readdir(folder.get()) : nullptr; entry; entry = readdir(folder.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  return names;
}

bool readable_within(int fd, std::chrono::milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  for (;;) {
    pollfd polled{.fd = fd, .events = POLLIN, .revents = 0};
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    const int wait_ms = patience.count() < 0 ? -1 : static_cast<int>(std::clamp<int64_t>(left.count(), 0, 1 << 30));
    const int num_ready = poll(&polled, 1, wait_ms);
    if (num_ready > 0) return true;
    if (num_ready == 0 && left.count() <= 1 << 30) return false;
    if (num_ready < 0 && errno != EINTR) return false;
  }
}

}  // namespace cachalot
