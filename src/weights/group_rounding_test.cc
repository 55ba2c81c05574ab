#include "weights/group_rounding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>
#include <utility>
#include <vector>

namespace cachalot {
namespace {

// Every weight counts the same.
WeightGroup alike(const std::vector<float>& weights) {
  static const std::vector<float> kOnes(1024, 1.f);
  return {weights, {kOnes.data(), weights.size()}};
}

struct Rounded {
  AwqGroup group;
  std::vector<float> values;
  double squared_error = 0;
};

Rounded round_group(const std::vector<float>& weights) {
  std::vector<uint8_t> nibbles(weights.size(), 255);
  Rounded rounded{.group = quantize_awq_group(alike(weights), nibbles.data())};
  EXPECT_LE(rounded.group.zero, 15);
  for (size_t idx = 0; idx < weights.size(); idx++) {
    EXPECT_LE(nibbles[idx], 15);
    rounded.values.push_back(static_cast<float>(nibbles[idx] - rounded.group.zero) *
                             static_cast<float>(rounded.group.scale));
    rounded.squared_error += std::pow(static_cast<double>(rounded.values.back()) - weights[idx], 2);
  }
  return rounded;
}

// Plain rounding to 16 steps over the whole range.
double plain_error(const std::vector<float>& weights) {
  const auto [min, max] = std::ranges::minmax(weights);
  const float low = std::min(min, 0.f), scale = (std::max(max, 0.f) - low) / 15, zero = std::nearbyint(-low / scale);
  double error = 0;
  for (const float weight : weights)
    error += std::pow((std::clamp(std::nearbyint(weight / scale) + zero, 0.f, 15.f) - zero) * scale - weight, 2);
  return error;
}

std::vector<float> normal_weights(size_t count, float deviation, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> weights(count);
  std::ranges::generate(weights, [&] { return normal(random); });
  return weights;
}

TEST(AwqGroup, IsNeverWorseThanPlainRoundingAndClearlyBetterOnAverage) {
  double plain = 0, searched = 0;
  for (unsigned seed = 0; seed < 300; seed++) {
    const std::vector<float> weights =
        normal_weights(seed % 2 ? 64 : 128, std::ldexp(1.f, -static_cast<int>(seed % 12)), seed);
    const Rounded rounded = round_group(weights);
    EXPECT_LE(rounded.squared_error, plain_error(weights) * 1.002);  // fp16 has 11 bits for the scale
    EXPECT_NEAR(rounded.group.squared_error, rounded.squared_error, 1e-4 * rounded.squared_error);
    const double norm = plain_error(weights);
    plain += 1;
    searched += rounded.squared_error / norm;
  }
  EXPECT_LT(searched, 0.92 * plain);
}

TEST(AwqGroup, ReproducesWeightsThatLieOnAGrid) {
  std::mt19937 random(5);
  for (int round = 0; round < 100; round++) {
    const float scale = static_cast<float>(fp16(std::ldexp(1.f + static_cast<float>(random() % 1024) / 1024, -10)));
    const int zero = static_cast<int>(random() % 16);
    std::vector<float> weights(64);
    for (float& weight : weights) weight = static_cast<float>(static_cast<int>(random() % 16) - zero) * scale;
    weights[3] = static_cast<float>(-zero) * scale;
    weights[9] = static_cast<float>(15 - zero) * scale;
    const Rounded rounded = round_group(weights);
    EXPECT_EQ(rounded.values, weights);
    EXPECT_EQ(rounded.group.zero, zero);
  }
}

TEST(AwqGroup, TakesGroupsWithoutARange) {
  EXPECT_EQ(round_group(std::vector<float>(32, 0.f)).values, std::vector<float>(32, 0.f));
  for (const float constant : {0.75f, -3.f, 1e-4f})
    for (const float value : round_group(std::vector<float>(32, constant)).values)
      EXPECT_NEAR(value, constant, std::fabs(constant) * 0.01);
  EXPECT_LT(round_group(std::vector<float>(32, 1e-30f)).squared_error, 1e-14);
  EXPECT_TRUE(std::isfinite(static_cast<float>(round_group(std::vector<float>(32, 1e30f)).group.scale)));
}

TEST(AwqGroup, KeepsOneSidedGroups) {
  std::vector<float> weights = normal_weights(64, 1, 1);
  for (float& weight : weights) weight = std::fabs(weight);
  EXPECT_EQ(round_group(weights).group.zero, 0);
  EXPECT_LE(round_group(weights).squared_error, plain_error(weights) * 1.002);
  for (float& weight : weights) weight = -weight;
  EXPECT_EQ(round_group(weights).group.zero, 15);
}

TEST(Fp8, EncodesAsThePlainConversion) {
  std::mt19937 random(3);
  for (int round = 0; round < 200'000; round++) {
    // Any sign and mantissa, exponents from far below the subnormals up to 448.
    const uint32_t word =
        (static_cast<uint32_t>(random()) & 0x807fffff) | (static_cast<uint32_t>(100 + random() % 36) << 23);
    const auto value = std::bit_cast<float>(word);
    if (std::fabs(value) > 448) continue;
    ASSERT_EQ(encode_e4m3(value), fp8e4m3(value).bits) << value;
  }
  for (int bits = 0; bits < 256; bits++) {
    if ((bits & 0x7f) == 0x7f) continue;
    EXPECT_EQ(encode_e4m3(static_cast<float>(std::bit_cast<fp8e4m3>(static_cast<uint8_t>(bits)))), bits);
  }
  for (const float tie : {1.0625f, 1.1875f, 0x1p-10f, 0x1.8p-9f, 440.f, 0x1.fp-7f})
    EXPECT_EQ(encode_e4m3(tie), fp8e4m3(tie).bits) << tie;
}

TEST(Fp8, ScalesTheLargestMagnitudeTo448) {
  EXPECT_EQ(fp8_block_scale(896), 2);
  EXPECT_EQ(fp8_block_scale(0), 1);
  for (const float magnitude : {1e-20f, 0.1f, 3.3333f, 1e30f})
    EXPECT_EQ(encode_e4m3(magnitude / fp8_block_scale(magnitude)), 0x7e);
}

TEST(Mxfp4, RoundsToTheNearestCodeAndTiesToTheEvenOne) {
  // With the largest weight at 6 the scale is 1.
  const auto code = [](float weight) {
    std::vector<float> weights(32, 6);
    weights[0] = weight;
    std::vector<uint8_t> codes(32);
    EXPECT_EQ(quantize_mxfp4_group(alike(weights), codes.data()).scale, 127);
    return int{codes[0]};
  };
  const std::pair<float, int> wanted[] = {{0, 0},     {0.24f, 0}, {0.25f, 0}, {0.26f, 1}, {0.75f, 2}, {1.25f, 2},
                                          {1.26f, 3}, {1.75f, 4}, {2.5f, 4},  {2.6f, 5},  {3.5f, 6},  {4.9f, 6},
                                          {5, 6},     {5.1f, 7},  {-0.2f, 0}, {-0.5f, 9}, {-6, 15}};
  for (const auto& [weight, expected] : wanted) EXPECT_EQ(code(weight), expected) << weight;
}

TEST(Mxfp4, TakesTheScaleWithTheLeastError) {
  std::vector<uint8_t> codes(32);
  const auto scale = [&](float weight) {
    const std::vector<float> weights(32, weight);
    return quantize_mxfp4_group(alike(weights), codes.data()).scale;
  };
  EXPECT_EQ(scale(0), 127);
  EXPECT_EQ(scale(7.9f), 128) << "6 would be too small: 8 is nearer";
  EXPECT_EQ(scale(6.1f), 127);
  EXPECT_EQ(scale(0x1p-90f), 127 - 92);
  EXPECT_EQ(scale(3e38f), 127 + 125);
}

TEST(GroupRounding, WeighsErrorsByImportance) {
  // MXFP4 has but two scales to choose from.
  for (const auto& [format, most] :
       {std::pair(WeightFormat::kAwq, 0.85), {WeightFormat::kPackedInt, 0.85}, {WeightFormat::kMxfp4, 0.99}}) {
    double even = 0, weighed = 0;
    for (unsigned seed = 0; seed < 100; seed++) {
      const std::vector<float> weights = normal_weights(32, 0.1f, seed);
      std::vector<float> importance(weights.size(), 1.f), values(weights.size());
      for (size_t idx = 0; idx < importance.size(); idx += 10) importance[idx] = 50;
      std::vector<uint8_t> codes(weights.size());
      const auto error = [&](const WeightGroup& group) {
        round_trip(format, group, codes.data(), values.data());
        double sum = 0;
        for (size_t idx = 0; idx < values.size(); idx++)
          sum += importance[idx] * std::pow(values[idx] - weights[idx], 2);
        return sum;
      };
      even += error(alike(weights));
      weighed += error({weights, importance});
    }
    EXPECT_LT(weighed, most * even) << static_cast<int>(format);
  }
}

}  // namespace
}  // namespace cachalot
