#pragma once

#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

namespace cachalot {

// An open file descriptor, closed with its owner. -1: none.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() { reset(); }
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void reset() { close(); }
  // False: what was written may not be there (a full disk behind a network, say).
  bool close() { return fd_ < 0 || ::close(std::exchange(fd_, -1)) == 0; }

 private:
  int fd_ = -1;
};

// "PATH: cannot ACTION: ", and what the operating system said last; kNotFound if it is that nothing is there.
std::unexpected<Error> os_error(const std::string& path, std::string_view action);

// Opens a file for reading, and nothing that could keep its reader waiting: a directory, a FIFO, a socket or a device
// is an error that says so. Errors name the path and what the operating system said.
Result<FileDescriptor> open_file(const std::string& path);

// The most bytes of a file that is read whole, by its kind: what a person wrote (YAML, secrets; a thousand nodes with
// all their keys are a tenth of it), what goes with a model (its configuration, templates), and tables that programs
// wrote (tokenizers, indexes, questions).
inline constexpr uint64_t kMostHandwrittenBytes = uint64_t{4} << 20, kMostSettingsBytes = uint64_t{16} << 20,
                          kMostTableBytes = uint64_t{256} << 20;

// A whole file as text. A larger one is refused before anything of it is read, one that grows meanwhile on the way.
Result<std::string> read_file(const std::string& path, uint64_t most_bytes = kMostSettingsBytes);

// Writes beside the path and renames, so that a reader sees the old file or the whole new one.
Status write_file(const std::string& path, std::string_view text);

// The names of what is in a folder; none where it cannot be read, or has gone.
std::vector<std::string> names_in_folder(const std::string& path);

// Whether a descriptor can be read, or has come to its end, within `patience`; negative: waits for ever. A signal does
// not shorten it.
bool readable_within(int fd, std::chrono::milliseconds patience);

}  // namespace cachalot
