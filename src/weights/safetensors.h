#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "tensor/dtype.h"

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
  // Reads them now. False, and errno: that cannot be.
  bool fetch(std::span<const std::byte> range) const;

 private:
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::span<const std::byte> bytes_;
};

}  // namespace cachalot

// The safetensors format:
//
//   8 bytes       little-endian length of the header
//   header        JSON: {"name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [begin, end]}, ..., "__metadata__":
//   {...}},
//                 padded with spaces
//   data          the tensors; offsets count from here, cover it without holes or overlaps
namespace cachalot {

// What a tensor is, without its data.
struct TensorSpec {
  std::string name;
  DType dtype = DType::kBF16;
  std::vector<int64_t> shape;

  uint64_t num_bytes() const;  // the shape is known not to overflow
};

// A tensor inside a checkpoint. Borrowed from the file that holds it.
struct TensorRef {
  TensorSpec spec;
  std::span<const std::byte> data;
  const std::string* file = nullptr;  // path, for errors
};

std::string shape_text(std::span<const int64_t> shape);  // "[2, 3]"

// Where the header says that a tensor lies, in bytes of the file.
struct TensorPlace {
  TensorSpec spec;
  uint64_t begin = 0, end = 0;
};

// Checks and reads the header of a file, given the file's first bytes (at least the whole header, if the file has it)
// and its size; every error names `path` and the tensor. The places are in the order of their data.
Result<std::vector<TensorPlace>> parse_safetensors_header(std::span<const std::byte> bytes, uint64_t file_size,
                                                          const std::string& path);

// A mapped, checked file.
class SafetensorsFile {
 public:
  static Result<SafetensorsFile> open(const std::string& path);

  const std::string& path() const { return *path_; }
  std::span<const TensorRef> tensors() const { return tensors_; }
  uint64_t num_copied_bytes() const { return num_copied_bytes_; }  // of tensors that lie misaligned in the file
  const MappedFile& mapping() const { return mapping_; }
  std::span<const std::byte> header() const { return mapping_.bytes().first(header_size_); }

 private:
  explicit SafetensorsFile(MappedFile mapping) : mapping_(std::move(mapping)) {}

  MappedFile mapping_;
  size_t header_size_ = 0;
  std::unique_ptr<std::string> path_;  // at an address of its own, which the tensors keep
  std::vector<TensorRef> tensors_;
  std::vector<std::unique_ptr<std::byte[]>> copies_;  // of such tensors
  uint64_t num_copied_bytes_ = 0;
};

}  // namespace cachalot
