#include "weights/quantized_weight.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "kernels/weight_samples_test_util.h"
#include "weights/files_test_util.h"

namespace cachalot {
namespace {

std::vector<float> random_weights(int64_t count, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> weights(static_cast<size_t>(count));
  for (float& weight : weights) weight = normal(random);
  return weights;
}

WeightSource plain(const std::vector<float>& weights, int64_t out, int64_t in) {
  return whole({.dtype = DType::kF32, .data = weights.data(), .out_features = out, .in_features = in});
}

// The quantized weight as a source of its own.
WeightSource source_of(const QuantizedWeight& weight, const QuantTarget& target, int64_t out, int64_t in) {
  if (target.format == WeightFormat::kFp8Block)
    return whole({.format = SourceFormat::kFp8Block,
                  .dtype = DType::kF8E4M3,
                  .data = weight.tensors[0].data(),
                  .scales = weight.tensors[1].data(),
                  .out_features = out,
                  .in_features = in});
  if (target.format != WeightFormat::kAwq) {
    const bool is_int = target.format == WeightFormat::kPackedInt;
    return whole({.format = is_int ? SourceFormat::kPackedInt : SourceFormat::kMxfp4,
                  .data = weight.tensors[0].data(),
                  .scales = weight.tensors[1].data(),
                  .scale_dtype = is_int ? DType::kBF16 : DType::kF8E8M0,
                  .out_features = out,
                  .in_features = in,
                  .group_size = target.group_size});
  }
  return whole({.format = SourceFormat::kAwq,
                .dtype = DType::kI32,
                .data = weight.tensors[0].data(),
                .scales = weight.tensors[2].data(),
                .scale_dtype = DType::kF16,
                .zeros = weight.tensors[1].data(),
                .out_features = out,
                .in_features = in,
                .group_size = target.group_size});
}

std::vector<float> values_of(const WeightSource& source) {
  std::vector<float> values(static_cast<size_t>(source.out_count * source.in_count));
  for (int64_t out = 0; out < source.out_count; out++)
    dequantize(source, out, 0, source.in_count, values.data() + out * source.in_count);
  return values;
}

struct Case {
  QuantTarget target;
  int64_t out, in;
  double max_relative_error;
};

class WeightQuantizer : public testing::TestWithParam<Case> {};

TEST_P(WeightQuantizer, DequantizesToNearlyTheSameWeights) {
  const auto& [target, out, in, bound] = GetParam();
  const std::vector<float> weights = random_weights(out * in);
  ThreadPool threads({.num_threads = 2});
  const QuantizedWeight quantized = quantize_weight(plain(weights, out, in), {}, target, threads);
  ASSERT_TRUE(quantized.finite);
  const std::vector<float> values = values_of(source_of(quantized, target, out, in));
  double error = 0, norm = 0;
  for (size_t idx = 0; idx < weights.size(); idx++) {
    error += std::pow(static_cast<double>(values[idx]) - weights[idx], 2);
    norm += std::pow(static_cast<double>(weights[idx]), 2);
  }
  EXPECT_LT(std::sqrt(error / norm), bound);
  EXPECT_NEAR(quantized.squared_error, error, 1e-3 * error);
  EXPECT_NEAR(quantized.squared_norm, norm, 1e-6 * norm);
}

TEST_P(WeightQuantizer, GivesTheSameBytesOnAnyNumberOfThreads) {
  const auto& [target, out, in, bound] = GetParam();
  const std::vector<float> weights = random_weights(out * in, 2);
  ThreadPool one({.num_threads = 1}), three({.num_threads = 3});
  const QuantizedWeight first = quantize_weight(plain(weights, out, in), {}, target, one);
  const QuantizedWeight second = quantize_weight(plain(weights, out, in), {}, target, three);
  EXPECT_EQ(first.tensors, second.tensors);
  EXPECT_EQ(first.squared_error, second.squared_error);
}

TEST_P(WeightQuantizer, ReportsNumbersThatAreNotFinite) {
  const auto& [target, out, in, bound] = GetParam();
  ThreadPool threads({.num_threads = 2});
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> weights = random_weights(out * in);
    weights[weights.size() / 2] = bad;
    EXPECT_FALSE(quantize_weight(plain(weights, out, in), {}, target, threads).finite);
  }
}

// What rounding alone gives for normally distributed weights: 4 bits about 9 %, of floats 11 %, e4m3 about 2.6 %.
INSTANTIATE_TEST_SUITE_P(All, WeightQuantizer,
                         testing::Values(Case{{.format = WeightFormat::kAwq, .group_size = 64}, 264, 192, 0.1},
                                         Case{{.format = WeightFormat::kAwq, .group_size = 32}, 8, 32, 0.1},
                                         Case{{.format = WeightFormat::kAwq, .group_size = 128}, 136, 256, 0.11},
                                         Case{{.format = WeightFormat::kPackedInt, .group_size = 32}, 261, 192, 0.1},
                                         Case{{.format = WeightFormat::kPackedInt, .group_size = 128}, 7, 256, 0.12},
                                         Case{{.format = WeightFormat::kMxfp4, .group_size = 32}, 261, 192, 0.12},
                                         Case{{.format = WeightFormat::kFp8Block}, 200, 300, 0.03},
                                         Case{{.format = WeightFormat::kFp8Block}, 5, 7, 0.04}),
                         [](const auto& info) {
                           const Case& of = info.param;
                           const std::string shape = fmt::format("{}x{}", of.out, of.in);
                           return fmt::format("{}OfGroup{}_{}", format_name(of.target.format), of.target.group_size,
                                              shape);
                         });

TEST(ReadValues, GivesTheNumbersOfDequantize) {
  constexpr int64_t kOut = 140, kIn = 200;
  std::mt19937 random(1);
  std::vector<uint8_t> bytes(kOut * kIn * 4);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random() & 0xbf);  // no NaN in any of the formats
  const std::vector<float> scales = random_weights(2 * 2);
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3}) {
    const WeightSource source =
        whole({.format = dtype == DType::kF8E4M3 ? SourceFormat::kFp8Block : SourceFormat::kPlain,
               .dtype = dtype,
               .data = bytes.data(),
               .scales = scales.data(),
               .out_features = kOut,
               .in_features = kIn});
    const std::vector<float> wanted = values_of(source);
    std::vector<float> row(kIn);
    for (int64_t out = 0; out < kOut; out++) {
      read_values(source, out, 0, kIn, row.data());
      ASSERT_TRUE(std::equal(row.begin(), row.end(), wanted.begin() + out * kIn))
          << dtype_name(dtype) << " row " << out;
    }
  }
}

}  // namespace
}  // namespace cachalot
