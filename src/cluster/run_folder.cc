#include "cluster/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/file.h"
#include "config/json.h"

namespace cachalot {

namespace fs = std::filesystem;

Result<RunFolder> RunFolder::open(const std::string& path, std::string flag) {
  std::error_code failed;
  if (fs::path(path).has_parent_path()) fs::create_directories(fs::path(path).parent_path(), failed);
  struct stat info{};
  if (failed || (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) || stat(path.c_str(), &info) != 0)
    return make_error(ErrorCode::kIo, "the run folder {} cannot be made: {}; --run-folder names another one", path,
                      failed ? failed.message() : std::strerror(errno));
  if (!S_ISDIR(info.st_mode) || info.st_uid != geteuid())
    return make_error(ErrorCode::kIo, "{} is no folder of this user's; --run-folder names another one", path);
  return RunFolder(path, std::move(flag));
}

std::optional<pid_t> RunFolder::owner(const std::string& name) const {
  const Result<FileDescriptor> lock = open_file(lock_path(name));
  if (!lock || flock(lock->get(), LOCK_SH | LOCK_NB) == 0 || errno != EWOULDBLOCK) return std::nullopt;
  // Whoever has just taken it is about to write its number.
  for (int attempt = 0; attempt < 100; attempt++) {
    std::ifstream file(lock_path(name));
    pid_t pid = 0;
    if (file >> pid) return pid;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return std::nullopt;
}

std::vector<std::string> RunFolder::names() const {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(path_, ignored)) {
    const fs::path& path = entry.path();
    if (path.extension() == ".lock" && owner(path.stem())) names.push_back(path.stem());
  }
  std::ranges::sort(names);
  return names;
}

Result<RunLock> RunLock::take(const RunFolder& folder, const std::string& name) {
  RunLock lock;
  lock.lock_path_ = folder.lock_path(name);
  lock.state_path_ = folder.state_path(name);
  for (;;) {
    FileDescriptor file(::open(lock.lock_path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!file)
      return make_error(ErrorCode::kIo, "{} cannot be written: {}; --run-folder names another folder", lock.lock_path_,
                        std::strerror(errno));
    if (flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
      const std::optional<pid_t> owner = folder.owner(name);
      return make_error(
          ErrorCode::kUnavailable,
          "cluster {0} is already up (pid {1}): `cachalot status {0}{2}` shows it, `cachalot down {0}{2}` stops it; "
          "another one needs another `name` in its file",
          name, owner.value_or(0), folder.flag_);
    }
    // Whoever held it before may have taken the file away in between.
    struct stat held{}, named{};
    if (fstat(file.get(), &held) != 0 || stat(lock.lock_path_.c_str(), &named) != 0 || held.st_ino != named.st_ino)
      continue;
    const std::string pid = std::to_string(getpid()) + "\n";
    if (ftruncate(file.get(), 0) != 0 || write(file.get(), pid.data(), pid.size()) != std::ssize(pid))
      return make_error(ErrorCode::kIo, "{} cannot be written: {}", lock.lock_path_, std::strerror(errno));
    lock.lock_ = std::move(file);
    return lock;
  }
}

RunLock::~RunLock() {
  if (!lock_) return;
  unlink(state_path_.c_str());
  unlink(lock_path_.c_str());
}

bool ClusterState::ready() const {
  return std::ranges::all_of(replicas, &MemberState::ready) && std::ranges::all_of(router, &MemberState::ready);
}

std::string to_json(const ClusterState& state) {
  return to_json_line(state) + "\n";
}

Result<ClusterState> parse_cluster_state(const std::string& text, const std::string& path) {
  return from_json_line<ClusterState>(text, path + " is not the state of a cluster");
}

}  // namespace cachalot
