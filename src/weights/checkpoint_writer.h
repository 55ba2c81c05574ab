#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "weights/safetensors.h"

namespace cachalot {

inline constexpr uint64_t kDefaultShardBytes = 4ull << 30;

// One safetensors file of known tensors, filled in any order and by any threads; it gets its name when it is finished,
// so that a file with the right name is a whole one. Wide dtypes lie first, which keeps every tensor aligned.
class SafetensorsWriter {
 public:
  static Result<SafetensorsWriter> create(const std::string& path, std::vector<TensorSpec> tensors);

  SafetensorsWriter(SafetensorsWriter&&) = default;
  SafetensorsWriter& operator=(SafetensorsWriter&&) = delete;
  ~SafetensorsWriter();  // an unfinished file is removed

  // Bytes [offset, offset + data.size()) of a tensor. Thread-safe.
  Status write(std::string_view tensor, uint64_t offset, std::span<const std::byte> data);
  Status finish();

 private:
  struct Place {
    uint64_t begin, size;
  };
  SafetensorsWriter(std::string path, FileDescriptor file) : path_(std::move(path)), file_(std::move(file)) {}
  std::string part_path() const { return path_ + ".part"; }
  Status write_at(uint64_t position, std::span<const std::byte> data);

  std::string path_;
  FileDescriptor file_;  // until it is finished
  std::map<std::string, Place, std::less<>> places_;
};

// A checkpoint's tensors in one file, or in shards of at most `shard_bytes` (a larger tensor has one of its own) with
// an index. Shards are opened with their first byte and closed with their last one.
class CheckpointWriter {
 public:
  // Does not touch the disk yet, but for making the folder. Shards follow the order of `tensors`.
  static Result<CheckpointWriter> create(const std::string& folder, const std::vector<TensorSpec>& tensors,
                                         uint64_t shard_bytes);

  int num_shards() const { return static_cast<int>(shards_.size()); }
  uint64_t num_bytes() const { return num_bytes_; }

  // Whole tensors, or consecutive pieces of one. Used by one thread.
  Status write(std::string_view tensor, std::span<const std::byte> data);
  // Every tensor must have been written; writes the index.
  Status finish();

 private:
  struct Shard {
    std::string file;
    std::vector<TensorSpec> tensors;
    uint64_t num_bytes = 0, num_written = 0;
    std::unique_ptr<SafetensorsWriter> writer;  // while open
  };
  struct Entry {
    size_t shard = 0;
    uint64_t num_bytes = 0, num_written = 0;
  };
  explicit CheckpointWriter(std::string folder) : folder_(std::move(folder)) {}

  std::string folder_;
  std::vector<Shard> shards_;
  std::map<std::string, Entry, std::less<>> entries_;
  uint64_t num_bytes_ = 0;
};

// Fails unless the folder is absent, or holds no model yet.
Status check_output_folder(const std::string& folder);
// Fails if the folder's disk has less than `num_bytes` free.
Status check_disk_space(const std::string& folder, uint64_t num_bytes);

}  // namespace cachalot
