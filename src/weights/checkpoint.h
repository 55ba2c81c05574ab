#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "weights/safetensors.h"

namespace cachalot {

// The tensors of a HuggingFace checkpoint folder: model.safetensors alone, or the shards that
// model.safetensors.index.json names. All files are mapped and checked when it is opened. Reading is thread-safe.
class Checkpoint {
 public:
  static Result<Checkpoint> open(const std::string& folder);

  const std::string& folder() const { return folder_; }
  // Null if there is none. Stays valid as long as the checkpoint.
  const TensorRef* find(std::string_view name) const;
  const std::map<std::string, TensorRef, std::less<>>& tensors() const { return tensors_; }
  const std::vector<SafetensorsFile>& files() const { return files_; }
  uint64_t num_bytes() const;  // of all tensors

  // Advice for the pages of a range inside one tensor: read them ahead; let go of them after packing.
  void prefetch(std::span<const std::byte> range) const;
  void drop_pages(std::span<const std::byte> range) const;

 private:
  Status add_file(const std::string& name, const std::map<std::string, std::string>* file_of_tensor);
  const SafetensorsFile* file_of(std::span<const std::byte> range) const;

  std::string folder_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, TensorRef, std::less<>> tensors_;
};

}  // namespace cachalot
