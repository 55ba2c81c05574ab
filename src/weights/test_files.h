#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/file.h"
#include "weights/checkpoint_writer.h"

// Folders and files for this folder's tests.
namespace cachalot {

// A fresh folder that goes with the test.
class TestFolder {
 public:
  TestFolder() {
    std::string pattern = testing::TempDir() + "/cachalot-XXXXXX";
    CHECK(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~TestFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string path(std::string_view name) const { return path_ + "/" + std::string(name); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// The bytes of a safetensors file with any header and `data_bytes` zeros.
inline std::string raw_safetensors(std::string_view header, size_t data_bytes) {
  const uint64_t size = header.size();
  std::string text(sizeof size, '\0');
  std::memcpy(text.data(), &size, sizeof size);
  return text.append(header).append(data_bytes, '\0');
}

// Zeros for every tensor.
inline void write_zeros(const std::string& folder, const std::vector<TensorSpec>& tensors,
                        uint64_t shard_bytes = kDefaultShardBytes) {
  Result<CheckpointWriter> writer = CheckpointWriter::create(folder, tensors, shard_bytes);
  ASSERT_TRUE(writer) << writer.error().message;
  for (const TensorSpec& tensor : tensors) {
    const std::vector<std::byte> zeros(tensor.num_bytes());
    ASSERT_TRUE(writer->write(tensor.name, zeros));
  }
  ASSERT_TRUE(writer->finish());
}

inline std::string test_data(std::string_view name) {
  return std::string(CACHALOT_SOURCE_DIR) + "/tests/data/" + std::string(name);
}

template <class T>
std::string message_of(const Result<T>& result) {
  return result ? "no error" : result.error().message;
}

}  // namespace cachalot
