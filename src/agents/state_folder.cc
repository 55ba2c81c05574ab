#include "agents/state_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

namespace cachalot::agents {

namespace {

constexpr const char* kFile = "epochs";
constexpr uint64_t kMostBytes = uint64_t{16} << 20;

}  // namespace

Result<StateFolder> StateFolder::open(const std::string& path, int server) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return make_error(ErrorCode::kIo, "{}: cannot be made: {}", path, error.message());
  FileDescriptor folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder) return os_error(path, "open");
  FileDescriptor lock(::openat(folder.get(), "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock) return os_error(path + "/lock", "write");
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return make_error(ErrorCode::kUnavailable,
                      "{}: another agent uses this folder; each server of a group has one of its own (--state-dir)",
                      path);
  }
  StateFolder opened(path, std::move(folder), std::move(lock));
  RETURN_IF_ERROR(opened.read(server));
  return opened;
}

Status StateFolder::read(int server) {
  const std::string name = fmt::format("{}/{}", path_, kFile);
  const auto bytes = read_file(name, kMostBytes);
  if (!bytes && bytes.error().code == ErrorCode::kNotFound) return {};
  RETURN_IF_ERROR(bytes);
  auto state = decode_state(*bytes);
  if (!state) {
    return make_error(ErrorCode::kCorrupt,
                      "{}: {}; if it is removed, this server comes to its group as a new one, which the others must "
                      "be there to admit",
                      name, state.error().message);
  }
  if (state->server != server) {
    return make_error(ErrorCode::kInvalidArgument, "{}: it is the state of server {}, and this is server {}", name,
                      state->server, server);
  }
  state_ = std::move(*state);
  return {};
}

Status StateFolder::store(const std::string& bytes) const {
  const std::string name = fmt::format("{}/{}", path_, kFile), beside = name + ".new";
  FileDescriptor file(::openat(folder_.get(), "epochs.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file) return os_error(beside, "write");
  for (size_t written = 0; written < bytes.size();) {
    const ssize_t count = ::write(file.get(), bytes.data() + written, bytes.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return os_error(beside, "write");
    written += static_cast<size_t>(count);
  }
  if (::fsync(file.get()) != 0 || !file.close()) return os_error(beside, "write");
  if (::renameat(folder_.get(), "epochs.new", folder_.get(), kFile) != 0 || ::fsync(folder_.get()) != 0)
    return os_error(name, "write");
  return {};
}

}  // namespace cachalot::agents
