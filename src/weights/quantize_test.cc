#include "weights/quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "kernels/weight_samples_test_util.h"
#include "weights/files_test_util.h"
#include "weights/linear_source.h"
#include "weights/model_files.h"

namespace cachalot {
namespace {

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
