#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/folder_test_util.h"
#include "config/model_config.h"
#include "weights/checkpoint_writer.h"

// Folders and files for this folder's tests.
namespace cachalot {

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
  return fmt::format("{}/tests/data/{}", CACHALOT_SOURCE_DIR, name);
}

// For names of tests.
inline std::string format_name(WeightFormat format) {
  constexpr const char* kNames[] = {"Plain", "Fp8Block", "Awq", "PackedInt", "Mxfp4"};
  return kNames[static_cast<size_t>(format)];
}

template <class T>
std::string message_of(const Result<T>& result) {
  return result ? "no error" : result.error().message;
}

}  // namespace cachalot
