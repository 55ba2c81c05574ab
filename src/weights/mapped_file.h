#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>

#include "base/error.h"

namespace cachalot {

// A file mapped read-only. Pages come in on first use; the page cache is shared by all processes that map the file. One
// that is cut short meanwhile, or cannot be read, ends the process with a message that names it.
class MappedFile {
 public:
  static Result<MappedFile> open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    std::swap(bytes_, other.bytes_);  // the list of mappings goes by their addresses
    return *this;
  }
  ~MappedFile();

  std::span<const std::byte> bytes() const { return bytes_; }
  bool contains(const void* address) const {
    return address >= bytes_.data() && address < bytes_.data() + bytes_.size();
  }

  // Advice for the pages that hold a range of the mapping: read them ahead; let go of them (they come back if touched).
  void prefetch(std::span<const std::byte> range) const;
  void drop(std::span<const std::byte> range) const;

 private:
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::span<const std::byte> bytes_;
};

}  // namespace cachalot
