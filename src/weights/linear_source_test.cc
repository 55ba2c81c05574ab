#include "weights/linear_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "weights/files_test_util.h"
#include "weights/safetensors.h"

namespace cachalot {
namespace {

// Byte vectors of MXFP4 that other programs unpack to the same numbers: every code and byte, scales from 2^-127 to
// 2^127.
TEST(Mxfp4, UnpacksToTheNumbersOfOtherPrograms) {
  const auto file = SafetensorsFile::open(test_data("golden/mxfp4/vectors.safetensors"));
  ASSERT_TRUE(file) << message_of(file);
  std::map<std::string, const TensorRef*> tensors;
  for (const TensorRef& tensor : file->tensors()) tensors[tensor.spec.name] = &tensor;
  for (const char* name : {"codes", "bytes", "edge", "random", "experts"}) {
    const TensorRef &packed = *tensors.at(std::string(name) + ".packed"),
                    &scales = *tensors.at(std::string(name) + ".scales"),
                    &expected = *tensors.at(std::string(name) + ".expected");
    const int64_t in = expected.spec.shape.back(),
                  out = static_cast<int64_t>(expected.data.size() / sizeof(float)) / in;
    const WeightSource source = whole({.format = SourceFormat::kMxfp4,
                                       .dtype = DType::kU8,
                                       .data = packed.data.data(),
                                       .scales = scales.data.data(),
                                       .scale_dtype = DType::kF8E8M0,
                                       .out_features = out,
                                       .in_features = in,
                                       .group_size = 32});
    const MatrixShape shape = plan_matrix(source, {});
    ASSERT_EQ(shape.format, MatrixFormat::kF4);
    std::vector<std::byte> matrix(shape.bytes());
    pack_matrix(source, shape, 0, shape.num_strips(), matrix.data());
    std::vector<float> row(static_cast<size_t>(in));
    for (int64_t idx = 0; idx < out; idx++) {
      read_values(source, idx, 0, in, row.data());
      for (int64_t col = 0; col < in; col++) {
        const float want = reinterpret_cast<const float*>(expected.data.data())[idx * in + col];
        ASSERT_EQ(row[static_cast<size_t>(col)], want) << name << " [" << idx << ", " << col << "]";
        const PackedElement element = packed_element({shape, matrix.data()}, idx, col);
        ASSERT_EQ(element.value * element.scale, want) << name << " [" << idx << ", " << col << "]";
      }
    }
  }
}

}  // namespace
}  // namespace cachalot
