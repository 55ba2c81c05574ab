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
// model.safetensors.index.json names; a folder with both is refused, as one of them may be another model. All files are
// mapped and checked when it is opened. Reading is thread-safe.
class Checkpoint {
 public:
  static Result<Checkpoint> open(const std::string& folder);

  // Of a model of several parts, the tensors whose names begin with `prefix` are found without it, as are those of a
  // model that is one part; those that begin with one of `other_parts` are set aside.
  Status select_part(std::string_view prefix, const std::vector<std::string>& other_parts);

  const std::string& folder() const { return folder_; }
  // Null if there is none. Stays valid as long as the checkpoint.
  const TensorRef* find(std::string_view name) const;
  const std::map<std::string, TensorRef, std::less<>>& tensors() const { return tensors_; }
  const std::vector<TensorRef>& set_aside() const { return set_aside_; }
  const std::vector<SafetensorsFile>& files() const { return files_; }
  uint64_t num_bytes() const;              // of all tensors
  std::vector<std::string> notes() const;  // lines to tell whoever starts it

  // Advice for the pages of a range inside one tensor: read them ahead; let go of them after packing.
  void prefetch(std::span<const std::byte> range) const;
  Status fetch_pages(std::span<const std::byte> range) const;
  void drop_pages(std::span<const std::byte> range) const;

 private:
  // The file that holds each tensor, by an index.
  using Index = std::map<std::string, std::string, std::less<>>;

  static Result<Index> read_index(const std::string& path);
  Status open_shards(const Index& index);
  Status add_file(const std::string& name);
  Status check_index(const Index& index);
  const SafetensorsFile* file_of(std::span<const std::byte> range) const;

  std::string folder_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, TensorRef, std::less<>> tensors_;
  std::vector<TensorRef> set_aside_;
  std::vector<std::string> notes_;
  uint64_t num_copied_bytes_ = 0;
  int num_copied_files_ = 0;
};

// What of each file's data a fingerprint is over, beside config.json and the files' sizes and headers.
enum class FingerprintDepth {
  kSampled,  // kSampledPages evenly spread pages: two models that differ in more than a few unlucky bytes differ in it
  kWhole,    // every byte: as slow as the disk
};
inline constexpr int kSampledPages = 16;

// 32 hex digits.
Result<std::string> fingerprint_of(const Checkpoint& checkpoint, FingerprintDepth depth = FingerprintDepth::kSampled);

}  // namespace cachalot
