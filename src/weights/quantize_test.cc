#include "weights/quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <boost/json.hpp>
#include <cmath>
#include <limits>
#include <random>

#include "kernels/weight_samples_test_util.h"
#include "weights/files_test_util.h"
#include "weights/linear_source.h"
#include "weights/model_files.h"
#include "weights/synth.h"

namespace cachalot {
namespace {

struct Rounded {
  AwqGroup group;
  std::vector<float> values;
  double squared_error = 0;
};

Rounded round_group(const std::vector<float>& weights) {
  std::vector<uint8_t> nibbles(weights.size(), 255);
  Rounded rounded{.group = quantize_awq_group(weights, nibbles.data())};
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
  const QuantizedWeight quantized = quantize_weight(plain(weights, out, in), target, threads);
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
  const QuantizedWeight first = quantize_weight(plain(weights, out, in), target, one);
  const QuantizedWeight second = quantize_weight(plain(weights, out, in), target, three);
  EXPECT_EQ(first.tensors, second.tensors);
  EXPECT_EQ(first.squared_error, second.squared_error);
}

TEST_P(WeightQuantizer, ReportsNumbersThatAreNotFinite) {
  const auto& [target, out, in, bound] = GetParam();
  ThreadPool threads({.num_threads = 2});
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> weights = random_weights(out * in);
    weights[weights.size() / 2] = bad;
    EXPECT_FALSE(quantize_weight(plain(weights, out, in), target, threads).finite);
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

using testing::HasSubstr;

const std::string kNano = std::string(CACHALOT_SOURCE_DIR) + "/models/nano";
constexpr const char* kQuantizedProj = "model.layers.1.self_attn.o_proj";

Result<ModelFiles> quantized(const std::string& model, const std::string& folder, const QuantizeOptions& options) {
  const Result<QuantizeSummary> summary = quantize_model(model, folder, options);
  if (!summary) return std::unexpected(summary.error());
  return ModelFiles::open(folder);
}

// Tensors that quantization must not touch are the same bytes.
void expect_same(const ModelFiles& before, const ModelFiles& after, std::string_view name) {
  const TensorRef *first = before.checkpoint().find(name), *second = after.checkpoint().find(name);
  ASSERT_TRUE(first && second) << name;
  EXPECT_EQ(first->spec.dtype, second->spec.dtype) << name;
  EXPECT_TRUE(std::ranges::equal(first->data, second->data)) << name;
}

TEST(Quantize, TurnsTheBuiltInModelIntoInt4) {
  const TestFolder folder;
  std::vector<uint64_t> progress;
  QuantizeOptions options{.target = {.format = WeightFormat::kAwq, .group_size = 32}, .num_threads = 2};
  options.on_progress = [&](uint64_t num_done, uint64_t num_total) {
    progress.push_back(num_done);
    EXPECT_LE(num_done, num_total);
  };
  const Result<QuantizeSummary> summary = quantize_model(kNano, folder.path("m"), options);
  ASSERT_TRUE(summary) << message_of(summary);
  EXPECT_TRUE(summary->kept.empty());
  EXPECT_GT(summary->relative_error, 0.01);
  EXPECT_LT(summary->relative_error, 0.1);
  EXPECT_LT(summary->num_bytes_written, summary->num_bytes_read / 2);
  EXPECT_EQ(progress.back(), summary->num_bytes_read);

  const Result<ModelFiles> before = ModelFiles::open(kNano), after = ModelFiles::open(folder.path("m"));
  ASSERT_TRUE(after) << message_of(after);
  EXPECT_EQ(after->config().quantization.format, WeightFormat::kAwq);
  EXPECT_EQ(after->config().quantization.group_size, 32);
  EXPECT_EQ(after->num_mtp_layers(), before->num_mtp_layers());
  EXPECT_EQ(after->linear(kQuantizedProj, 128, 256)->format, SourceFormat::kAwq);
  EXPECT_EQ(after->linear("model.layers.4.mlp.experts.0.up_proj", 64, 128)->format, SourceFormat::kAwq)
      << "MTP layers as well";
  for (const char* name :
       {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight", "model.layers.1.mlp.gate.weight",
        "model.layers.1.mlp.gate.e_score_correction_bias", "model.layers.4.eh_proj.weight"})
    expect_same(*before, *after, name);
  EXPECT_EQ(read_file(folder.path("m/tokenizer.json")).value(), read_file(kNano + "/tokenizer.json").value());
  EXPECT_EQ(after->config().yarn->factor, before->config().yarn->factor);
  EXPECT_EQ(after->config().eos_token_ids, before->config().eos_token_ids);
}

TEST(Mxfp4, RoundsToTheNearestCodeAndTiesToTheEvenOne) {
  // With the largest weight at 6 the scale is 1.
  const auto code = [](float weight) {
    std::vector<float> weights(32, 6);
    weights[0] = weight;
    std::vector<uint8_t> codes(32);
    EXPECT_EQ(quantize_mxfp4_group(weights, codes.data()).scale, 127);
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
    return quantize_mxfp4_group(std::vector<float>(32, weight), codes.data()).scale;
  };
  EXPECT_EQ(scale(0), 127);
  EXPECT_EQ(scale(7.9f), 128) << "6 would be too small: 8 is nearer";
  EXPECT_EQ(scale(6.1f), 127);
  EXPECT_EQ(scale(0x1p-90f), 127 - 92);
  EXPECT_EQ(scale(3e38f), 127 + 125);
}

TEST(Quantize, TurnsTheBuiltInModelIntoTheFormatsOfCompressedTensors) {
  const TestFolder folder;
  for (const WeightFormat format : {WeightFormat::kPackedInt, WeightFormat::kMxfp4}) {
    const std::string name = folder.path(format == WeightFormat::kMxfp4 ? "mxfp4" : "int4");
    const Result<ModelFiles> files = quantized(kNano, name, {.target = {.format = format, .group_size = 32}});
    ASSERT_TRUE(files) << message_of(files);
    EXPECT_TRUE(files->notes().empty());
    EXPECT_TRUE(find_linear(files->checkpoint(), kQuantizedProj).has_four_bits(256));
    const ModelFiles plain = ModelFiles::open(kNano).value();
    EXPECT_FALSE(find_linear(plain.checkpoint(), kQuantizedProj).has_four_bits(256));
    EXPECT_EQ(files->config().quantization.format, format);
    EXPECT_EQ(files->linear(kQuantizedProj, 128, 256)->format,
              format == WeightFormat::kMxfp4 ? SourceFormat::kMxfp4 : SourceFormat::kPackedInt);
    expect_same(*ModelFiles::open(kNano), *files, "model.layers.1.mlp.gate.weight");
    EXPECT_THAT(message_of(quantize_model(name, folder.path("out"), {})), HasSubstr("is int4 or MXFP4 already"));
  }
}

// Of a model of several parts, names keep what stands before them, and the other parts come along.
TEST(Quantize, KeepsTheOtherPartsOfAModel) {
  const TestFolder folder;
  const ModelFiles nano = ModelFiles::open(kNano).value();
  std::vector<TensorSpec> specs;
  for (const auto& [name, tensor] : nano.checkpoint().tensors())
    specs.push_back({"language_model." + name, tensor.spec.dtype, tensor.spec.shape});
  specs.push_back({"vision_tower.patch_embed.weight", DType::kBF16, {3, 2}});
  CheckpointWriter writer = CheckpointWriter::create(folder.path("m"), specs, kDefaultShardBytes).value();
  for (const auto& [name, tensor] : nano.checkpoint().tensors())
    ASSERT_TRUE(writer.write("language_model." + name, tensor.data));
  ASSERT_TRUE(writer.write(specs.back().name, std::vector<std::byte>(12, std::byte{7})));
  ASSERT_TRUE(writer.finish());
  boost::json::object config{{"architectures", {"KimiK25ForConditionalGeneration"}}, {"model_type", "kimi_k25"}};
  config["text_config"] = boost::json::parse(read_file(kNano + "/config.json").value());
  ASSERT_TRUE(write_file(folder.path("m/config.json"), boost::json::serialize(config)));

  const Result<ModelFiles> files =
      quantized(folder.path("m"), folder.path("q"), {.target = {.format = WeightFormat::kMxfp4, .group_size = 32}});
  ASSERT_TRUE(files) << message_of(files);
  EXPECT_EQ(files->linear(kQuantizedProj, 128, 256)->format, SourceFormat::kMxfp4);
  EXPECT_EQ(files->config().quantization.format, WeightFormat::kMxfp4);
  ASSERT_EQ(files->checkpoint().set_aside().size(), 1u);
  EXPECT_EQ(files->checkpoint().set_aside()[0].data[11], std::byte{7});
  EXPECT_THAT(files->notes(), testing::ElementsAre(HasSubstr("1 tensors are of parts that are not served")));
}

TEST(Quantize, TurnsTheBuiltInModelIntoFp8AndThatIntoInt4) {
  const TestFolder folder;
  const Result<ModelFiles> fp8 = quantized(kNano, folder.path("fp8"), {.target = {.format = WeightFormat::kFp8Block}});
  ASSERT_TRUE(fp8) << message_of(fp8);
  EXPECT_EQ(fp8->linear(kQuantizedProj, 128, 256)->format, SourceFormat::kFp8Block);

  const Result<ModelFiles> int4 =
      quantized(folder.path("fp8"), folder.path("awq"), {.target = {.format = WeightFormat::kAwq}});
  ASSERT_TRUE(int4) << message_of(int4);
  const WeightSource rounded = int4->linear(kQuantizedProj, 128, 256).value();
  ASSERT_EQ(rounded.format, SourceFormat::kAwq);
  const Result<ModelFiles> plain = ModelFiles::open(kNano);
  const WeightSource original = plain->linear(kQuantizedProj, 128, 256).value();
  double error = 0, norm = 0;
  for (int64_t out = 0; out < 128; out++) {
    float before[256], after[256];
    dequantize(original, out, 0, 256, before);
    dequantize(rounded, out, 0, 256, after);
    for (int idx = 0; idx < 256; idx++) {
      error += (after[idx] - before[idx]) * (after[idx] - before[idx]);
      norm += before[idx] * before[idx];
    }
  }
  EXPECT_LT(std::sqrt(error / norm), 0.12);
}

TEST(Quantize, KeepsAndNamesWhatTheGroupSizeDoesNotFit) {
  const TestFolder folder;
  const Result<QuantizeSummary> summary = quantize_model(
      kNano, folder.path("m"), {.target = {.format = WeightFormat::kAwq, .group_size = 128}, .shard_bytes = 500'000});
  ASSERT_TRUE(summary) << message_of(summary);
  EXPECT_THAT(summary->kept, testing::Contains("model.layers.0.self_attn.q_b_proj"));
  const Result<ModelFiles> files = ModelFiles::open(folder.path("m"));
  ASSERT_TRUE(files) << message_of(files);
  EXPECT_GT(files->checkpoint().files().size(), 1u);
  EXPECT_EQ(files->linear("model.layers.0.self_attn.q_b_proj", 384, 64)->format, SourceFormat::kPlain);
  EXPECT_EQ(files->config().quantization.modules_to_not_convert, summary->kept);
}

TEST(Quantize, NamesTheTensorThatHoldsNoNumber) {
  const TestFolder folder;
  std::filesystem::copy(kNano, folder.path("m"));
  std::filesystem::permissions(folder.path("m/model.safetensors"), std::filesystem::perms::owner_all);
  {
    const Result<ModelFiles> files = ModelFiles::open(folder.path("m"));
    const std::string name = std::string(kQuantizedProj) + ".weight";
    const auto offset =
        files->checkpoint().find(name)->data.data() - files->checkpoint().files()[0].mapping().bytes().data();
    std::fstream file(folder.path("m/model.safetensors"), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(offset + 20);
    file.write("\xc0\x7f", 2);
  }
  EXPECT_THAT(message_of(quantize_model(folder.path("m"), folder.path("q"), {})),
              HasSubstr(std::string("model.safetensors: tensor ") + kQuantizedProj +
                        ".weight: holds a number that is not finite"));
  EXPECT_FALSE(std::filesystem::exists(folder.path("q/config.json"))) << "a broken result must not look like a model";
}

TEST(Quantize, RefusesWhatItCannotDo) {
  const TestFolder folder;
  const auto message = [&](const std::string& model, const QuantizeOptions& options) {
    return message_of(quantize_model(model, folder.path("out"), options));
  };
  EXPECT_THAT(message(kNano, {.target = {.format = WeightFormat::kAwq, .group_size = 33}}),
              HasSubstr("multiple of 32"));
  EXPECT_THAT(message("/nowhere", {}), HasSubstr("/nowhere: there is no such folder"));
  EXPECT_THAT(message(kNano, {.target = {.format = WeightFormat::kAwq, .group_size = 1024}}),
              HasSubstr("nothing to quantize"));

  ASSERT_TRUE(quantize_model(kNano, folder.path("awq"), {.target = {.format = WeightFormat::kAwq, .group_size = 32}}));
  EXPECT_THAT(message(folder.path("awq"), {.target = {.format = WeightFormat::kFp8Block}}),
              HasSubstr("is int4 or MXFP4 already"));
  ASSERT_TRUE(quantize_model(kNano, folder.path("fp8"), {.target = {.format = WeightFormat::kFp8Block}}));
  EXPECT_THAT(message(folder.path("fp8"), {.target = {.format = WeightFormat::kFp8Block}}),
              HasSubstr("nothing to quantize"));
  EXPECT_THAT(message_of(quantize_model(kNano, folder.path("awq"), {})), HasSubstr("already; name a new folder"));
}

}  // namespace

}  // namespace cachalot
