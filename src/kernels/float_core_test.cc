#include <gmock/gmock.h>

#include <cmath>
#include <cstring>
#include <random>
#include <span>
#include <vector>

#include "device/device.h"
#include "kernels/cores.h"
#include "kernels/ops_test_util.h"

namespace cachalot {
namespace {

FloatCore core_of(IsaLevel isa) {
  return level_cores(isa).linear->float_core;
}

struct Case {
  const char* name;
  MatrixFormat format;
  int block_inputs;
  int first_block_inputs;
};
constexpr Case kCases[] = {
    {"kF32", MatrixFormat::kF32, 2, 2},       {"kBF16", MatrixFormat::kBF16, 2, 2},
    {"kF8", MatrixFormat::kF8, 128, 128},     {"kF8, cut", MatrixFormat::kF8, 128, 37},
    {"kI8", MatrixFormat::kI8, 64, 64},       {"kI4 of 64", MatrixFormat::kI4, 64, 64},
    {"kI4 of 32", MatrixFormat::kI4, 32, 32}, {"kI4Bf16 of 64", MatrixFormat::kI4Bf16, 64, 64},
    {"kF4", MatrixFormat::kF4, 32, 32},       {"kI4Bf16 of 32", MatrixFormat::kI4Bf16, 32, 32},
};

// A matrix of random bits in the packed layout: finite numbers of every kind, random scales and zero points.
class RandomMatrix {
 public:
  RandomMatrix(const Case& test_case, int64_t out_features, int64_t in_features, std::mt19937& random)
      : shape_{.format = test_case.format,
               .out_features = out_features,
               .in_features = in_features,
               .block_inputs = test_case.block_inputs,
               .first_block_inputs = test_case.first_block_inputs} {
    bytes_.resize(shape_.bytes());
    for (size_t block = 0; block < bytes_.size(); block += shape_.block_bytes()) fill(bytes_.data() + block, random);
  }

  PackedMatrix matrix() const { return {shape_, bytes_.data()}; }

 private:
  template <class T>
  static void store(std::byte* data, size_t idx, T value) {
    std::memcpy(data + idx * sizeof(T), &value, sizeof(T));
  }

  void fill(std::byte* block, std::mt19937& random) const {
    std::normal_distribution<float> normal;
    const auto inputs = static_cast<size_t>(shape_.block_inputs);
    const auto scale = [&] { return std::exp2(normal(random) * 4 - 8) * (random() % 2 ? 1.f : -1.f); };
    for (size_t idx = 0; idx < shape_.block_bytes(); idx++) block[idx] = static_cast<std::byte>(random());
    switch (shape_.format) {
      case MatrixFormat::kF32:
        for (size_t idx = 0; idx < kStrip * inputs; idx++) store(block, idx, normal(random));
        break;
      case MatrixFormat::kBF16:
        for (size_t idx = 0; idx < kStrip * inputs; idx++) store(block, idx, bf16(normal(random)));
        break;
      case MatrixFormat::kF8:
        for (size_t idx = 0; idx < kStrip * inputs; idx++)
          if ((block[idx] & std::byte{0x7f}) == std::byte{0x7f}) block[idx] = std::byte{0x7e};  // no NaN
        [[fallthrough]];
      case MatrixFormat::kI8:
        for (size_t out = 0; out < kStrip; out++) store(block + kStrip * inputs, out, scale());
        break;
      case MatrixFormat::kI4:
        for (size_t out = 0; out < kStrip; out++) store(block + kStrip * inputs / 2, out, fp16(scale()));
        break;
      case MatrixFormat::kI4Bf16:
        for (size_t out = 0; out < kStrip; out++) store(block + kStrip * inputs / 2, out, bf16(scale()));
        break;
      case MatrixFormat::kF4:  // the smallest are subnormal
        for (size_t out = 0; out < kStrip; out++)
          store(block + kStrip * inputs / 2, out,
                bf16(out % 5 == 0 ? std::exp2(-128.f + static_cast<float>(random() % 3)) : std::fabs(scale())));
        break;
    }
  }

  MatrixShape shape_;
  std::vector<std::byte> bytes_;
};

// Every row in memory of its own, so that sanitizers see a read past its end.
std::vector<std::vector<float>> random_rows(int64_t num_rows, int64_t features, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<std::vector<float>> rows(static_cast<size_t>(num_rows),
                                       std::vector<float>(static_cast<size_t>(features)));
  for (auto& row : rows)
    for (float& x : row) x = normal(random);
  return rows;
}

std::vector<float> product(FloatCore core, const PackedMatrix& matrix, std::span<const std::vector<float>> rows,
                           int64_t strip_begin, int64_t strip_end) {
  std::vector<const float*> addresses;
  for (const auto& row : rows) addresses.push_back(row.data());
  const int64_t outputs = (strip_end - strip_begin) * kStrip;
  std::vector<float> out(rows.size() * static_cast<size_t>(outputs), NAN);
  core({.matrix = matrix,
        .strip_begin = strip_begin,
        .strip_end = strip_end,
        .rows = addresses.data(),
        .num_rows = static_cast<int64_t>(rows.size()),
        .out = out.data(),
        .out_stride = outputs});
  return out;
}

TEST(FloatCore, MultipliesByTheWeightsOfThePackedLayout) {
  std::mt19937 random(1);
  for (const Case& test_case : kCases) {
    const RandomMatrix weights(test_case, 40, 300, random);
    const PackedMatrix matrix = weights.matrix();
    const auto rows = random_rows(2, 300, random);
    const std::vector<float> out = product(core_of(IsaLevel::kReference), matrix, rows, 0, matrix.shape.num_strips());
    for (int64_t row = 0; row < 2; row++)
      for (int64_t output = 0; output < 40; output++) {
        double sum = 0, magnitude = 0;
        for (int64_t input = 0; input < 300; input++) {
          const double term = double{packed_weight(matrix, output, input)} * double{rows[row][input]};
          sum += term;
          magnitude += std::abs(term);
        }
        EXPECT_NEAR(out[row * 48 + output], sum, magnitude * 1e-6)
            << test_case.name << " row " << row << " output " << output;
      }
  }
}

TEST(FloatCore, GivesTheSameBitsOnEveryLevel) {
  std::mt19937 random(2);
  for (const Case& test_case : kCases)
    for (const int64_t in_features : {1, 2, 3, 24, 37, 40, 64, 96, 126, 127, 128, 129, 192, 259, 512, 1000})
      for (const int64_t num_rows : {1, 2, 3, 4, 7, 70}) {
        const RandomMatrix weights(test_case, 40, in_features, random);
        const PackedMatrix matrix = weights.matrix();
        const auto rows = random_rows(num_rows, in_features, random);
        const std::vector<float> expected =
            product(core_of(IsaLevel::kReference), matrix, rows, 0, matrix.shape.num_strips());
        for (const IsaLevel isa : levels_here())
          EXPECT_THAT(product(core_of(isa), matrix, rows, 0, matrix.shape.num_strips()), testing::ContainerEq(expected))
              << test_case.name << " on " << isa_name(isa) << ", " << in_features << " inputs, " << num_rows << " rows";
      }
}

TEST(FloatCore, GivesARowTheSameBitsAloneAndAmongOthersInAnyStrips) {
  std::mt19937 random(3);
  for (const IsaLevel isa : levels_here())
    for (const Case& test_case : kCases) {
      const int64_t in_features = 301, num_strips = 5;
      const RandomMatrix weights(test_case, num_strips * kStrip, in_features, random);
      const auto rows = random_rows(40, in_features, random);
      const std::span<const std::vector<float>> all(rows);
      const std::vector<float> expected = product(core_of(isa), weights.matrix(), all.subspan(39, 1), 0, num_strips);
      for (size_t num_rows = 1; num_rows <= 40; num_rows++)
        for (const auto& [begin, end] : {std::pair{0, 5}, {0, 1}, {1, 4}, {3, 5}}) {
          const std::vector<float> out = product(core_of(isa), weights.matrix(), all.last(num_rows), begin, end);
          const size_t outputs = static_cast<size_t>(end - begin) * kStrip;
          EXPECT_EQ(std::memcmp(out.data() + (num_rows - 1) * outputs, expected.data() + begin * kStrip,
                                outputs * sizeof(float)),
                    0)
              << test_case.name << " on " << isa_name(isa) << ", " << num_rows << " rows, strips " << begin << " to "
              << end;
        }
    }
}

// Every e4m3 number, subnormals included.
TEST(FloatCore, ExpandsEveryFp8NumberExactly) {
  for (const IsaLevel isa : levels_here()) {
    const MatrixShape shape{.format = MatrixFormat::kF8,
                            .out_features = 256,
                            .in_features = 1,
                            .block_inputs = 128,
                            .first_block_inputs = 1};
    std::vector<std::byte> bytes(shape.bytes());
    for (size_t out = 0; out < 256; out++) {
      std::byte* block = bytes.data() + out / kStrip * shape.strip_bytes();
      block[out % kStrip * 4] = static_cast<std::byte>((out & 0x7f) == 0x7f ? 0 : out);
      const float one = 1;
      std::memcpy(block + 2048 + out % kStrip * 4, &one, sizeof(one));
    }
    const std::vector<std::vector<float>> rows(5, std::vector<float>{1.f});
    for (const size_t num_rows : {1, 5}) {
      const std::vector<float> out =
          product(core_of(isa), {shape, bytes.data()}, std::span(rows).first(num_rows), 0, 16);
      for (size_t code = 0; code < 256; code++)
        if ((code & 0x7f) != 0x7f) {
          EXPECT_EQ(out[code], static_cast<float>(std::bit_cast<fp8e4m3>(static_cast<uint8_t>(code))))
              << isa_name(isa) << " " << code;
        }
    }
  }
}

}  // namespace
}  // namespace cachalot
