#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace cachalot {

// Where clusters that are up on this machine leave word: NAME.lock, held by the process that watches over the cluster
// and with its id in it, and NAME.json, its state (cluster/cluster_state.h). A lock that nobody holds is of one that
// was killed.
class RunFolder {
 public:
  // Makes the folder, for this user alone. `flag`: what commands need in order to find it, " --run-folder X" or
  // nothing.
  static Result<RunFolder> open(const std::string& path, std::string flag = {});

  std::string state_path(const std::string& name) const { return path_ + "/" + name + ".json"; }
  // The process that watches over the cluster; nothing if it is not up.
  std::optional<pid_t> owner(const std::string& name) const;
  // The clusters that are up, in the order of their names.
  std::vector<std::string> names() const;

 private:
  friend class RunLock;
  RunFolder(std::string path, std::string flag) : path_(std::move(path)), flag_(std::move(flag)) {}
  std::string lock_path(const std::string& name) const { return path_ + "/" + name + ".lock"; }

  std::string path_, flag_;
};

// The right to run the cluster of that name; its end takes the files away.
class RunLock {
 public:
  static Result<RunLock> take(const RunFolder& folder, const std::string& name);
  ~RunLock();
  RunLock(RunLock&&) = default;

 private:
  RunLock() = default;

  FileDescriptor lock_;  // none: moved away
  std::string lock_path_, state_path_;
};

}  // namespace cachalot
