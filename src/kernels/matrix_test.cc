#include "kernels/matrix.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/math.h"
#include "kernels/ops_test_util.h"
#include "kernels/weight_samples_test_util.h"

namespace cachalot {
namespace {

constexpr MatrixPolicy kFloat32{.float32 = true};

// A packed matrix in memory of its own that was not zero before.
struct Packed {
  std::vector<std::byte> memory;
  PackedMatrix matrix;
};

Packed allocate(const MatrixShape& shape) {
  Packed packed{.memory = std::vector<std::byte>(shape.bytes() + 64, std::byte{0xa5}), .matrix = {shape, nullptr}};
  packed.matrix.data = packed.memory.data();
  return packed;
}

Packed pack(const WeightSource& source, const MatrixPolicy& policy) {
  const MatrixShape shape = plan_matrix(source, policy);
  Packed packed = allocate(shape);
  const int64_t middle = shape.num_strips() / 2;  // as two threads would
  pack_matrix(source, shape, middle, shape.num_strips(), packed.memory.data());
  pack_matrix(source, shape, 0, middle, packed.memory.data());
  for (size_t idx = shape.bytes(); idx < packed.memory.size(); idx++) EXPECT_EQ(packed.memory[idx], std::byte{0xa5});
  return packed;
}

// Every weight of the matrix, padding included, is what `expected(value of the file)` says.
template <class Expected>
void expect_weights(const WeightSource& source, const PackedMatrix& matrix, Expected expected) {
  const MatrixShape& shape = matrix.shape;
  const int64_t padded_inputs = shape.first_block_inputs + (shape.num_blocks() - 1) * shape.block_inputs;
  std::vector<float> row(static_cast<size_t>(source.in_count));
  for (int64_t out = 0; out < shape.num_strips() * kStrip; out++) {
    if (out < source.out_count) dequantize(source, out, 0, source.in_count, row.data());
    for (int64_t in = 0; in < padded_inputs; in++) {
      const bool real = out < source.out_count && in < source.in_count;
      const float want = real ? expected(row[static_cast<size_t>(in)]) : 0.f;
      ASSERT_EQ(packed_weight(matrix, out, in), want) << "output " << out << ", input " << in;
    }
  }
}

float same(float value) {
  return value;
}
float as_bf16(float value) {
  return static_cast<float>(bf16(value));
}

TEST(Matrix, KeepsPlainWeightsAsTheFileHoldsThem) {
  for (const Window& window :
       {Window{0, 48, 0, 64}, Window{3, 29, 5, 131}, Window{16, 1, 0, 1}, Window{1, 40, 2, 95}}) {
    for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      const WeightSample sample = WeightSample::plain(dtype, 64, 200);
      const Packed packed = pack(sample.window(window), kBFloat16);
      EXPECT_EQ(packed.matrix.shape.format, dtype == DType::kBF16 ? MatrixFormat::kBF16 : MatrixFormat::kF32);
      expect_weights(sample.window(window), packed.matrix, same);
    }
  }
}

TEST(Matrix, KeepsFp8WeightsAndTheScalesOfACutBlock) {
  const WeightSample sample = WeightSample::fp8(300, 500);
  for (const Window& window : {Window{0, 300, 0, 500}, Window{100, 60, 64, 320}, Window{7, 16, 120, 3},
                               Window{0, 17, 130, 370}, Window{0, 5, 256, 128}}) {
    const Packed packed = pack(sample.window(window), kBFloat16);
    EXPECT_EQ(packed.matrix.shape.format, MatrixFormat::kF8);
    EXPECT_EQ(packed.matrix.shape.first_block_inputs, 128 - window.in_begin % 128);
    expect_weights(sample.window(window), packed.matrix, same);
  }
}

TEST(Matrix, ExpandsFp8WeightsInOtherBlocks) {
  const WeightSample sample = WeightSample::fp8(70, 200, 64, 48);
  const Packed packed = pack(sample.window({5, 60, 30, 160}), kBFloat16);
  EXPECT_EQ(packed.matrix.shape.format, MatrixFormat::kBF16);
  expect_weights(sample.window({5, 60, 30, 160}), packed.matrix, as_bf16);
}

TEST(Matrix, RequantizesFp8WeightsToTheNearestOf255StepsAnOutputAndGroup) {
  const WeightSample sample = WeightSample::fp8(300, 500);
  for (const Window& window : {Window{0, 300, 0, 500}, Window{100, 60, 64, 320}, Window{7, 20, 120, 33}}) {
    const WeightSource source = sample.window(window);
    const Packed packed = pack(source, kInt8);
    ASSERT_EQ(packed.matrix.shape.format, MatrixFormat::kI8);
    ASSERT_EQ(packed.matrix.shape.block_inputs, 64);
    std::vector<float> row(static_cast<size_t>(source.in_count));
    for (int64_t out = 0; out < source.out_count; out++) {
      dequantize(source, out, 0, source.in_count, row.data());
      for (int64_t begin = 0; begin < source.in_count; begin += 64) {
        const int64_t end = std::min<int64_t>(begin + 64, source.in_count);
        float largest = 0;
        for (int64_t in = begin; in < end; in++) largest = std::max(largest, std::fabs(row[static_cast<size_t>(in)]));
        for (int64_t in = begin; in < end; in++) {
          const float scale = largest / 127.f;
          const float want = std::nearbyint(row[static_cast<size_t>(in)] * (127.f / largest)) * scale;
          ASSERT_EQ(packed_weight(packed.matrix, out, in), want) << "output " << out << ", input " << in;
        }
      }
    }
  }
}

TEST(Matrix, KeepsAwqWeightsInBlocksThatFollowTheGroups) {
  struct Case {
    int group_size, block_inputs;
    Window window;
  };
  for (const Case& test :
       {Case{128, 64, {0, 64, 0, 384}}, Case{128, 64, {16, 40, 64, 256}}, Case{128, 32, {8, 24, 96, 160}},
        Case{64, 64, {0, 64, 0, 384}}, Case{64, 64, {32, 17, 128, 96}}, Case{32, 32, {0, 64, 0, 384}},
        Case{96, 32, {8, 56, 32, 224}}, Case{64, 64, {3, 58, 0, 64}}, Case{128, 64, {0, 5, 128, 128}}}) {
    for (DType scale_dtype : {DType::kF16, DType::kBF16, DType::kF32}) {
      const WeightSample sample = WeightSample::awq(64, 384, test.group_size, scale_dtype);
      const WeightSource source = sample.window(test.window);
      const Packed packed = pack(source, kBFloat16);
      ASSERT_EQ(packed.matrix.shape.format, scale_dtype == DType::kBF16 ? MatrixFormat::kI4Bf16 : MatrixFormat::kI4);
      ASSERT_EQ(packed.matrix.shape.block_inputs, test.block_inputs);
      expect_weights(source, packed.matrix, same);
    }
  }
}

TEST(Matrix, ReadsAwqWithoutZeroPointsAsSymmetric) {
  const WeightSample sample = WeightSample::awq(40, 128, 64, DType::kF16);
  WeightSource source = sample.window({0, 40, 0, 128});
  source.zeros = nullptr;
  expect_weights(source, pack(source, kBFloat16).matrix, same);
}

TEST(Matrix, ExpandsAwqWeightsWhoseGroupsOrScalesBlocksCannotHold) {
  const WeightSample sample = WeightSample::awq(64, 384, 64, DType::kF16);
  for (const Window& window : {Window{0, 64, 16, 128}, Window{8, 30, 64, 72}}) {
    const Packed rounded = pack(sample.window(window), kBFloat16);
    EXPECT_EQ(rounded.matrix.shape.format, MatrixFormat::kBF16);
    expect_weights(sample.window(window), rounded.matrix, as_bf16);
    const Packed exact = pack(sample.window(window), kFloat32);
    EXPECT_EQ(exact.matrix.shape.format, MatrixFormat::kF32);
    expect_weights(sample.window(window), exact.matrix, same);
  }
  WeightSample fine = WeightSample::awq(64, 384, 64, DType::kF32);
  fine.set_scale(100, 1.0001f);
  EXPECT_EQ(plan_matrix(fine.window({0, 64, 0, 384}), kFloat32).format, MatrixFormat::kF32);
  EXPECT_EQ(plan_matrix(fine.window({0, 64, 128, 256}), kFloat32).format, MatrixFormat::kI4) << "the scale is outside";
  fine.set_scale(100, -0x1p-24f);
  EXPECT_EQ(plan_matrix(fine.window({0, 64, 0, 384}), kFloat32).format, MatrixFormat::kI4);
  expect_weights(fine.window({0, 64, 0, 384}), pack(fine.window({0, 64, 0, 384}), kBFloat16).matrix, same);
  for (float scale : {0x1p-25f, 0x1.8p-24f, 65536.f}) {
    fine.set_scale(100, scale);
    EXPECT_EQ(plan_matrix(fine.window({0, 64, 0, 384}), kBFloat16).format, MatrixFormat::kI4Bf16) << scale;
    expect_weights(fine.window({0, 64, 0, 384}), pack(fine.window({0, 64, 0, 384}), kBFloat16).matrix, same);
  }
  fine.set_scale(100, 0x1.001p0f);
  EXPECT_EQ(plan_matrix(fine.window({0, 64, 0, 384}), kBFloat16).format, MatrixFormat::kBF16);
}

TEST(Matrix, KeepsPackedInt4InBlocksThatFollowTheGroups) {
  struct Case {
    int group_size, block_inputs;
    Window window;
  };
  for (const Case& test :
       {Case{32, 32, {0, 60, 0, 384}}, Case{32, 32, {3, 41, 32, 224}}, Case{64, 64, {0, 60, 0, 384}},
        Case{64, 64, {12, 20, 128, 96}}, Case{128, 64, {1, 59, 64, 256}}, Case{128, 32, {8, 24, 96, 160}},
        Case{384, 64, {0, 60, 0, 384}}, Case{96, 32, {5, 16, 32, 224}}}) {
    for (DType scale_dtype : {DType::kF16, DType::kBF16, DType::kF32}) {
      for (const bool zeros : {false, true}) {
        SCOPED_TRACE(fmt::format("groups of {}, {}, zeros {}", test.group_size, dtype_name(scale_dtype), zeros));
        const WeightSample sample = WeightSample::packed(4, 60, 384, test.group_size, scale_dtype, zeros);
        const WeightSource source = sample.window(test.window);
        const Packed packed = pack(source, kBFloat16);
        ASSERT_EQ(packed.matrix.shape.format, scale_dtype == DType::kBF16 ? MatrixFormat::kI4Bf16 : MatrixFormat::kI4);
        ASSERT_EQ(packed.matrix.shape.block_inputs, test.block_inputs);
        expect_weights(source, packed.matrix, same);
      }
    }
  }
}

TEST(Matrix, ExpandsPackedInt4ThatAWindowCuts) {
  const WeightSample sample = WeightSample::packed(4, 60, 384, 32, DType::kBF16, true);
  for (const Window& window : {Window{0, 60, 12, 24}, Window{13, 30, 64, 40}}) {
    expect_weights(sample.window(window), pack(sample.window(window), kBFloat16).matrix, as_bf16);
    const Packed exact = pack(sample.window(window), kFloat32);
    EXPECT_EQ(exact.matrix.shape.format, MatrixFormat::kF32);
    expect_weights(sample.window(window), exact.matrix, same);
  }
  const WeightSample odd = WeightSample::packed(4, 20, 77, 77, DType::kF32, true);  // rows of a word that is not full
  expect_weights(odd.all(), pack(odd.all(), kFloat32).matrix, same);
}

TEST(Matrix, KeepsPackedInt8WithoutZeroPoints) {
  for (const int group_size : {64, 128, 200}) {
    const WeightSample sample =
        WeightSample::packed(8, 60, 200, group_size == 200 ? 200 : group_size, DType::kBF16, false);
    for (const Window& window : {Window{0, 60, 0, 200}, Window{7, 33, 64, 100}}) {
      const Packed packed = pack(sample.window(window), kBFloat16);
      EXPECT_EQ(packed.matrix.shape.format, MatrixFormat::kI8);
      expect_weights(sample.window(window), packed.matrix, same);
    }
    const Packed cut = pack(sample.window({7, 33, 20, 100}), kFloat32);
    EXPECT_EQ(cut.matrix.shape.format, MatrixFormat::kF32);
    expect_weights(sample.window({7, 33, 20, 100}), cut.matrix, same);
  }
  const WeightSample zeros = WeightSample::packed(8, 60, 200, 64, DType::kF16, true);
  expect_weights(zeros.all(), pack(zeros.all(), kBFloat16).matrix, as_bf16);
  expect_weights(zeros.all(), pack(zeros.all(), kFloat32).matrix, same);
}

TEST(Matrix, KeepsMxfp4InBlocksOf32) {
  const WeightSample sample = WeightSample::mxfp4(60, 384);
  for (const Window& window : {Window{0, 60, 0, 384}, Window{3, 41, 32, 224}, Window{16, 1, 352, 32}}) {
    const Packed packed = pack(sample.window(window), kInt8);
    ASSERT_EQ(packed.matrix.shape.format, MatrixFormat::kF4);
    expect_weights(sample.window(window), packed.matrix, same);
  }
  const Packed cut = pack(sample.window({3, 41, 20, 224}), kFloat32);
  EXPECT_EQ(cut.matrix.shape.format, MatrixFormat::kF32);
  expect_weights(sample.window({3, 41, 20, 224}), cut.matrix, same);
}

TEST(Matrix, TakesScalesThatAreTooSmallForSumsAsZero) {
  WeightSample sample = WeightSample::packed(4, 16, 32, 32, DType::kF32, false);
  sample.set_scale(0, 0x1p-101f);
  sample.set_scale(1, -0x1p-100f);
  const Packed packed = pack(sample.all(), kBFloat16);
  ASSERT_EQ(packed.matrix.shape.format, MatrixFormat::kI4Bf16);
  EXPECT_EQ(packed_element(packed.matrix, 0, 0).scale, 0);
  EXPECT_EQ(packed_element(packed.matrix, 1, 0).scale, -0x1p-100f);
}

// Strip 2i holds gate's outputs 16i.., strip 2i+1 up's.
void expect_alternating(const WeightSource& gate, const WeightSource& up, const MatrixPolicy& policy,
                        MatrixFormat format) {
  const MatrixShape shape = plan_gate_up(gate, up, policy);
  ASSERT_EQ(shape.format, format);
  const int64_t strips = ceil_div(gate.out_count, kStrip);
  ASSERT_EQ(shape.num_strips(), 2 * strips);
  Packed packed = allocate(shape);
  for (int64_t begin = 0; begin < shape.num_strips(); begin += 3)  // ranges that begin with either
    pack_gate_up(gate, up, shape, begin, std::min(begin + 3, shape.num_strips()), packed.memory.data());
  std::vector<float> row(static_cast<size_t>(gate.in_count));
  for (int64_t out = 0; out < strips * kStrip; out++) {
    for (const WeightSource* source : {&gate, &up}) {
      if (out < gate.out_count) dequantize(*source, out, 0, gate.in_count, row.data());
      for (int64_t in = 0; in < gate.in_count; in++) {
        const float value = out < gate.out_count ? row[static_cast<size_t>(in)] : 0.f;
        const int64_t packed_out = (out / kStrip * 2 + (source == &up)) * kStrip + out % kStrip;
        ASSERT_EQ(packed_weight(packed.matrix, packed_out, in), format == MatrixFormat::kBF16 ? as_bf16(value) : value);
      }
    }
  }
}

TEST(Matrix, AlternatesStripsOfGateAndUp) {
  const Window window{8, 88, 64, 128};
  const WeightSample awq_gate = WeightSample::awq(96, 256, 64, DType::kF16, 1),
                     awq_up = WeightSample::awq(96, 256, 64, DType::kF16, 2);
  expect_alternating(awq_gate.window(window), awq_up.window(window), kBFloat16, MatrixFormat::kI4);
  const WeightSample fp8_gate = WeightSample::fp8(96, 256, 128, 128, 1),
                     fp8_up = WeightSample::fp8(96, 256, 128, 128, 2);
  expect_alternating(fp8_gate.window({3, 41, 32, 200}), fp8_up.window({3, 41, 32, 200}), kBFloat16, MatrixFormat::kF8);
  const WeightSample plain_up = WeightSample::plain(DType::kBF16, 96, 256);
  expect_alternating(awq_gate.window(window), plain_up.window(window), kBFloat16, MatrixFormat::kBF16);
  expect_alternating(awq_gate.window(window), plain_up.window(window), kFloat32, MatrixFormat::kF32);
}

TEST(Matrix, TakesAsManyBytesAsTheLayoutSays) {
  const auto bytes_of_block = [](MatrixFormat format, int block_inputs) {
    return MatrixShape{.format = format, .block_inputs = block_inputs, .first_block_inputs = block_inputs}
        .block_bytes();
  };
  EXPECT_EQ(bytes_of_block(MatrixFormat::kF32, 2), 128u);
  EXPECT_EQ(bytes_of_block(MatrixFormat::kBF16, 2), 64u);
  EXPECT_EQ(bytes_of_block(MatrixFormat::kF8, 128), 2112u);
  EXPECT_EQ(bytes_of_block(MatrixFormat::kI8, 64), 1088u);
  EXPECT_EQ(bytes_of_block(MatrixFormat::kI4, 64), 552u);
  EXPECT_EQ(bytes_of_block(MatrixFormat::kI4, 32), 296u);
  EXPECT_EQ(bytes_of_block(MatrixFormat::kI4Bf16, 32), 296u);
  EXPECT_EQ(bytes_of_block(MatrixFormat::kF4, 32), 288u);
  const MatrixShape shape{
      .format = MatrixFormat::kI4, .out_features = 33, .in_features = 96, .block_inputs = 64, .first_block_inputs = 64};
  EXPECT_EQ(shape.bytes(), 3u * 2u * 552u);
}

}  // namespace
}  // namespace cachalot
