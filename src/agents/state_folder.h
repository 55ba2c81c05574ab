#pragma once

#include <optional>
#include <string>

#include "agents/log_state.h"
#include "base/file.h"

namespace cachalot::agents {

// An agent's folder on a real disk (--state-dir): the file `epochs` in it, which is written beside and renamed, each
// time synced with its folder. Locked while this lives: two agents must not share what one of them remembers.
class StateFolder {
 public:
  // Makes the folder where it is missing. Errors name it, or the file in it, and say what to do: another process has
  // it, it is damaged, it is another server's, or cannot be written.
  static Result<StateFolder> open(const std::string& path, int server);

  // What it held when it was opened; none: nothing.
  const std::optional<LogState>& state() const { return state_; }
  // Returns when the state would outlive a crash. Errors: it is as before.
  Status store(const std::string& bytes) const;

 private:
  StateFolder(std::string path, FileDescriptor folder, FileDescriptor lock)
      : path_(std::move(path)), folder_(std::move(folder)), lock_(std::move(lock)) {}
  Status read(int server);

  std::string path_;
  FileDescriptor folder_, lock_;
  std::optional<LogState> state_;
};

}  // namespace cachalot::agents
